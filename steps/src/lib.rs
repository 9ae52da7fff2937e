//! The effects and the steps of `lifecycle`: what a container's life is made of on Linux.
//!
//! A step is one file below the folder of its subject; an effect is one file in [`effects`]. Both are listed in [`registry()`].

pub mod command;
pub mod effects;
pub mod facts;
pub mod hooks;
pub mod mounts;
pub mod net;
pub mod outcomes;
pub mod probe;
pub mod process;
mod registry;
pub mod spawn;
pub mod spec;
pub mod sys;
#[cfg(test)]
pub(crate) mod testing;

pub use registry::registry;
