//! `run.undo`: what deletes a container.
//!
//! Changes: takes back everything that the run which the plan opens has made, the latest first, and then removes the run's directory.
//! Reversed by: nothing, it is the reverse. What cannot be taken back is stuck, stays in the journal, and is tried again by the next delete.

use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::{EffectError, PlanError};
use lifecycle_engine::journal::{self, JOURNAL, RunState};
use lifecycle_engine::step::{Example, Nature, Planning, Registry, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Takes the opened run back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Undo;

impl Step for Undo {
    const KIND: &'static str = "run.undo";
    const CHANGES: &'static str = "Takes back everything that the opened run has made, and removes the run.";
    const REVERSED_BY: &'static str = "Nothing: it is the reverse.";
    const NATURE: Nature = Nature::Commit;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "Delete a stopped container: the whole of plan oci/delete without its stop.",
        plan: "plan: undo\nopens: { run: \"${params.id}\", plan: oci/create }\nparams: { id: { type: name } }\nsteps:\n  undo: { uses: run.undo }\n",
        needs: &["run"],
    }];
    type Input = Input;
    type Output = Output;

    fn plan(_: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let text = cx.facts.own_file(cx.run, JOURNAL);
        let path = cx.run.dir().join(JOURNAL);
        let state = text.and_then(|text| journal::parse(&path, text.as_bytes()));
        let state = state.map_err(|e| PlanError::new("", e.to_string()))?;
        cx.effect(UndoRun { undoes: owed(&state) });
        Ok(Output {})
    }
}

/// Every effect that will be undone, in that order, as `step: effect`.
fn owed(state: &RunState) -> Vec<String> {
    let registry: Registry = crate::registry();
    let mut lines = Vec::new();
    for (_, node) in state.begun().rev().filter(|(_, node)| node.site.is_none()) {
        for effect in node.effects.iter().rev().filter(|e| e.owes_undo() && e.planned.class != Class::Commit) {
            let known = registry.effect(&effect.planned.kind).and_then(|kind| (kind.decode)(&effect.planned.data).ok());
            let what = known.map_or_else(|| effect.planned.kind.clone(), |effect| effect.describe());
            lines.push(format!("{}: {what}", node.step));
        }
    }
    lines
}

/// The effect: the engine does the work, since it alone has the journal.
#[derive(Debug, Serialize, Deserialize)]
pub struct UndoRun {
    /// What will be undone, in order, for a person to read.
    undoes: Vec<String>,
}

impl EffectDef for UndoRun {
    const KIND: &'static str = "undo-run";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { undoes: vec!["cgroup: create /sys/fs/cgroup/web".into()] }]
    }

    fn class(&self) -> Class {
        Class::Commit
    }

    fn describe(&self) -> String {
        self.undoes.iter().fold("undo the run".to_owned(), |text, line| format!("{text}\n  undo {line}"))
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        Ok(Applied::UndoRun)
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}
