//! `lifecycle undo`. An engine that works on the run is cancelled first: it takes the run back itself, and is waited for.

use std::process::ExitCode;

use lifecycle_cli::mask;
use lifecycle_engine::journal;
use lifecycle_engine::run::{RunError, undo_run_but};

use crate::args::{Global, Undo};
use crate::place;
use crate::print::{Failure, refused};
use crate::watch::Lines;

/// Executes the command.
pub fn run(global: &Global, args: &Undo) -> Result<ExitCode, Failure> {
    let _ = mask::own();
    let names = place::run(global, &args.run)?;
    if !args.forget.is_empty() {
        let state = journal::read(&names).map_err(RunError::from)?;
        let known: Vec<&str> = state.begun().map(|(_, node)| &*node.step).collect();
        if let Some(step) = args.forget.iter().find(|step| !known.contains(&step.as_str())) {
            return Err(refused(
                format!("run `{}` has no step `{step}`", args.run),
                format!("its steps are {}", known.join(", ")),
            ));
        }
    }
    let mut watch = Lines { slow: 0, output: true };
    let stuck = undo_run_but(&names, &lifecycle_steps::registry(), &mut watch, &args.forget)?;
    if stuck.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(place::stuck(&args.run, &stuck))
}
