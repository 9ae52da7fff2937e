//! Filters of system calls, config-linux.md "Seccomp".

mod compile;
pub mod load;

pub(crate) use compile::compile;
