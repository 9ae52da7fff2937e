//! `spec.remark`

use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::HostPath;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::Warning;

/// Says which members of a configuration do nothing, because the runtime-spec does not have them: "runtimes MUST NOT generate an error if they
/// encounter an unknown property", but a typing error that nobody mentions is a container without the limit that its author believes in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// The bundle.
    pub bundle: HostPath,
    /// The members' paths.
    #[serde(default)]
    pub unknown: Vec<String>,
}

/// Nothing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {}

/// See [`Input`].
pub struct Remark;

impl Step for Remark {
    const KIND: &'static str = "spec.remark";
    const CHANGES: &'static str = "Nothing: it warns.";
    const REVERSED_BY: &'static str = "Nothing to reverse.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A word that is no field of the runtime-spec.",
        plan: "\
plan: example
steps:
  remark:
    uses: spec.remark
    with: { bundle: /bundle, unknown: [process.colour] }
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let file: PathBuf = input.bundle.0.join("config.json");
        if !input.unknown.is_empty() {
            let members = input.unknown.join(", ");
            let text = format!("{}: the runtime-spec has no {members}; ignored", file.display());
            cx.effect(Warning { text });
        }
        Ok(Output {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan;
    use serde_json::json;

    #[test]
    fn what_is_unknown_is_named_and_nothing_else_is_said() {
        let planned = plan::<Remark>(json!({ "bundle": "/b", "unknown": ["a.b", "c"] }));
        assert_eq!(planned.effects, ["warn: /b/config.json: the runtime-spec has no a.b, c; ignored"]);
        assert!(plan::<Remark>(json!({ "bundle": "/b" })).effects.is_empty());
    }
}
