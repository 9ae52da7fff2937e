//! `lifecycle-oci checkpoint` and `lifecycle-oci restore`

use std::process::ExitCode;

use lifecycle_steps::effects::Status;
use serde_json::{Value, json};

use super::create::seal;
use crate::args::{Checkpoint, Criu, Delete, Restore};
use crate::containers::Container;
use crate::fault::Fault;
use crate::perform::{Call, Keep, Params, path};

/// Saves the container; unless it goes on, it is gone then.
pub fn checkpoint(call: &Call, args: &Checkpoint) -> Result<ExitCode, Fault> {
    let status = Container::load(call, &args.id)?.status;
    if !matches!(status, Status::Running) {
        return Err(Fault::new(format!(
            "container not running: cannot checkpoint container {} that is {status}",
            args.id
        )));
    }
    let mut options = options(call, &args.criu)?;
    options["parent"] = json!(args.parent_path);
    let params = json!({
        "id": args.id,
        "options": options,
        "leave_running": args.leave_running,
        "pre_dump": args.pre_dump,
        "page_server": args.page_server,
        "status_fd": args.status_fd,
    });
    call.perform("oci/checkpoint", given(params))?;
    if args.leave_running || args.pre_dump {
        return Ok(ExitCode::SUCCESS);
    }
    super::delete::run(call, &Delete { id: args.id.clone(), force: true })
}

/// Makes the container from an image.
pub fn restore(call: &Call, args: &Restore) -> Result<ExitCode, Fault> {
    seal()?;
    call.container(&args.id)?;
    let mut params = given(json!({
        "id": args.id,
        "bundle": path(&args.files.bundle)?,
        "options": options(call, &args.criu)?,
        "lsm_profile": args.lsm_profile,
        "lsm_mount_context": args.lsm_mount_context,
        "systemd_cgroup": call.global.systemd_cgroup,
        "rootless": call.global.rootless.word(),
        "detach": args.detach,
        "forward_signals": !args.detach,
    }));
    // The program's exit code is the caller's to judge.
    params.insert("accept".into(), Vec::<u8>::new().into());
    let files = &args.files;
    for (name, file) in [
        ("console_socket", &files.console_socket),
        ("pid_file", &files.pid_file),
        ("pidfd_socket", &files.pidfd_socket),
    ] {
        if let Some(file) = file {
            params.insert(name.into(), path(file)?);
        }
    }
    let finished = call.run("oci/restore", params, Keep::if_so(args.detach, Keep::All))?;
    Ok(ExitCode::from(finished.exit.unwrap_or(0) as u8))
}

fn options(call: &Call, criu: &Criu) -> Result<Value, Fault> {
    let program = call.global.criu.to_str().ok_or_else(|| Fault::new("--criu is not UTF-8"))?;
    Ok(json!({
        "criu": program,
        "images": path(&criu.image_path)?,
        "work": criu.work_path.as_deref().map(path).transpose()?,
        "tcp_established": criu.tcp_established,
        "tcp_skip_in_flight": criu.tcp_skip_in_flight,
        "ext_unix_sk": criu.ext_unix_sk,
        "shell_job": criu.shell_job,
        "lazy_pages": criu.lazy_pages,
        "file_locks": criu.file_locks,
        "manage_cgroups_mode": criu.manage_cgroups_mode,
        "empty_ns": criu.empty_ns,
        "auto_dedup": criu.auto_dedup,
    }))
}

/// What the caller has given; the plan knows the rest.
fn given(params: Value) -> Params {
    match params {
        Value::Object(map) => map.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Params::new(),
    }
}
