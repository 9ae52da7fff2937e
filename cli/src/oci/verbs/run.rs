//! `lifecycle-oci run`

use std::process::ExitCode;

use crate::args::Run;
use crate::fault::Fault;
use crate::perform::Call;

use super::create::{params, seal};

/// Makes the container, starts it, and waits for its end.
pub fn run(call: &Call, args: &Run) -> Result<ExitCode, Fault> {
    seal()?;
    let mut params = params(call, &args.id, &args.making)?;
    if args.detach {
        call.perform("oci/create", params)?;
        return super::start::run(call, &args.id);
    }
    params.insert("forward_signals".into(), true.into());
    let finished = call.run("oci/run", params, args.keep)?;
    Ok(ExitCode::from(finished.exit.unwrap_or(0) as u8))
}
