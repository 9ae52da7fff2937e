//! `linux`: config-linux.md.

use super::{Device, Resources, Seccomp, non_empty, non_empty_path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What only Linux knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Linux {
    /// Namespaces to make or to join, each type at most once ("Namespaces"). A type that is not listed is shared with the runtime.
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
    /// User ids of the user namespace ("User namespace mappings").
    #[serde(default)]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of the user namespace.
    #[serde(default)]
    pub gid_mappings: Vec<IdMapping>,
    /// Clock offsets of the time namespace, by `monotonic` and `boottime` ("Offset for Time Namespace").
    #[serde(default)]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// Device nodes beside the default ones ("Devices").
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Host network devices to move into the network namespace, by their name on the host ("Network Devices").
    #[serde(default)]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// The cgroup: an absolute path below the hierarchies, or one that the runtime may place ("Cgroups Path").
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub cgroups_path: Option<String>,
    /// The cgroup's limits ("Control groups").
    #[serde(default)]
    pub resources: Resources,
    /// Intel Resource Director Technology ("IntelRdt").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// NUMA memory policy, set_mempolicy(2) ("Memory policy").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// Kernel parameters by name ("Sysctl").
    #[serde(default)]
    pub sysctl: BTreeMap<String, String>,
    /// The system call filter ("Seccomp").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// How mounts travel between the container's root and the host ("Rootfs Mount Propagation").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs_propagation: Option<RootfsPropagation>,
    /// Paths in the container that cannot be read ("Masked Paths").
    #[serde(default)]
    pub masked_paths: Vec<PathBuf>,
    /// Paths in the container that cannot be written ("Readonly Paths").
    #[serde(default)]
    pub readonly_paths: Vec<PathBuf>,
    /// The SELinux context of the container's mounts ("Mount Label").
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub mount_label: Option<String>,
    /// The execution domain, personality(2) ("Personality").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
}

/// A namespace to make, or with a path to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Namespace {
    /// Which.
    #[serde(rename = "type")]
    pub kind: NamespaceType,
    /// A file that stands for an existing one, in the runtime's mount namespace. Absolute.
    #[serde(default, deserialize_with = "non_empty_path", skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// The kinds of namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceType {
    /// Process ids.
    Pid,
    /// Network devices, addresses, ports.
    Network,
    /// Mount points.
    Mount,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name and domain name.
    Uts,
    /// User and group ids, capabilities.
    User,
    /// The view of cgroups.
    Cgroup,
    /// The monotonic and boot-time clocks.
    Time,
}

impl Linux {
    /// Whether the container has no mount namespace, neither a new one nor one that is joined: its mounts are made in the caller's.
    pub fn shares_mounts(&self) -> bool {
        !self.namespaces.iter().any(|namespace| namespace.kind == NamespaceType::Mount)
    }
}

impl NamespaceType {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Pid, Self::Network, Self::Mount, Self::Ipc, Self::Uts, Self::User, Self::Cgroup, Self::Time];

    /// The name in the spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Network => "network",
            Self::Mount => "mount",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }
}

/// A range of ids: `size` ids from `containerID` on are those from `hostID` on outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IdMapping {
    /// The first id inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// The first id outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// The offset of one clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeOffset {
    /// Seconds.
    #[serde(default)]
    pub secs: i64,
    /// Nanoseconds on top, below 1,000,000,000.
    #[serde(default)]
    pub nanosecs: u32,
}

/// A host network device for the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetDevice {
    /// Its name in the container. Absent: as on the host.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// How mount events travel, mount_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RootfsPropagation {
    /// Both ways.
    Shared,
    /// From the host into the container alone.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and it cannot be bound elsewhere.
    Unbindable,
    /// `shared`, for the mounts below too. Not in the spec's list, but accepted by runtimes of the field.
    Rshared,
    /// `slave`, for the mounts below too.
    Rslave,
    /// `private`, for the mounts below too.
    Rprivate,
    /// `unbindable`, for the mounts below too.
    Runbindable,
}

/// Cache and memory bandwidth classes, through the resctrl file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntelRdt {
    /// The class of service: a directory's name in resctrl.
    #[serde(default, rename = "closID", deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub clos_id: Option<String>,
    /// Lines for the `schemata` file.
    #[serde(default)]
    pub schemata: Vec<String>,
    /// The L3 cache's lines.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    /// The memory bandwidth's line, beginning with `MB:`.
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    /// Cache monitoring, before 1.3.
    #[serde(default, rename = "enableCMT")]
    pub enable_cmt: bool,
    /// Bandwidth monitoring, before 1.3.
    #[serde(default, rename = "enableMBM")]
    pub enable_mbm: bool,
    /// A monitoring group for the container.
    #[serde(default)]
    pub enable_monitoring: bool,
}

/// NUMA memory policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryPolicy {
    /// The mode.
    pub mode: MemoryPolicyMode,
    /// The nodes, as a list of ranges (`0-3,7`).
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
    /// Flags of the mode.
    #[serde(default)]
    pub flags: Vec<MemoryPolicyFlag>,
}

/// The modes of set_mempolicy(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each variant is the mode of that name in set_mempolicy(2)")]
pub enum MemoryPolicyMode {
    #[serde(rename = "MPOL_DEFAULT")]
    Default,
    #[serde(rename = "MPOL_BIND")]
    Bind,
    #[serde(rename = "MPOL_INTERLEAVE")]
    Interleave,
    #[serde(rename = "MPOL_WEIGHTED_INTERLEAVE")]
    WeightedInterleave,
    #[serde(rename = "MPOL_PREFERRED")]
    Preferred,
    #[serde(rename = "MPOL_PREFERRED_MANY")]
    PreferredMany,
    #[serde(rename = "MPOL_LOCAL")]
    Local,
}

/// The mode flags of set_mempolicy(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each variant is the flag of that name in set_mempolicy(2)")]
pub enum MemoryPolicyFlag {
    #[serde(rename = "MPOL_F_NUMA_BALANCING")]
    NumaBalancing,
    #[serde(rename = "MPOL_F_RELATIVE_NODES")]
    RelativeNodes,
    #[serde(rename = "MPOL_F_STATIC_NODES")]
    StaticNodes,
}

/// The execution domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Personality {
    /// What uname(2) says the machine is.
    pub domain: PersonalityDomain,
    /// None are defined by the spec yet.
    #[serde(default)]
    pub flags: Vec<String>,
}

/// The execution domains of the spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PersonalityDomain {
    /// The kernel's own.
    Linux,
    /// 32 bits on a 64-bit machine.
    Linux32,
}
