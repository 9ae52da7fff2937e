//! `lifecycle show`.

use std::process::ExitCode;

use crate::args::{Global, Show};
use crate::print::{Failure, refused};

/// Executes the command.
pub fn run(_: &Global, args: &Show) -> Result<ExitCode, Failure> {
    Err(refused(format!("{args:?}: the engine is not linked yet"), "wait for it"))
}
