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
pub mod command;
pub mod hook;
pub mod probe;
