//! `process.affinity`: the CPUs that a process may run on.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::schedule::SetAffinity;
use crate::spec::number_list;

/// Lets the process of the site run on some CPUs alone, sched_setaffinity(2): config.json's process.execCPUAffinity.final, for a process that is
/// in the container's cgroup by then. What comes before that, execCPUAffinity.initial, is `process.clone`'s `cpu_affinity`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// A list such as `0-3,7`. Absent: the process runs where it did.
    #[serde(default)]
    pub cpus: Option<String>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Affinity;

impl Step for Affinity {
    const KIND: &'static str = "process.affinity";
    const CHANGES: &'static str = "The CPUs that the site's process may run on.";
    const REVERSED_BY: &'static str = "Goes with the process.";
    const PLACE: Place = Place::Inside;
    const AFTER: After = &[];
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A program that runs on the first CPU alone.",
        plan: "plan: example/affinity
steps:
  init: { uses: process.clone, with: { new: [pid], cpu_affinity: \"0\", stdio: log } }
  affinity: { uses: process.affinity, site: \"${init}\", with: { cpus: \"0\" } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/grep, Cpus_allowed_list, /proc/self/status] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        if let Some(cpus) = input.cpus {
            number_list(&cpus).map_err(|message| PlanError::new("cpus", message))?;
            cx.effect(SetAffinity { cpus });
        }
        Ok(Output {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan_inside, refused_inside};
    use serde_json::json;

    #[test]
    fn a_list_is_read_strictly_and_its_absence_changes_nothing() {
        assert_eq!(plan_inside::<Affinity>(json!({ "cpus": "0-1,3" })).effects, ["run on CPUs 0-1,3"]);
        assert!(plan_inside::<Affinity>(json!({})).effects.is_empty());
        for bad in ["", "0 ", "1-0", "x"] {
            assert_eq!(refused_inside::<Affinity>(json!({ "cpus": bad })).field, "cpus");
        }
    }
}
