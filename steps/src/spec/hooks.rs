//! `hooks`: config.md, "POSIX-platform Hooks".

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The six lists of hooks, each run in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// Deprecated by the spec: as `createRuntime`, and before it.
    #[serde(default)]
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, when the container's have been made, before `pivot_root`.
    #[serde(default)]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, after `createRuntime`, before `pivot_root`; the path is the runtime's.
    #[serde(default)]
    pub create_container: Vec<Hook>,
    /// In the container's namespaces, in `start`, before the user's program; the path is the container's.
    #[serde(default)]
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the user's program has started.
    #[serde(default)]
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after the container has been deleted.
    #[serde(default)]
    pub poststop: Vec<Hook>,
}

/// One hook. It gets the container's state as JSON on its standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// The program. Absolute.
    pub path: PathBuf,
    /// Its whole argv, the name at index 0 included. Empty: the path alone.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its whole environment, as `NAME=value`. Absent: in the container's namespaces that of the container's process, on the host none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Seconds after which it is killed. Greater than zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
