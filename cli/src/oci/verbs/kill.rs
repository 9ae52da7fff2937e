//! `lifecycle-oci kill`

use std::process::ExitCode;

use lifecycle_steps::effects::Status;
use lifecycle_steps::process::SignalName;
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
    let thaw = signal == SignalName::KILL && container.status == Status::Paused;
    let params = json!({ "id": args.id, "signal": signal, "all": args.all, "thaw": thaw });
    let Some(params) = params.as_object() else { return Err(Fault::new("no parameters")) };
    call.perform("oci/kill", Params::clone(params))?;
    Ok(ExitCode::SUCCESS)
}
