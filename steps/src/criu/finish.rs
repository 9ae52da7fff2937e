//! `criu.finish`

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::criu::FinishRestore;
use crate::outcomes::Process;

/// Lets criu go on with what `criu.restore` has begun, and waits until all processes of the image run. What has to be done to the namespaces
/// while they are empty, such as a container's hooks, comes before.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The first process, of `criu.restore`.
    pub process: Handle<Process>,
    /// Where criu writes what it does.
    pub log: HostPath,
}

/// Nothing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Finish;

impl Step for Finish {
    const KIND: &'static str = "criu.finish";
    const CHANGES: &'static str = "Makes the other processes of an image, and lets all of them run.";
    const REVERSED_BY: &'static str = "They go with the first process.";
    const EXAMPLES: &'static [Example] = super::restore::Restore::EXAMPLES;

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        cx.effect(FinishRestore { process: input.process, log: input.log.0 });
        Ok(Output {})
    }
}
