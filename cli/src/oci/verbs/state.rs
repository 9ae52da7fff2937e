//! `lifecycle-oci state`

use std::process::ExitCode;

use super::print;
use crate::containers::Container;
use crate::fault::Fault;
use crate::perform::Call;

/// Prints the container's state.
pub fn run(call: &Call, id: &str) -> Result<ExitCode, Fault> {
    let document = Container::load(call, id)?.document();
    let text = serde_json::to_string_pretty(&document).map_err(|e| Fault::failed("cannot write the state", &e))?;
    print(&format!("{text}\n"))
}
