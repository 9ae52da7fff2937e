//! What effects tell each other through handles: the outcomes that more than one subject uses.

use std::fmt;

use lifecycle_engine::value::Outcome;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A process of the host, named so that nobody can take another for it: the kernel uses a pid again, but not with the same start time in the
/// same boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its id in the engine's pid namespace.
    pub pid: i32,
    /// When it was started, in clock ticks since boot: field 22 of `/proc/PID/stat`, proc_pid_stat(5).
    pub start: u64,
    /// The boot in which it lives: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

impl Outcome for Process {
    const NAME: &'static str = "process";
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}
