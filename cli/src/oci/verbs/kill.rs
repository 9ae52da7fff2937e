//! `lifecycle-oci kill`

use std::process::ExitCode;

use lifecycle_steps::effects::Status;
use lifecycle_steps::process::{SignalName, ends_its_namespace};
use serde_json::json;

use crate::args::Kill;
use crate::containers::Container;
use crate::fault::Fault;
use crate::perform::{Call, Params};

/// Sends the signal.
pub fn run(call: &Call, args: &Kill) -> Result<ExitCode, Fault> {
    // To kill(2), 0 asks whether there is anybody to send a signal to.
    let asks = args.signal == "0";
    let signal = if asks { SignalName::TERM } else { SignalName::parse(&args.signal).map_err(Fault::new)? };
    let container = Container::load(call, &args.id)?;
    // With --all the processes that a first process has left behind are meant, too.
    if container.status == Status::Stopped && !args.all {
        return Err(Fault::new("container not running"));
    }
    if asks {
        return Ok(ExitCode::SUCCESS);
    }
    let kills = signal == SignalName::KILL;
    let thaw = kills && container.status == Status::Paused;
    let own = &container.state.lifecycle;
    // With its first process a pid namespace ends. Without one of its own the rest of the container is known by its cgroup alone.
    let all = args.all || kills && !own.cgroups.is_empty() && !ends_its_namespace(own.process.pid);
    let params = json!({ "id": args.id, "signal": signal, "all": all, "thaw": thaw });
    let Some(params) = params.as_object() else { return Err(Fault::new("no parameters")) };
    call.perform("oci/kill", Params::clone(params))?;
    Ok(ExitCode::SUCCESS)
}
