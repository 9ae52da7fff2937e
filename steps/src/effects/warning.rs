//! Words for whoever runs the plan.

use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Warns. Changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warning {
    /// What about.
    pub text: String,
}

impl EffectDef for Warning {
    const KIND: &'static str = "warning";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { text: "nothing is amiss".into() }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("warn: {}", self.text)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        cx.warn(&self.text);
        Ok(Applied::done())
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}
