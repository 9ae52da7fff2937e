//! `state.publish`

use std::collections::BTreeMap;
use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::{State, Status};
use crate::outcomes::{Process, RdtGroups};

/// Writes the container's state (runtime.md, "State") to `state.json` in the run's directory: it appears whole or not at all.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// Where the container is in its life.
    pub status: Status,
    /// The container's first process.
    pub process: Later<Process>,
    /// The container's bundle.
    pub bundle: HostPath,
    /// Its root file system, on the host.
    #[serde(default)]
    pub rootfs: Option<HostPath>,
    /// The config's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The version of the runtime-spec that the config is written for.
    #[serde(default = "oci_version")]
    pub oci_version: String,
    /// The cgroup's directories by controller (`cgroup.create`'s `paths`).
    #[serde(default)]
    pub cgroups: BTreeMap<String, PathBuf>,
    /// Its groups of the resctrl file system: the output of its `rdt.group`.
    #[serde(default)]
    pub rdt: Option<RdtGroups>,
}

fn oci_version() -> String {
    "1.3.0".to_owned()
}

/// The state as it was published.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Output {
    /// The file.
    pub path: HostPath,
}

/// See [`Input`].
pub struct Publish;

impl Step for Publish {
    const KIND: &'static str = "state.publish";
    const CHANGES: &'static str = "Writes state.json in the run's directory, in place of an earlier one.";
    const REVERSED_BY: &'static str = "Puts the earlier state.json back, or removes the file.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "The state of a container that has been created.",
        plan: "\
plan: example
steps:
  state:
    uses: state.publish
    with:
      status: created
      process: { pid: 4194303, start: 1, boot: 00000000-0000-0000-0000-000000000000 }
      bundle: /tmp/bundle
      annotations: { org.example.team: web }
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let Input { status, process, bundle, rootfs, annotations, oci_version, cgroups, rdt } = input;
        let path = cx.run.dir().join("state.json");
        let (bundle, rootfs) = (bundle.0, rootfs.map(|rootfs| rootfs.0));
        // Most containers have none, and their state says nothing of it.
        let rdt = rdt.filter(|rdt| rdt.group.is_some());
        let state =
            State { path: path.clone(), status, process, bundle, rootfs, annotations, oci_version, cgroups, rdt };
        cx.effect(state);
        Ok(Output { path: HostPath(path) })
    }
}
