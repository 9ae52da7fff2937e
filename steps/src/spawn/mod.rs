//! Processes that effects start on the host: commands, hooks, and copies of ourselves that may block.
//!
//! Whatever is started here is inert until the engine has journaled its identity, leads a session and a process group of its own, has none of the
//! engine's descriptors, and can be found and killed by another process from the journal alone.

pub mod child;
pub mod command;
pub mod identity;
mod keeper;
pub mod leftover;
pub mod output;
#[cfg(test)]
pub(crate) mod testing;
pub mod worker;

use std::fmt;
use std::time::Duration;

pub use command::{Command, Ended, Running};
pub use keeper::{Keeper, LARGEST, keep_output};
pub use worker::{Leash, Working, worker};

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Killed by us when its time was over.
    TimedOut(Duration),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "was killed by {name}"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
            Self::TimedOut(limit) => write!(f, "was killed after its time limit of {limit:?}"),
        }
    }
}
