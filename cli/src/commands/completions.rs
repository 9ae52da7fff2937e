//! `lifecycle completions`.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::args::{Cli, Completions};
use crate::print::Failure;

/// Prints the completions for a shell.
pub fn run(args: &Completions) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lifecycle", &mut script);
    crate::print::bytes(&script)
}
