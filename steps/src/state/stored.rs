//! state.json as it is read again: by the verbs that look at a container without working on it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::outcomes::{Process, RdtGroups};

/// What `state.publish` has written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// The version of the runtime-spec of its config.
    pub oci_version: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its root file system.
    #[serde(default)]
    pub rootfs: Option<PathBuf>,
    /// When it was created, RFC 3339.
    #[serde(default)]
    pub created: String,
    /// Its annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What is ours.
    pub lifecycle: Own,
}

/// What only we need.
#[derive(Debug, Deserialize)]
pub struct Own {
    /// Its first process.
    pub process: Process,
    /// Its cgroups by controller.
    #[serde(default)]
    pub cgroups: BTreeMap<String, PathBuf>,
    /// Its groups of the resctrl file system.
    #[serde(default)]
    pub rdt: RdtGroups,
}

impl Stored {
    /// Reads its text.
    ///
    /// # Errors
    ///
    /// What it lacks, or where it is no JSON.
    pub fn read(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }
}
