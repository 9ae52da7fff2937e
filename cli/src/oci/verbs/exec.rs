//! `lifecycle-oci exec`

use std::process::ExitCode;

use lifecycle_steps::effects::Status;
use serde_json::{Value, json};

use super::create::{descriptors, seal};
use crate::args::Exec;
use crate::containers::Container;
use crate::fault::Fault;
use crate::perform::{Call, Keep, Params, path};

/// The exit code of a failure of our own, so that it is told from the program's.
const FAILED: u8 = 255;

/// Runs the program.
pub fn run(call: &Call, args: &Exec) -> Result<ExitCode, Fault> {
    enter(call, args).map_err(|fault| match fault.code {
        1 => fault.with_code(FAILED),
        _ => fault,
    })
}

fn enter(call: &Call, args: &Exec) -> Result<ExitCode, Fault> {
    if args.process.is_none() && args.command.is_empty() {
        return Err(Fault::new("process args cannot be empty: name a command, or a file with --process"));
    }
    seal()?;
    match Container::load(call, &args.id)?.status {
        Status::Stopped => return Err(Fault::new("cannot exec in a stopped container")),
        Status::Paused if !args.ignore_paused => {
            let message = "cannot exec in a paused container (use --ignore-paused to override)";
            return Err(Fault::new(message));
        }
        _ => {}
    }
    let finished = call.run("oci/exec", params(args)?, Keep::if_so(args.detach, Keep::All))?;
    Ok(ExitCode::from(finished.exit.unwrap_or(0) as u8))
}

fn params(args: &Exec) -> Result<Params, Fault> {
    let word = |word: &std::ffi::OsString| {
        word.to_str().map(str::to_owned).ok_or_else(|| Fault::new(format!("{} is not UTF-8", word.display())))
    };
    let command: Vec<String> = args.command.iter().map(word).collect::<Result<_, _>>()?;
    let given = json!({
        "id": args.id,
        "command": command,
        "terminal": args.tty,
        "cwd": args.cwd,
        "env": args.env,
        "user": args.user,
        "additional_gids": args.additional_gids,
        "capabilities": args.cap,
        "no_new_privileges": args.no_new_privs,
        "apparmor": args.apparmor,
        "selinux_label": args.process_label,
        "cgroup": args.cgroup,
        "ignore_paused": args.ignore_paused,
        "detach": args.detach,
        "forward_signals": !args.detach,
        // The program's exit code is the caller's to judge.
        "accept": [],
    });
    let mut params: Params = match given {
        Value::Object(map) => map.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Params::new(),
    };
    descriptors(args.preserve_fds, &mut params)?;
    let files = [
        ("console_socket", &args.console_socket),
        ("pid_file", &args.pid_file),
        ("pidfd_socket", &args.pidfd_socket),
        ("process", &args.process),
    ];
    for (name, file) in files {
        if let Some(file) = file {
            params.insert(name.into(), path(file)?);
        }
    }
    Ok(params)
}
