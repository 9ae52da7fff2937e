//! `lifecycle-oci pause` and `lifecycle-oci resume`

use std::process::ExitCode;

use lifecycle_steps::effects::Status;

use crate::containers::Container;
use crate::fault::Fault;
use crate::perform::{Call, Params};

/// Stops the container's processes where they are.
pub fn pause(call: &Call, id: &str) -> Result<ExitCode, Fault> {
    match Container::load(call, id)?.status {
        Status::Created | Status::Running => {}
        _ => return Err(Fault::new("container not running")),
    }
    call.perform("oci/pause", Params::from_iter([("id".to_owned(), id.into())]))?;
    Ok(ExitCode::SUCCESS)
}

/// Lets them go on.
pub fn resume(call: &Call, id: &str) -> Result<ExitCode, Fault> {
    if Container::load(call, id)?.status != Status::Paused {
        return Err(Fault::new("container not paused"));
    }
    call.perform("oci/resume", Params::from_iter([("id".to_owned(), id.into())]))?;
    Ok(ExitCode::SUCCESS)
}
