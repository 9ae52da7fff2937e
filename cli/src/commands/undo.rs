//! `lifecycle undo`. An engine that works on the run is cancelled first: it takes the run back itself, and is waited for.

use std::process::ExitCode;

use lifecycle_cli::mask;
use lifecycle_engine::run::undo_run;

use crate::args::{Global, Undo};
use crate::place;
use crate::print::Failure;
use crate::watch::Lines;

/// Executes the command.
pub fn run(global: &Global, args: &Undo) -> Result<ExitCode, Failure> {
    let _ = mask::own();
    let names = place::run(global, &args.run)?;
    let stuck = undo_run(&names, &lifecycle_steps::registry(), &mut Lines { slow: 0, output: true })?;
    if stuck.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(place::stuck(&args.run, &stuck))
}
