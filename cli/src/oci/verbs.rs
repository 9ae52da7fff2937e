//! What each verb does.

pub mod checkpoint;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod list;
pub mod manual;
pub mod pause;
pub mod ps;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

use std::io::Write;
use std::process::ExitCode;

use crate::fault::Fault;

/// Writes to stdout. A reader that has gone has what it wants.
pub fn print(text: &str) -> Result<ExitCode, Fault> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Fault::failed("cannot write to stdout", &e)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
