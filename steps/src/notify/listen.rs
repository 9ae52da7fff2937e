//! `notify.listen`

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::HostPath;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SOCKET, within};
use crate::effects::notify::BindNotify;

/// Listens where the container will say that it is ready.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Where the caller's service manager listens: `$NOTIFY_SOCKET`. A name that begins with `@` is an abstract one.
    pub manager: String,
    /// The container's state.json (`state.publish`'s `path`). Default: this run's own.
    #[serde(default)]
    pub state: Option<HostPath>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Listen;

impl Step for Listen {
    const KIND: &'static str = "notify.listen";
    const CHANGES: &'static str =
        "Makes a socket in the container's directory, which everybody in the container may write to.";
    const REVERSED_BY: &'static str = "Removes it.";
    const EXAMPLES: &'static [Example] = &[super::forward::EXAMPLE];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let is_name = |name: &str| name.len() > 1 && (name.starts_with('/') || name.starts_with('@'));
        if !is_name(&input.manager) {
            return Err(PlanError::new(
                "manager",
                format!("{:?} is neither an absolute path nor @NAME", input.manager),
            )
            .help("this is what NOTIFY_SOCKET says, sd_notify(3)"));
        }
        let other = input.state.as_ref().and_then(|state| state.0.parent().map(within));
        let directory = other.unwrap_or_else(|| super::directory_of(cx.run));
        cx.effect(BindNotify { path: directory.join(SOCKET), manager: input.manager });
        Ok(Output {})
    }
}
