//! The OCI runtime-spec's `config.json`, version 1.3, for Linux.
//!
//! Types of our own, because a step's input and output need a JSON Schema, and because a plan's reference (`${spec.hooks.createRuntime}`) wants
//! lists and flags that are there even where the file leaves them out. Rules that hold for all of them:
//!
//! - Field names are the spec's own (`camelCase`).
//! - Where "absent" and "empty" mean the same (lists, maps, flags), the field is not optional and is always written.
//! - Where "absent" has a meaning of its own, the field is an `Option`, and is left out when it is `None`. An empty string and `null` count as
//!   absent, as in every runtime written in Go.
//! - Unknown fields are ignored, as "Extensibility" in config.md demands; [`Spec::read`] names them, so that a typing error is not silent.
//! - [`validate`] checks what the spec demands; [`other_platforms`] names what is for another platform, so that it can be refused.

mod device;
mod exec;
mod hooks;
mod host;
mod linux;
mod list;
mod load;
mod locate;
mod mount;
mod platforms;
mod process;
mod read;
mod remark;
mod resources;
mod seccomp;
mod template;
mod unknown;
mod validate;

pub use device::{Device, DeviceType};
pub use exec::Exec;
pub use hooks::{Hook, Hooks};
pub(crate) use host::wrong_namespace;
pub use linux::{
    IdMapping, IntelRdt, Linux, MemoryPolicy, MemoryPolicyFlag, MemoryPolicyMode, Namespace, NamespaceType, NetDevice,
    Personality, PersonalityDomain, RootfsPropagation, TimeOffset,
};
pub use list::number_list;
pub use load::Load;
pub use mount::Mount;
pub use platforms::other_platforms;
pub use process::{
    Capabilities, ConsoleSize, ExecCpuAffinity, IoPriority, IoPriorityClass, Process, Rlimit, RlimitType, Scheduler,
    SchedulerFlag, SchedulerPolicy, User,
};
pub use read::{Read, Unreadable};
pub use remark::Remark;
pub use resources::{
    BlockIo, Cpu, DeviceRule, HugepageLimit, InterfacePriority, Memory, Network, Pids, Rdma, Resources, ThrottleDevice,
    WeightDevice,
};
pub use seccomp::{Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompFlag, SeccompOperator, SeccompSyscall};
pub use template::template;
pub use unknown::unknown_fields;
pub use validate::{
    Problem, check_io_priority, check_memory_policy, check_scheduler, validate, validate_process, validate_resources,
};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The version of the runtime-spec that this is written for.
pub const VERSION: &str = "1.3.0";
/// The oldest version whose configs are taken.
pub const OLDEST_VERSION: &str = "1.0.0";

/// A container's configuration: the whole of `config.json` (config.md).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The version of the runtime-spec that the file is written for, in SemVer 2.0.0 (config.md, "Specification version").
    pub oci_version: String,
    /// The root file system (config.md, "Root"). Required on Linux.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Mounts on top of the root, made in this order (config.md, "Mounts").
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// The container's process (config.md, "Process"). May be absent until `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The host name, set in the container's own uts namespace (config.md, "Hostname").
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The NIS domain name, set in the container's own uts namespace (config.md, "Domainname").
    #[serde(default, deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Commands that run at points of the container's life (config.md, "POSIX-platform Hooks").
    #[serde(default)]
    pub hooks: Hooks,
    /// Whatever the caller wants to remember (config.md, "Annotations").
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux knows (config-linux.md).
    #[serde(default)]
    pub linux: Linux,
    /// For runtimes that start a virtual machine (config-vm.md). Read, and refused by `spec.load`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<Value>,
    /// For Windows (config-windows.md). Read, and refused by `spec.load`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<Value>,
    /// For Solaris (config-solaris.md). Read, and refused by `spec.load`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solaris: Option<Value>,
    /// For z/OS (config-zos.md). Read, and refused by `spec.load`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zos: Option<Value>,
    /// For FreeBSD (config-freebsd.md). Read, and refused by `spec.load`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freebsd: Option<Value>,
}

/// The container's root file system (config.md, "Root").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// Where it is on the host: absolute, or relative to the bundle.
    pub path: PathBuf,
    /// Whether the container sees it read-only.
    #[serde(default)]
    pub readonly: bool,
}

impl Spec {
    /// Reads a `config.json`.
    ///
    /// A `null` is read as an absent field. Go's encoder writes one for a nil list, but it is rare, so the slower way through a tree of values
    /// is taken only where the direct one fails.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        parse(text)
    }

    /// The namespace of this type, if the container has one of its own or joins one.
    pub fn namespace(&self, kind: NamespaceType) -> Option<&Namespace> {
        self.linux.namespaces.iter().find(|namespace| namespace.kind == kind)
    }
}

impl Resources {
    /// Reads a `linux.resources` by itself, as `update` is given one. A `null` is read as an absent field.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        parse(text)
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| {
        if !text.contains("null") {
            return Err(error);
        }
        let mut value: Value = serde_json::from_str(text)?;
        drop_nulls(&mut value);
        // The first error has a line and a column; it is the better one unless the nulls were the reason.
        serde_json::from_value(value).map_err(|second| if error.to_string().contains("null") { second } else { error })
    })
}

/// Takes the object members that are `null` out of a tree.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Reads an empty string as an absent one.
fn non_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// Reads an empty path as an absent one.
fn non_empty_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(non_empty(deserializer)?.map(PathBuf::from))
}

#[cfg(test)]
mod tests;
