//! `lifecycle-oci features` and `lifecycle-oci --version`

use std::fmt::Write;
use std::process::ExitCode;

use lifecycle_steps::features::{features, libseccomp_version};
use lifecycle_steps::spec::VERSION;

use crate::fault::Fault;

/// What the program was built from, where `dev build` has built it from a commit.
const COMMIT: Option<&str> = option_env!("LIFECYCLE_COMMIT");

/// Prints what this runtime knows, in the runtime-spec's structure.
pub fn run() -> Result<ExitCode, Fault> {
    let text =
        serde_json::to_string_pretty(&features(COMMIT)).map_err(|e| Fault::failed("cannot write the features", &e))?;
    super::print(&format!("{text}\n"))
}

/// Prints the version in the form that containerd and podman read: a line each, the name of the program first.
pub fn version() -> ExitCode {
    let mut text = format!("lifecycle-oci version {}\n", env!("CARGO_PKG_VERSION"));
    if let Some(commit) = COMMIT {
        let _ = writeln!(text, "commit: {commit}");
    }
    let _ = writeln!(text, "spec: {VERSION}");
    if let Some(version) = libseccomp_version() {
        let _ = writeln!(text, "libseccomp: {version}");
    }
    super::print(&text).unwrap_or(ExitCode::FAILURE)
}
