//! `lifecycle-oci --version`

use std::process::ExitCode;

/// Prints the version in the form that containerd and podman read.
pub fn version() -> ExitCode {
    let text = format!("lifecycle-oci version {}\nspec: 1.3.0\n", env!("CARGO_PKG_VERSION"));
    super::print(&text).unwrap_or(ExitCode::FAILURE)
}
