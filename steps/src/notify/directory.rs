//! `notify.directory`

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::notify as effects;

/// Makes the directory that will hold the container's notification socket, so that it can be bound into the container (`spec.load` with `notify`).
/// The socket itself comes when the container starts: nobody listens before.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct NotifyDirectory;

impl Step for NotifyDirectory {
    const KIND: &'static str = "notify.directory";
    const CHANGES: &'static str = "Makes a directory in the run's directory.";
    const REVERSED_BY: &'static str = "Removes it.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "Room for the socket.",
        plan: "plan: example/notify-directory
steps:
  notify: { uses: notify.directory }
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(_: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let path = super::directory_of(cx.run);
        cx.effect(effects::NotifyDirectory { path });
        Ok(Output {})
    }
}
