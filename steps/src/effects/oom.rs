//! Whom the kernel kills first when memory is short.

use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::example_process;
use super::idmap::{directory, write};
use crate::outcomes::Process;

/// Sets a process's `oom_score_adj`, which its children inherit. Written from the host: the engine's /proc is not the container's to fake.
#[derive(Debug, Serialize, Deserialize)]
pub struct OomScoreAdj {
    /// The process.
    pub process: Handle<Process>,
    /// -1000 (never killed) to 1000 (first).
    pub score: i32,
}

impl EffectDef for OomScoreAdj {
    const KIND: &'static str = "oom_score_adj";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { process: example_process(), score: 500 }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("oom_score_adj {} for {}", self.score, self.process)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let dir = directory(&cx.resolve(&self.process)?)?;
        write(&dir, "oom_score_adj", &self.score.to_string())?;
        Ok(Applied::done())
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}
