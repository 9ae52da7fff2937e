//! `lifecycle-oci create`

use std::process::ExitCode;

use lifecycle_steps::process::sealed;
use serde_json::json;

use crate::args::{Create, Making};
use crate::fault::Fault;
use crate::perform::{Call, Params, path};

/// Makes the container.
pub fn run(call: &Call, args: &Create) -> Result<ExitCode, Fault> {
    seal()?;
    call.perform("oci/create", params(call, &args.id, &args.making)?)?;
    Ok(ExitCode::SUCCESS)
}

/// From here on no container can reach the file that this program was started from.
pub fn seal() -> Result<(), Fault> {
    sealed::run_from_sealed().map_err(|e| Fault::failed("cannot run a container safely", &e))
}

/// The parameters of oci/create and oci/run.
pub fn params(call: &Call, id: &str, making: &Making) -> Result<Params, Fault> {
    call.container(id)?;
    let mut params = Params::new();
    params.insert("id".into(), id.into());
    params.insert("bundle".into(), path(&making.bundle)?);
    params.insert("no_pivot".into(), making.no_pivot.into());
    params.insert("no_new_keyring".into(), making.no_new_keyring.into());
    params.insert("preserve_fds".into(), json!(making.preserve_fds + listen_fds()));
    for (name, file) in [("console_socket", &making.console_socket), ("pid_file", &making.pid_file)] {
        if let Some(file) = file {
            params.insert(name.into(), path(file)?);
        }
    }
    Ok(params)
}

/// The descriptors of socket activation, sd_listen_fds(3): they come first.
pub fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
