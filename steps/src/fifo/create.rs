//! `fifo.create`: the FIFO at which a created container waits.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EXAMPLE, NAME, REPORT};
use crate::effects::fifo::MakeFifo;
use crate::outcomes::Fifo;

/// Makes `exec.fifo` in the run's directory, and `exec.report`, by which the container's init tells why it could not be started.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {}

/// What `process.clone` takes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Both FIFOs.
    pub fifo: ExecFifo,
}

/// The two FIFOs of a created container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecFifo {
    /// At which it waits.
    pub start: Handle<Fifo>,
    /// By which it then tells of a failure.
    pub report: Handle<Fifo>,
}

/// The step.
pub struct Create;

impl Step for Create {
    const KIND: &'static str = "fifo.create";
    const CHANGES: &'static str = "Makes exec.fifo and exec.report in the run's directory, mode 0600.";
    const REVERSED_BY: &'static str = "Removes them.";
    const EXAMPLES: &'static [Example] = &[EXAMPLE];

    type Input = Input;
    type Output = Output;

    fn plan(_: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let mut make = |name| cx.effect(MakeFifo { path: cx.run.dir().join(name) }).handle("");
        // The one that tells `created` from `running` comes last, and so its undo first.
        let (report, start) = (make(REPORT), make(NAME));
        Ok(Output { fifo: ExecFifo { start, report } })
    }
}
