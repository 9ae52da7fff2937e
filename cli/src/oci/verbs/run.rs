//! `lifecycle-oci run`

use std::process::ExitCode;

use super::create::{notify_socket, params, seal};
use crate::args::{Delete, Run};
use crate::fault::Fault;
use crate::perform::{Call, Keep, Params};

/// Makes the container, starts it, and waits for its end.
pub fn run(call: &Call, args: &Run) -> Result<ExitCode, Fault> {
    seal()?;
    let mut params = params(call, &args.id, &args.making)?;
    if args.detach {
        return detached(call, &args.id, params);
    }
    params.insert("forward_signals".into(), true.into());
    // The program's exit code is the caller's to judge.
    params.insert("accept".into(), Vec::<u8>::new().into());
    if let Some(socket) = notify_socket() {
        params.insert("notify_socket".into(), socket.into());
    }
    let finished = call.run("oci/run", params, Keep::if_so(args.keep, Keep::Container))?;
    Ok(ExitCode::from(finished.exit.unwrap_or(0) as u8))
}

/// One that cannot be started is not left behind.
fn detached(call: &Call, id: &str, params: Params) -> Result<ExitCode, Fault> {
    call.perform("oci/create", params)?;
    super::start::run(call, id).map_err(|fault| {
        let delete = Delete { id: id.to_owned(), force: true };
        match super::delete::run(call, &delete) {
            Ok(_) => fault,
            Err(left) => Fault { message: format!("{}; {}", fault.message, left.message), ..fault },
        }
    })
}
