//! `lifecycle-oci delete`

use std::process::ExitCode;
use std::time::Instant;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::journal::{self, JournalError, RunDir};
use lifecycle_engine::run::{PATIENCE, Recovered, RunError, recover_one, undo_run_by};
use lifecycle_steps::effects::Status;

use crate::args::Delete;
use crate::containers::Container;
use crate::fault::{Fault, stuck};
use crate::perform::{Call, Keep, Params};

/// Takes back all that was made for the container.
pub fn run(call: &Call, args: &Delete) -> Result<ExitCode, Fault> {
    let names = call.container(&args.id)?;
    // What cannot be read is told of by whoever works with it.
    let state = journal::read(&names).ok();
    let unsettled = state.as_ref().is_some_and(|state| !state.is_settled());
    let around = state.and_then(|state| state.parent);
    let code = delete(call, args, &names, unsettled)?;
    around.map_or(Ok(()), |id| end_of(call, &RunNames { root: call.root.clone(), id }))?;
    Ok(code)
}

/// The run that a container was made in has nothing else to take back. Whoever called `run` ends it, unless he was killed.
fn end_of(call: &Call, around: &RunNames) -> Result<(), Fault> {
    match recover_one(around, &lifecycle_steps::registry(), &mut call.watch()) {
        Some(Recovered::Stuck(left)) => Err(Fault::new(stuck(&left).join("; "))),
        Some(Recovered::Failed(why)) => Err(Fault::new(format!("the run {} cannot be taken back: {why}", around.id))),
        _ => Ok(()),
    }
}

fn delete(call: &Call, args: &Delete, names: &RunNames, unsettled: bool) -> Result<ExitCode, Fault> {
    let until = Instant::now() + PATIENCE;
    let container = Container::find(names.clone())?;
    match (&container, args.force) {
        (Some(found), false) if !matches!(found.status, Status::Created | Status::Stopped) => {
            let (id, status) = (&args.id, found.status);
            return Err(Fault::new(format!("cannot delete container {id} that is not stopped: {status}")));
        }
        (Some(_), _) => {}
        // Without a state it was cut off while it was made, or is being made.
        (None, true) => return forced(call, names, until),
        (None, false) => return Err(Fault::absent(&args.id)),
    }
    if args.force && unsettled {
        return forced(call, names, until);
    }
    let thaw = container.is_some_and(|found| found.status == Status::Paused);
    let params = [
        ("id".to_owned(), args.id.as_str().into()),
        ("force".to_owned(), args.force.into()),
        ("thaw".to_owned(), thaw.into()),
    ];
    match call.run("oci/delete", Params::from_iter(params), Keep::Nothing) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(fault) if args.force => forced(call, names, until).map_err(|_| {
            let message =
                format!("{}; what is left of the container stays listed, and `delete` tries again", fault.message);
            Fault { message, ..fault }
        }),
        Err(fault) => Err(fault),
    }
}

/// Undoes the run, whatever state it is in: an engine that works on it is cancelled, and waited for.
fn forced(call: &Call, names: &RunNames, until: Instant) -> Result<ExitCode, Fault> {
    let left = match undo_run_by(names, &lifecycle_steps::registry(), &mut call.watch(), until) {
        Err(RunError::Journal(JournalError::Absent { .. })) => Vec::new(),
        other => other?,
    };
    // One that was cut off while its directory was made or removed.
    RunDir::sweep_run(names).map_err(RunError::from)?;
    if left.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Fault::new(stuck(&left).join("; "))) }
}
