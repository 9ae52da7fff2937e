//! `lifecycle audit`.

use std::process::ExitCode;

use crate::args::{Audit, Global};
use crate::print::{Failure, refused};

/// Executes the command.
pub fn run(_: &Global, args: &Audit) -> Result<ExitCode, Failure> {
    Err(refused(format!("{args:?}: the engine is not linked yet"), "wait for it"))
}
