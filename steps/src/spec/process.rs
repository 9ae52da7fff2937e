//! `process`: config.md, "Process", "POSIX process", "Linux Process" and "User".

use super::non_empty;
use lifecycle_engine::value::Sensitive;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The container's process; also what `exec --process` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Whether it gets a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// The terminal's size in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// The directory that it starts in. Absolute.
    pub cwd: PathBuf,
    /// Its environment, as `NAME=value`. Sensitive: values are where people put passwords.
    #[serde(default)]
    pub env: Vec<Sensitive<String>>,
    /// Its argv. The spec demands at least one entry on Linux.
    #[serde(default)]
    pub args: Vec<String>,
    /// A command line, for Windows. Not interpreted.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub command_line: Option<String>,
    /// Resource limits, one per type.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// The AppArmor profile, or `unconfined`.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub apparmor_profile: Option<String>,
    /// The SELinux label.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
    /// The five capability sets. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Whether exec may give more privileges (PR_SET_NO_NEW_PRIVS).
    #[serde(default)]
    pub no_new_privileges: bool,
    /// `oom_score_adj`; absent: the runtime's own stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// The scheduling policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// The I/O priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// The CPUs that an `exec` runs on.
    #[serde(default, rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
    /// Whom it runs as. Absent: root of the container.
    #[serde(default)]
    pub user: User,
}

/// A terminal's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u64,
    /// Columns.
    pub width: u64,
}

/// Whom a process runs as, in the container's ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The user id.
    #[serde(default)]
    pub uid: u32,
    /// The group id.
    #[serde(default)]
    pub gid: u32,
    /// The file mode creation mask. Absent: 0022, whatever the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(default)]
    pub additional_gids: Vec<u32>,
    /// A name, for Windows. Not interpreted.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rlimit {
    /// Which.
    #[serde(rename = "type")]
    pub kind: RlimitType,
    /// The ceiling that an unprivileged process may raise `soft` to. `u64::MAX` is "unlimited".
    pub hard: u64,
    /// The limit that the kernel enforces.
    pub soft: u64,
}

/// The limits of getrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each variant is the limit of that name in getrlimit(2)")]
pub enum RlimitType {
    #[serde(rename = "RLIMIT_AS")]
    As,
    #[serde(rename = "RLIMIT_CORE")]
    Core,
    #[serde(rename = "RLIMIT_CPU")]
    Cpu,
    #[serde(rename = "RLIMIT_DATA")]
    Data,
    #[serde(rename = "RLIMIT_FSIZE")]
    Fsize,
    #[serde(rename = "RLIMIT_LOCKS")]
    Locks,
    #[serde(rename = "RLIMIT_MEMLOCK")]
    Memlock,
    #[serde(rename = "RLIMIT_MSGQUEUE")]
    Msgqueue,
    #[serde(rename = "RLIMIT_NICE")]
    Nice,
    #[serde(rename = "RLIMIT_NOFILE")]
    Nofile,
    #[serde(rename = "RLIMIT_NPROC")]
    Nproc,
    #[serde(rename = "RLIMIT_RSS")]
    Rss,
    #[serde(rename = "RLIMIT_RTPRIO")]
    Rtprio,
    #[serde(rename = "RLIMIT_RTTIME")]
    Rttime,
    #[serde(rename = "RLIMIT_SIGPENDING")]
    Sigpending,
    #[serde(rename = "RLIMIT_STACK")]
    Stack,
}

/// The five capability sets, each a list of names such as `CAP_KILL`.
///
/// Plain strings: the spec says that a name which the kernel does not know is warned about, not refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// What an exec may give at most.
    #[serde(default)]
    pub bounding: Vec<String>,
    /// What is in force.
    #[serde(default)]
    pub effective: Vec<String>,
    /// What an exec keeps where the file allows it.
    #[serde(default)]
    pub inheritable: Vec<String>,
    /// What may be put in force.
    #[serde(default)]
    pub permitted: Vec<String>,
    /// What an exec of an ordinary file keeps.
    #[serde(default)]
    pub ambient: Vec<String>,
}

/// sched_setattr(2)'s values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scheduler {
    /// The policy.
    pub policy: SchedulerPolicy,
    /// The nice value, for `SCHED_OTHER` and `SCHED_BATCH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// The static priority, for `SCHED_FIFO` and `SCHED_RR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Flags.
    #[serde(default)]
    pub flags: Vec<SchedulerFlag>,
    /// `SCHED_DEADLINE`: nanoseconds of run time per period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<u64>,
    /// `SCHED_DEADLINE`: nanoseconds until the work must be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// `SCHED_DEADLINE`: the period's length in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
}

/// The policies of sched(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each variant is the policy of that name in sched(7)")]
pub enum SchedulerPolicy {
    #[serde(rename = "SCHED_OTHER")]
    Other,
    #[serde(rename = "SCHED_FIFO")]
    Fifo,
    #[serde(rename = "SCHED_RR")]
    Rr,
    #[serde(rename = "SCHED_BATCH")]
    Batch,
    #[serde(rename = "SCHED_ISO")]
    Iso,
    #[serde(rename = "SCHED_IDLE")]
    Idle,
    #[serde(rename = "SCHED_DEADLINE")]
    Deadline,
}

/// The flags of sched_setattr(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each variant is the flag of that name in sched_setattr(2)")]
pub enum SchedulerFlag {
    #[serde(rename = "SCHED_FLAG_RESET_ON_FORK")]
    ResetOnFork,
    #[serde(rename = "SCHED_FLAG_RECLAIM")]
    Reclaim,
    #[serde(rename = "SCHED_FLAG_DL_OVERRUN")]
    DlOverrun,
    #[serde(rename = "SCHED_FLAG_KEEP_POLICY")]
    KeepPolicy,
    #[serde(rename = "SCHED_FLAG_KEEP_PARAMS")]
    KeepParams,
    #[serde(rename = "SCHED_FLAG_UTIL_CLAMP_MIN")]
    UtilClampMin,
    #[serde(rename = "SCHED_FLAG_UTIL_CLAMP_MAX")]
    UtilClampMax,
}

/// ioprio_set(2)'s values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IoPriority {
    /// The class.
    pub class: IoPriorityClass,
    /// The level within the class, 0 (first) to 7.
    #[serde(default)]
    pub priority: i64,
}

/// The classes of ioprio_set(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IoPriorityClass {
    /// Real time.
    #[serde(rename = "IOPRIO_CLASS_RT")]
    RealTime,
    /// Best effort.
    #[serde(rename = "IOPRIO_CLASS_BE")]
    BestEffort,
    /// When nobody else wants the disk.
    #[serde(rename = "IOPRIO_CLASS_IDLE")]
    Idle,
}

/// The CPUs of a process that `exec` starts, in the list format of cpuset(7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecCpuAffinity {
    /// Before it is moved to the container's cgroup.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
    /// After.
    #[serde(default, rename = "final", deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}
