//! `linux.devices`: config-linux.md, "Devices".

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A device node that the container gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: DeviceType,
    /// Its full path in the container.
    pub path: PathBuf,
    /// Its numbers; required unless the type is `p`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// Its numbers; required unless the type is `p`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Its permission bits. Podman and containerd write the bits of the file's type along with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Its owner in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its group in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A device's kind, with mknod(1)'s letters. `a` (all) is legal in a cgroup's rules alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceType {
    /// All kinds.
    A,
    /// A block device.
    B,
    /// A character device.
    C,
    /// A character device, the same as `c`.
    U,
    /// A FIFO.
    P,
}
