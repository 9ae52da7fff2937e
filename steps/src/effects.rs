//! The effects: each changes one thing on the machine and knows its inverse.

pub mod clone;
mod directory;
mod file;
pub mod idmap;
mod node;
pub mod oom;
mod placed;
pub mod prelude;
pub mod stage;
#[cfg(test)]
pub(crate) mod testing;

pub use directory::Directory;
pub use file::File;
pub use node::{Device, Fifo, Symlink};
pub use placed::{Existing, Identity};

use lifecycle_engine::value::{Handle, HandleRef};

use crate::outcomes::Process;

/// A handle as the examples of effects have it: to a process that step `init` makes.
fn example_process() -> Handle<Process> {
    Handle::new(HandleRef { step: "init".into(), effect: 0, field: "".into() })
}
pub mod command;
pub mod hook;
pub mod probe;
