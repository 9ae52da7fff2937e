//! `lifecycle run`.

use std::process::ExitCode;

use crate::args::{Global, Run};
use crate::print::{Failure, refused};

/// Executes the command.
pub fn run(_: &Global, args: &Run) -> Result<ExitCode, Failure> {
    Err(refused(format!("{args:?}: the engine is not linked yet"), "wait for it"))
}
