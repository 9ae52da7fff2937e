//! `fifo.release`: starts a created container.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EXAMPLE, NAME, REPORT};
use crate::effects::fifo::Release as ReleaseEffect;
use crate::outcomes::Process;

/// Lets a container go that waits at `exec.fifo` of this run, and waits until its program has taken over. A failure to do so (a hook's, or
/// exec's) is this step's.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The container's init.
    pub process: Later<Process>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Release;

impl Step for Release {
    const KIND: &'static str = "fifo.release";
    const CHANGES: &'static str = "The container's program runs; the FIFOs are removed.";
    const REVERSED_BY: &'static str = "Nothing: what the program has done, it has done.";
    const NATURE: Nature = Nature::Commit;
    const RELEASES: bool = true;
    const EXAMPLES: &'static [Example] = &[EXAMPLE];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let dir = cx.run.dir();
        cx.effect(ReleaseEffect { path: dir.join(NAME), report: dir.join(REPORT), process: input.process });
        Ok(Output {})
    }
}
