//! `cgroup.freeze` and `cgroup.thaw`

use std::collections::BTreeMap;
use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::cgroup::{FreezeCgroup, Version};

/// Stops all processes of a container, those in cgroups below its own included, and waits until they all stand still.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// The cgroup's directories by controller (`cgroup.create`'s `paths`).
    pub cgroups: BTreeMap<String, PathBuf>,
}

/// Lets all processes of a container go on that stand still, those in cgroups below its own included, and waits until they all do.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct ThawInput {
    /// The cgroup's directories by controller (`cgroup.create`'s `paths`).
    pub cgroups: BTreeMap<String, PathBuf>,
}

/// Nothing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {}

/// Stops them: see [`Input`].
pub struct Freeze;

/// Continues them: see [`ThawInput`].
pub struct Thaw;

impl Step for Freeze {
    const KIND: &'static str = "cgroup.freeze";
    const CHANGES: &'static str = "Stops every process in a cgroup, until it is thawed.";
    const REVERSED_BY: &'static str = "Thaws the cgroup, if it was not frozen before.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A cgroup whose processes stand still.",
        plan: "\
plan: example
steps:
  cgroup:
    uses: cgroup.create
  pause:
    uses: cgroup.freeze
    with: { cgroups: \"${cgroup.paths}\" }
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        cx.effect(effect(&input.cgroups, true)?);
        Ok(Output {})
    }
}

impl Step for Thaw {
    const KIND: &'static str = "cgroup.thaw";
    const CHANGES: &'static str = "Lets every process in a cgroup go on.";
    const REVERSED_BY: &'static str = "Freezes the cgroup again, if it was frozen before and a process is in it.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A cgroup that was frozen is thawed.",
        plan: "\
plan: example
steps:
  cgroup:
    uses: cgroup.create
  pause:
    uses: cgroup.freeze
    with: { cgroups: \"${cgroup.paths}\" }
  resume:
    uses: cgroup.thaw
    needs: [pause]
    with: { cgroups: \"${cgroup.paths}\" }
",
        needs: &["root"],
    }];

    type Input = ThawInput;
    type Output = Output;

    fn plan(input: ThawInput, cx: &mut Planning) -> Result<Output, PlanError> {
        cx.effect(effect(&input.cgroups, false)?);
        Ok(Output {})
    }
}

/// The freezer of version 1, where it is mounted, and otherwise that of version 2.
fn effect(cgroups: &BTreeMap<String, PathBuf>, frozen: bool) -> Result<FreezeCgroup, PlanError> {
    let v1 = cgroups.get("freezer").map(|at| (at, Version::V1));
    let Some((at, version)) = v1.or_else(|| cgroups.get("").map(|at| (at, Version::V2))) else {
        let message = "has no cgroup that can be frozen: neither one of the controller `freezer` nor one of cgroup v2";
        return Err(PlanError::new("cgroups", message)
            .help("create the container with a cgroup of its own: as root, or below a cgroup that was delegated"));
    };
    Ok(FreezeCgroup { at: at.clone(), version, frozen })
}
