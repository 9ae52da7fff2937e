//! `lifecycle-oci completions` and `lifecycle-oci man`: generated from the command line's definition.

use std::process::ExitCode;

use clap::CommandFactory;

use super::print;
use crate::args::Cli;
use crate::fault::Fault;

/// Prints completions for a shell.
pub fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Fault> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lifecycle-oci", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// Prints the manual page, verbs and options included.
pub fn man() -> Result<ExitCode, Fault> {
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut text).map_err(|e| Fault::failed("cannot write the page", &e))?;
    print(&String::from_utf8_lossy(&text))
}
