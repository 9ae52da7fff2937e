//! `hooks.run`.

use std::collections::BTreeMap;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Place, Planning, Step};
use lifecycle_engine::types::{HostPath, Name};
use lifecycle_engine::value::{Handle, Later, Sensitive, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check;
use crate::effects::hook::{Container, Counterpart, RunHook, Stage};
use crate::fs::absolute;
use crate::outcomes::Process;
use crate::spec::Hook;

/// Runs a stage's hooks.
pub struct Run;

/// The stages of `hooks.run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum When {
    /// On the host; deprecated by the spec: as `createRuntime`, and before it.
    Prestart,
    /// On the host, when the container's namespaces have been made, before `rootfs.pivot`.
    CreateRuntime,
    /// In the container's site, before `rootfs.pivot`; the paths are the host's.
    CreateContainer,
    /// In the container's site, before `process.exec`; the paths are the container's.
    StartContainer,
    /// On the host, after the container has ended. Better given as `poststop` of the `createRuntime` stage, whose undo runs them also after a crash.
    Poststop,
}

/// Run the hooks of one stage, one after another, each with the container's state as JSON on its standard input. The first that fails fails the
/// step.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// When the hooks run: what they are told of the container's status, and whether they run on the host or in its site.
    pub stage: When,
    /// The hooks.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// The container's first process. Needed on the host, but for `poststop`; in a site it is the one that runs the hooks.
    #[serde(default)]
    pub process: Option<Handle<Process>>,
    /// The container's id; the run's if not given.
    #[serde(default)]
    pub id: Option<Name>,
    /// The bundle's directory; the hooks' working directory on the host.
    pub bundle: HostPath,
    /// The configuration's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The environment of the container's process. In its site a hook without `env` has it, as with runc and crun; the runtime-spec does not say.
    /// On the host such a hook has none, since the spec gives it none: neither the process's nor the caller's, which runc passes on there.
    #[serde(default)]
    pub env: Vec<Sensitive<Text>>,
    /// The hooks that take the others back, run in their order when this step is undone; with the stage `createRuntime` (or `prestart`) only.
    #[serde(default)]
    pub poststop: Vec<Hook>,
}

/// Nothing: hooks have no results.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {}

impl From<When> for Stage {
    fn from(when: When) -> Self {
        match when {
            When::Prestart => Self::Prestart,
            When::CreateRuntime => Self::CreateRuntime,
            When::CreateContainer => Self::CreateContainer,
            When::StartContainer => Self::StartContainer,
            When::Poststop => Self::Poststop,
        }
    }
}

/// The stage says where its hooks run, and what has to be known there.
fn placed(stage: Stage, input: &Input, cx: &Planning) -> Result<(), PlanError> {
    let name = stage.name();
    match (stage.is_inside(), cx.site.is_some()) {
        (true, false) => {
            let message = format!("{name} hooks run in the container's namespaces");
            return Err(
                PlanError::new("stage", message).help("add `site:` with the step that makes the container's process")
            );
        }
        (false, true) => {
            return Err(PlanError::new("stage", format!("{name} hooks run on the host")).help("leave out `site:`"));
        }
        _ => {}
    }
    if !stage.is_inside() && stage != Stage::Poststop && input.process.is_none() {
        let message = format!("{name} hooks are told the container's pid");
        return Err(PlanError::new("process", message).help("give the process, such as \"${init.process}\""));
    }
    if !input.poststop.is_empty() && !matches!(stage, Stage::Prestart | Stage::CreateRuntime) {
        let message = format!("poststop hooks are the counterpart of the createRuntime stage, not of {name}");
        return Err(PlanError::new("poststop", message));
    }
    Ok(())
}

impl Step for Run {
    const KIND: &'static str = "hooks.run";
    const CHANGES: &'static str = "Whatever the hooks change.";
    const REVERSED_BY: &'static str = "The hooks under `poststop`, delivered at least once. One that fails is a warning and is not tried again: the runtime-spec wants all else to be taken back whatever it does. A hook that still runs is killed.";
    const PLACE: Place = Place::Either;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A hook that makes a file on the host and its counterpart, and one inside.",
        plan: include_str!("examples/run.yaml"),
        needs: &["root"],
    }];
    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let stage = Stage::from(input.stage);
        check("hooks", &input.hooks)?;
        check("poststop", &input.poststop)?;
        placed(stage, &input, cx)?;
        let container = Container {
            id: input.id.map_or_else(|| cx.run.id.clone(), |id| id.to_string()),
            process: input.process.filter(|_| !stage.is_inside()).map(Later::Handle),
            bundle: absolute(&input.bundle, cx)?,
            annotations: input.annotations,
        };
        // Declared before the hooks run, since one that fails half-way has to be taken back too. Undo goes backwards, and the spec wants poststop
        // hooks in their order.
        for hook in input.poststop.into_iter().rev() {
            let ends = container.process.clone();
            cx.effect(Counterpart { hook, container: Container { process: None, ..container.clone() }, ends });
        }
        for hook in input.hooks {
            let inherits = stage.is_inside() && hook.env.is_none();
            let env = if inherits { input.env.clone() } else { Vec::new() };
            cx.effect(RunHook { stage, hook, container: container.clone(), env });
        }
        Ok(Output {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, plan_inside, process, refused, refused_inside};
    use serde_json::json;

    #[test]
    fn counterparts_are_declared_first_and_in_reverse() {
        let planned = plan::<Run>(json!({ "stage": "createRuntime", "process": process(), "bundle": ".",
            "hooks": [{ "path": "/a" }, { "path": "/b", "timeout": 5 }], "poststop": [{ "path": "/c" }, { "path": "/d" }] }));
        assert_eq!(
            planned.effects,
            [
                "declare poststop hook /d, run when this is undone",
                "declare poststop hook /c, run when this is undone",
                "run createRuntime hook /a",
                "run createRuntime hook /b, at most 5 s",
            ]
        );
        assert_eq!(planned.data[2]["container"]["bundle"], json!("/work"));
        assert_eq!(planned.data[2]["container"]["id"], json!("web"));
        assert_eq!(planned.data[0]["container"].get("process"), None);
    }

    #[test]
    fn a_stage_has_its_place() {
        let at =
            |stage: &str| json!({ "stage": stage, "hooks": [{ "path": "/a" }], "process": process(), "bundle": "/b" });
        assert_eq!(refused::<Run>(at("createContainer")).field, "stage");
        assert_eq!(refused_inside::<Run>(at("createRuntime")).field, "stage");
        let inside = plan_inside::<Run>(at("startContainer"));
        assert_eq!(inside.effects, ["run startContainer hook /a"]);
        assert_eq!(inside.data[0]["container"].get("process"), None);
    }

    #[test]
    fn what_the_spec_forbids_is_refused_with_its_place() {
        let with = |hook: serde_json::Value| json!({ "stage": "prestart", "hooks": [{ "path": "/a" }, hook], "process": process(), "bundle": "/b" });
        assert_eq!(refused::<Run>(with(json!({ "path": "bin/hook" }))).field, "hooks.1.path");
        assert_eq!(refused::<Run>(with(json!({ "path": "/b", "timeout": 0 }))).field, "hooks.1.timeout");
        assert_eq!(refused::<Run>(json!({ "stage": "prestart", "bundle": "/b" })).field, "process");
    }
}
