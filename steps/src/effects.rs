//! The effects: each changes one thing on the machine and knows its inverse.

pub mod address;
pub mod cgroup;
pub mod clone;
pub mod command;
pub mod console;
pub mod criu;
pub mod device;
mod directory;
pub mod exec;
mod expect;
pub mod fifo;
mod file;
pub mod filter_cache;
pub mod find;
pub mod hook;
pub mod idmap;
pub mod inside;
pub mod keyring;
pub mod label;
pub mod link;
mod mount;
pub mod netns;
mod node;
pub mod notify;
pub mod oom;
pub mod pid_file;
pub mod pidfd;
mod placed;
pub mod prelude;
pub mod prepare;
pub mod privileges;
pub mod probe;
pub mod rdt;
pub mod ready;
pub mod relay;
pub mod rlimit;
pub mod route;
pub mod schedule;
pub mod seccomp;
pub mod signal;
pub mod stage;
mod state;
pub mod stdio;
pub mod sysctl;
#[cfg(test)]
pub(crate) mod testing;
pub mod uts;
pub mod wait;
mod warning;

pub use directory::Directory;
pub use expect::{ExpectStatus, status_of};
pub use file::File;
pub use mount::Mount;
pub use node::{Device, Fifo, Symlink};
pub use placed::{Existing, Identity};
pub use state::{State, Status};
pub use warning::Warning;

use lifecycle_engine::effect::Cx;
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Handle, HandleRef};

use crate::outcomes::Process;

/// Whether the site's process has a namespace that is not the engine's: without one, `what` would change for the whole host.
fn owns(cx: &Cx, namespace: &str, what: &str) -> Result<(), EffectError> {
    if cx.fds.is_marked(namespace) {
        return Ok(());
    }
    let name = match namespace {
        "net" => "network",
        "mnt" => "mount",
        other => other,
    };
    Err(EffectError::new(format!(
        "setting {what} would change it for the host: the container shares the host's {name} namespace"
    ))
    .help(format!("give the container a {name} namespace of its own, or take the setting out")))
}

/// A handle as the examples of effects have it: to a process that step `init` makes.
fn example_process() -> Handle<Process> {
    Handle::new(HandleRef { step: "init".into(), effect: 0, field: "".into() })
}
