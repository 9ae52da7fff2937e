//! `mounts`: config.md, "Mounts".

use super::{IdMapping, non_empty, non_empty_path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where the container sees it. Absolute; a relative one is read from `/`, as the spec asks of runtimes.
    pub destination: PathBuf,
    /// The file system's type, as in /proc/filesystems. Ignored by the kernel for a bind mount.
    #[serde(default, rename = "type", deserialize_with = "non_empty", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A device's name, or for a bind mount a path, relative to the bundle if it is not absolute.
    #[serde(default, deserialize_with = "non_empty_path", skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// Options as in fstab(5), and those of config.md's table.
    #[serde(default)]
    pub options: Vec<String>,
    /// For an id-mapped mount: user ids as the files have them (`containerID`) and as the mount shows them (`hostID`).
    #[serde(default)]
    pub uid_mappings: Vec<IdMapping>,
    /// For an id-mapped mount: the same for group ids.
    #[serde(default)]
    pub gid_mappings: Vec<IdMapping>,
}

impl Mount {
    /// Whether it shows a file or directory of the host's. Type `bind` counts, though only the options make it one in the spec: every engine
    /// writes it.
    pub(crate) fn binds(&self) -> bool {
        self.kind.as_deref() == Some("bind") || self.options.iter().any(|option| option == "bind" || option == "rbind")
    }

    /// Whether it changes a mount that is there, and makes none.
    pub(crate) fn remounts(&self) -> bool {
        self.options.iter().any(|option| option == "remount")
    }
}
