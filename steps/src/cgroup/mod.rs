//! Cgroups: where a container's processes are counted and limited.

mod create;
pub mod devices;
mod filter;
mod freeze;
mod frozen;
mod limits;
pub(crate) mod oom;
mod path;
mod properties;
pub(crate) mod realtime;
mod rootless;
pub mod scope;
pub mod stats;
mod translate;
mod unit;
mod update;
mod v1;
mod v2;

pub use create::Create;
pub use freeze::{Freeze, Thaw};
pub use frozen::is_frozen;
pub use oom::OomWatch;
pub(crate) use path::beginning;
pub use properties::Properties;
pub use rootless::Rootless;
pub use stats::{Stats, pids};
pub use update::Update;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::outcomes::Process;

/// Puts in the place of a cgroup of version 2 that is gone the one that all of the container is in by now, if there is one.
pub fn follow(cgroups: &mut BTreeMap<String, PathBuf>, process: &Process) {
    if let Some(recorded) = cgroups.get_mut("")
        && let Some(now) = crate::facts::instead(process, recorded)
    {
        *recorded = now;
    }
}

#[cfg(test)]
mod tests;
