//! Filters of system calls, config-linux.md "Seccomp".

pub(crate) mod cache;
mod compile;
pub mod keep;
pub mod load;
mod parts;
mod unknown;

pub(crate) use cache::compiled;
pub(crate) use compile::compile;
pub use parts::{Handing, Part};
