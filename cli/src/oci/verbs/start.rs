//! `lifecycle-oci start`

use std::process::ExitCode;

use lifecycle_steps::effects::Status;

use super::create::notify_socket;
use crate::containers::Container;
use crate::fault::Fault;
use crate::perform::{Call, Params};

/// Starts the container's program.
pub fn run(call: &Call, id: &str) -> Result<ExitCode, Fault> {
    let container = Container::load(call, id)?;
    match container.status {
        Status::Stopped => return Err(Fault::new("cannot start a container that has stopped")),
        Status::Running => return Err(Fault::new("cannot start an already running container")),
        Status::Paused => return Err(Fault::new("cannot start a container in the paused state")),
        Status::Creating | Status::Created => {}
    }
    let mut params = Params::from_iter([("id".to_owned(), id.into())]);
    // A container that was created without it has nowhere to notify.
    if let Some(socket) = notify_socket().filter(|_| container.names.dir().join("notify").is_dir()) {
        params.insert("notify_socket".into(), socket.into());
    }
    call.perform("oci/start", params)?;
    Ok(ExitCode::SUCCESS)
}
