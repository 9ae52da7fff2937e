//! `lifecycle logs`.

use std::process::ExitCode;

use crate::args::{Global, Logs};
use crate::print::{Failure, refused};

/// Executes the command.
pub fn run(_: &Global, args: &Logs) -> Result<ExitCode, Failure> {
    Err(refused(format!("{args:?}: the engine is not linked yet"), "wait for it"))
}
