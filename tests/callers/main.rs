//! The programs that call an OCI runtime, each case with runc and with `lifecycle-oci`: the same output, the same exit codes, and nothing of
//! ours left behind.

use std::process::ExitCode;

use lifecycle_tests::harness;

mod compare;
mod containerd;
mod podman;
mod wordings;

fn main() -> ExitCode {
    harness::main(podman::tests().into_iter().chain(containerd::tests()).collect())
}
