//! The effects: each changes one thing on the machine and knows its inverse.

mod directory;
mod file;
mod node;
mod placed;
#[cfg(test)]
pub(crate) mod testing;

pub use directory::Directory;
pub use file::File;
pub use node::{Device, Fifo, Symlink};
pub use placed::{Existing, Identity};
pub mod clone;
pub mod idmap;
pub mod oom;
pub mod prelude;
pub mod stage;

use lifecycle_engine::value::{Handle, HandleRef};

use crate::outcomes::Process;

/// A handle as the examples of effects have it: to a process that step `init` makes.
fn example_process() -> Handle<Process> {
    Handle::new(HandleRef { step: "init".into(), effect: 0, field: "".into() })
}
