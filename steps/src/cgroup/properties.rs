//! `cgroup.properties`

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scope::{ScopeUnit, changed};
use crate::effects::cgroup::SetProperties;
use crate::facts::CgroupLayout;
use crate::spec::Resources;

/// Tells systemd of new limits of a container whose cgroup it made, so that it does not go back to the old ones when it reloads.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// The container's scope: the `unit` of its `cgroup.create`. Without one there is nobody to tell.
    #[serde(default)]
    pub unit: Option<ScopeUnit>,
    /// The new limits; those that are not named stay.
    #[serde(default)]
    pub resources: Option<Resources>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// See [`Input`].
pub struct Properties;

impl Step for Properties {
    const KIND: &'static str = "cgroup.properties";
    const CHANGES: &'static str = "Sets properties of a container's scope in systemd.";
    const REVERSED_BY: &'static str = "Sets them to what they were before.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A container with a systemd scope may have 32 processes from now on.",
        plan: "\
plan: example
steps:
  cgroup:
    uses: cgroup.create
    with: { systemd: true, path: \"system.slice:lifecycle:update\", resources: { pids: { limit: 16 } } }
  init: { uses: process.clone, with: { new: [pid, mount], stdio: log, cgroup: \"${cgroup.join}\" } }
  update:
    uses: cgroup.properties
    needs: [init]
    with: { unit: \"${cgroup.unit}\", resources: { pids: { limit: 32 } } }
  exec: { uses: process.exec, site: \"${init}\", needs: [update], with: { args: [/bin/true] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root", "systemd.running"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let layout: CgroupLayout = cx.facts.get("cgroup.layout").unwrap_or_default();
        let properties = changed(&input.resources.unwrap_or_default(), &layout)?;
        if let Some(unit) = input.unit.filter(|_| !properties.is_empty()) {
            cx.effect(SetProperties { unit: unit.name, manager: unit.manager, properties });
        }
        Ok(Output {})
    }
}
