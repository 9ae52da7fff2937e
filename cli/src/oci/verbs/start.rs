//! `lifecycle-oci start`

use std::process::ExitCode;

use lifecycle_steps::effects::Status;

use crate::containers::Container;
use crate::fault::Fault;
use crate::perform::{Call, Params};

/// Starts the container's program.
pub fn run(call: &Call, id: &str) -> Result<ExitCode, Fault> {
    match Container::load(call, id)?.status {
        Status::Stopped => return Err(Fault::new("cannot start a container that has stopped")),
        Status::Running | Status::Paused => return Err(Fault::new("cannot start an already running container")),
        Status::Creating | Status::Created => {}
    }
    call.perform("oci/start", Params::from_iter([("id".to_owned(), id.into())]))?;
    Ok(ExitCode::SUCCESS)
}
