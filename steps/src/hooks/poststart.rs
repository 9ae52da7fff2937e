//! `hooks.poststart`.

use std::collections::BTreeMap;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::types::{HostPath, Name};
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::Deserialize;

use super::check;
use crate::effects::hook::{Container, RunHook, Stage};
use crate::fs::absolute;
use crate::outcomes::Process;
use crate::spec::Hook;

/// Runs the hooks that see a started container. A kind of its own: unlike the other stages it is one-way.
pub struct Poststart;

/// Run the `poststart` hooks, one after another, each with the container's state as JSON on its standard input. The first that fails fails the
/// step.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The hooks.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// The container's first process.
    pub process: Later<Process>,
    /// The container's id; the run's if not given.
    #[serde(default)]
    pub id: Option<Name>,
    /// The bundle's directory, and the hooks' working directory.
    pub bundle: HostPath,
    /// The configuration's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Step for Poststart {
    const KIND: &'static str = "hooks.poststart";
    const CHANGES: &'static str = "Whatever the hooks change.";
    const REVERSED_BY: &'static str =
        "Nothing: whoever the hooks have told of the container stays told. A hook that still runs is killed.";
    const NATURE: Nature = Nature::Commit;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "Tell a program of a process that runs.",
        plan: include_str!("examples/poststart.yaml"),
        needs: &["root"],
    }];
    type Input = Input;
    type Output = super::run::Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<super::run::Output, PlanError> {
        check("hooks", &input.hooks)?;
        let container = Container {
            id: input.id.map_or_else(|| cx.run.id.clone(), |id| id.to_string()),
            process: Some(input.process),
            bundle: absolute(&input.bundle, cx)?,
            annotations: input.annotations,
        };
        for hook in input.hooks {
            cx.effect(RunHook { stage: Stage::Poststart, hook, container: container.clone(), env: Vec::new() });
        }
        Ok(super::run::Output {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, process, refused};
    use serde_json::json;

    #[test]
    fn each_hook_is_an_effect_of_its_own() {
        let planned = plan::<Poststart>(
            json!({ "hooks": [{ "path": "/a" }, { "path": "/b" }], "process": process(), "bundle": "/b" }),
        );
        assert_eq!(planned.effects, ["run poststart hook /a", "run poststart hook /b"]);
        assert!(refused::<Poststart>(json!({ "hooks": [], "bundle": "/b" })).message.contains("process"));
    }
}
