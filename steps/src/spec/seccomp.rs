//! `linux.seccomp`: config-linux.md, "Seccomp".

use super::{Process, non_empty, non_empty_path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A system call filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Seccomp {
    /// What happens to a call that no rule matches.
    pub default_action: SeccompAction,
    /// The errno of the default action, where that returns one. Absent: EPERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Architectures beside the native one.
    #[serde(default)]
    pub architectures: Vec<SeccompArch>,
    /// Flags of seccomp(2).
    #[serde(default)]
    pub flags: Vec<SeccompFlag>,
    /// The socket that a notify descriptor is sent to.
    #[serde(default, deserialize_with = "non_empty_path", skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<PathBuf>,
    /// Opaque data for the agent that listens there.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// Rules, by name of the call.
    #[serde(default)]
    pub syscalls: Vec<SeccompSyscall>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeccompSyscall {
    /// The calls. At least one; a name that the machine does not know is ignored, as the spec says.
    pub names: Vec<String>,
    /// What happens.
    pub action: SeccompAction,
    /// The errno, where the action returns one. Absent: EPERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions on arguments, all of which must hold.
    #[serde(default)]
    pub args: Vec<SeccompArg>,
}

impl SeccompSyscall {
    /// Whether an agent is notified of these calls.
    pub fn notifies(&self) -> bool {
        self.action == SeccompAction::Notify
    }
}

impl SeccompAction {
    /// The kernel's name of it, as /proc/sys/kernel/seccomp/actions_avail lists it.
    pub fn kernel_name(self) -> &'static str {
        match self {
            Self::Kill | Self::KillThread => "kill_thread",
            Self::KillProcess => "kill_process",
            Self::Trap => "trap",
            Self::Errno => "errno",
            Self::Trace => "trace",
            Self::Allow => "allow",
            Self::Log => "log",
            Self::Notify => "user_notif",
        }
    }
}

impl SeccompFlag {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tsync, Self::Log, Self::SpecAllow, Self::WaitKillableRecv];

    /// As seccomp(2) writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tsync => "SECCOMP_FILTER_FLAG_TSYNC",
            Self::Log => "SECCOMP_FILTER_FLAG_LOG",
            Self::SpecAllow => "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            Self::WaitKillableRecv => "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        }
    }

    /// The first kernel that has it.
    pub fn since(self) -> &'static str {
        match self {
            Self::Tsync => "3.17",
            Self::Log => "4.14",
            Self::SpecAllow => "4.17",
            Self::WaitKillableRecv => "5.19",
        }
    }
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeccompArg {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// What to compare with; for `SCMP_CMP_MASKED_EQ` the mask.
    pub value: u64,
    /// For `SCMP_CMP_MASKED_EQ`: the value under the mask.
    #[serde(default)]
    pub value_two: u64,
    /// The comparison.
    pub op: SeccompOperator,
}

/// What the kernel does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each variant is libseccomp's action of that name, seccomp_rule_add(3)")]
pub enum SeccompAction {
    #[serde(rename = "SCMP_ACT_KILL")]
    Kill,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// libseccomp's architectures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each variant is libseccomp's architecture of that name, seccomp_arch_add(3)")]
pub enum SeccompArch {
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X86_64,
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_MIPS")]
    Mips,
    #[serde(rename = "SCMP_ARCH_MIPS64")]
    Mips64,
    #[serde(rename = "SCMP_ARCH_MIPS64N32")]
    Mips64n32,
    #[serde(rename = "SCMP_ARCH_MIPSEL")]
    Mipsel,
    #[serde(rename = "SCMP_ARCH_MIPSEL64")]
    Mipsel64,
    #[serde(rename = "SCMP_ARCH_MIPSEL64N32")]
    Mipsel64n32,
    #[serde(rename = "SCMP_ARCH_PPC")]
    Ppc,
    #[serde(rename = "SCMP_ARCH_PPC64")]
    Ppc64,
    #[serde(rename = "SCMP_ARCH_PPC64LE")]
    Ppc64le,
    #[serde(rename = "SCMP_ARCH_S390")]
    S390,
    #[serde(rename = "SCMP_ARCH_S390X")]
    S390x,
    #[serde(rename = "SCMP_ARCH_PARISC")]
    Parisc,
    #[serde(rename = "SCMP_ARCH_PARISC64")]
    Parisc64,
    #[serde(rename = "SCMP_ARCH_RISCV64")]
    Riscv64,
    #[serde(rename = "SCMP_ARCH_LOONGARCH64")]
    Loongarch64,
    #[serde(rename = "SCMP_ARCH_M68K")]
    M68k,
    #[serde(rename = "SCMP_ARCH_SH")]
    Sh,
    #[serde(rename = "SCMP_ARCH_SHEB")]
    Sheb,
}

/// Flags of seccomp(2)'s SECCOMP_SET_MODE_FILTER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SeccompFlag {
    /// Load the filter on every thread.
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    /// Log actions other than allow.
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    /// Leave the speculative store bypass as it is.
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    /// A notified call is not interrupted by signals other than fatal ones.
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillableRecv,
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each variant is libseccomp's comparison of that name, seccomp_rule_add(3)")]
pub enum SeccompOperator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    LessThan,
    #[serde(rename = "SCMP_CMP_LE")]
    LessEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    GreaterThan,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}
/// Where a filter is loaded: last of all, which takes no_new_privs, or before the process gives up CAP_SYS_ADMIN.
pub(super) fn place_filter(filter: Option<&Seccomp>, process: &Process) -> (Option<Seccomp>, Option<Seccomp>) {
    if process.no_new_privileges { (filter.cloned(), None) } else { (None, filter.cloned()) }
}
