//! `rdt.join`

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::group::is_there;
use crate::effects::Warning;
use crate::effects::rdt::JoinGroup;
use crate::outcomes::{Process, RdtGroups};

/// Puts one more process into a container's class of service and its monitoring group: what is executed in a container shares what it has, and
/// counts as its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// The container's groups: the output of its `rdt.group`. Null: it has none.
    #[serde(default)]
    pub rdt: Option<RdtGroups>,
    /// The process.
    pub process: Later<Process>,
}

/// Nothing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {}

/// See [`Input`].
pub struct Join;

impl Step for Join {
    const KIND: &'static str = "rdt.join";
    const CHANGES: &'static str = "Writes the process into the groups' tasks.";
    const REVERSED_BY: &'static str = "Nothing to reverse: a process leaves its groups when it ends.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A second process in the class of the first.",
        plan: "\
plan: example
steps:
  init: { uses: process.clone, with: { stdio: log } }
  rdt: { uses: rdt.group, with: { process: \"${init.process}\", rdt: { enableMonitoring: true } } }
  second: { uses: process.clone, with: { stdio: log } }
  join: { uses: rdt.join, with: { process: \"${second.process}\", rdt: \"${rdt}\" } }
  exec: { uses: process.exec, site: \"${second}\", needs: [join], with: { args: [/bin/true] } }
  wait: { uses: process.wait, needs: [exec], with: { process: \"${second.process}\" } }
",
        needs: &["root", "resctrl"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let RdtGroups { group, monitor } = input.rdt.unwrap_or_default();
        // Of the class first: a process can only be watched by a group of its own class.
        for at in group.into_iter().chain(monitor) {
            // One that this same plan makes is not there yet.
            if is_there(&at, cx)? || at.ends_with(&cx.run.id) {
                cx.effect(JoinGroup { at, process: input.process.clone() });
            } else {
                let text = format!("the container's resctrl group {} is gone: the process is not in it", at.display());
                cx.effect(Warning { text });
            }
        }
        Ok(Output {})
    }
}
