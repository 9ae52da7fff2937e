//! What the whole-program tests are made of.
//!
//! - [`machine`]: a snapshot of the machine, and the readable difference of two.
//! - [`killer`]: SIGKILL at an exact system call of the engine or of a process that it made.
//! - [`lab`]: a machine of its own for each test: its own mounts, network, processes and `/run`.
//! - [`rounds`]: the law itself, over any pair of an apply and an undo.
//! - [`bundle`]: OCI bundles small enough to make one per test.
//! - [`criu`]: a program in criu's place.
//! - [`fuzzing`]: what is read from outside, with bytes that nobody meant.
//! - [`older`]: a kernel that lacks the newer calls.
//! - [`program`]: the `lifecycle` program under test.
//! - [`audit`]: what carries our names on the real machine once the tests are over.
//! - [`harness`]: runs tests, each in its lab, and names what it had to skip and why.

pub mod audit;
pub mod bundle;
pub mod criu;
mod error;
pub mod fuzzing;
pub mod harness;
pub mod killer;
pub mod lab;
pub mod machine;
pub mod older;
pub mod program;
pub mod rounds;
mod sys;

use std::time::Duration;

pub use error::{Error, Result, While};
pub use sys::{keyring, seccomp};

/// How long what comes about by itself may take, such as the end of a network namespace, which the kernel frees from a work queue. Only a test
/// that fails waits for so long, so it is made for a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(20);
