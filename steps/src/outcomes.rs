//! What effects tell each other through handles: the outcomes that more than one subject uses.

use std::fmt;
use std::path::PathBuf;

use lifecycle_engine::value::Outcome;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cgroup::scope::ScopeJoin;

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

/// Where a process writes itself to be in a cgroup. Made by `cgroup.create`, taken by `process.clone`. The directories are known while planning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CgroupJoin {
    /// The cgroup's directory in each v1 hierarchy: `0` is written into its `tasks`.
    #[serde(default)]
    pub v1: Vec<PathBuf>,
    /// Its directory in the v2 hierarchy: the process is cloned into it, or writes `0` into its `cgroup.procs`.
    #[serde(default)]
    pub v2: Option<PathBuf>,
    /// A scope that systemd makes around the process, which it moves there in its own hierarchies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Box<ScopeJoin>>,
}

/// Where a container is in the resctrl file system. Made by `rdt.group`; both null where the config asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub struct RdtGroups {
    /// The directory of its class of service.
    #[serde(default)]
    pub group: Option<PathBuf>,
    /// The directory of its monitoring group, in that of the class.
    #[serde(default)]
    pub monitor: Option<PathBuf>,
}

/// A FIFO that we made, named so that another one at its path is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fifo {
    /// Where it is on the host.
    pub path: PathBuf,
    /// The file system's device number.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
}

impl Outcome for Fifo {
    const NAME: &'static str = "fifo";
}

/// A mount that hangs nowhere, as a descriptor that the engine keeps for a process that it makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetachedMount {
    /// Under which name the engine keeps it.
    pub name: String,
}

impl Outcome for DetachedMount {
    const NAME: &'static str = "mount";
}
