//! `lifecycle-oci create`

use std::process::ExitCode;

use lifecycle_steps::process::sealed;
use lifecycle_steps::sys;
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
    params.insert("bundle".into(), path(&making.files.bundle)?);
    params.insert("no_pivot".into(), making.no_pivot.into());
    params.insert("no_new_keyring".into(), making.no_new_keyring.into());
    params.insert("systemd_cgroup".into(), call.global.systemd_cgroup.into());
    params.insert("rootless".into(), call.global.rootless.word().into());
    params.insert("notify".into(), notify_socket().is_some().into());
    descriptors(making.preserve_fds, &mut params)?;
    let files = [
        ("console_socket", &making.files.console_socket),
        ("pid_file", &making.files.pid_file),
        ("pidfd_socket", &making.files.pidfd_socket),
    ];
    for (name, file) in files {
        if let Some(file) = file {
            params.insert(name.into(), path(file)?);
        }
    }
    Ok(params)
}

/// What `--preserve-fds` and socket activation pass on to the program. One that is not open is refused before anything else could be opened in its
/// place.
pub fn descriptors(preserve: u32, params: &mut Params) -> Result<(), Fault> {
    let listen = listen_fds();
    let all = listen.saturating_add(preserve);
    for fd in (3..=i32::MAX).take(all as usize) {
        sys::fd::inherited(fd).map_err(|e| {
            let which = i64::from(fd) - 3 - i64::from(listen);
            match u32::try_from(which) {
                Ok(which) => {
                    Fault::failed(format!("unable to stat preserved-fd {which} (of {preserve}): descriptor {fd}"), &e)
                }
                Err(_) => Fault::failed(format!("LISTEN_FDS is {listen}, and descriptor {fd} is not open"), &e),
            }
        })?;
    }
    params.insert("preserve_fds".into(), json!(all));
    params.insert("listen_fds".into(), json!(listen));
    if let (1.., Ok(names)) = (listen, std::env::var("LISTEN_FDNAMES")) {
        params.insert("listen_names".into(), names.into());
    }
    Ok(())
}

/// The descriptors of socket activation come first. They are ours if LISTEN_PID says so, sd_listen_fds(3).
fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return 0;
    }
    number("LISTEN_FDS").unwrap_or(0)
}

/// Where the caller's service manager listens, if there is one: sd_notify(3).
pub fn notify_socket() -> Option<String> {
    std::env::var("NOTIFY_SOCKET").ok().filter(|socket| !socket.is_empty())
}
