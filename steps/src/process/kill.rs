//! `process.kill`: asks a process to end, and makes it.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::types::Millis;
use lifecycle_engine::value::{Handle, Later};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SignalName;
use crate::effects::wait::EndProcess;
use crate::outcomes::Process;

/// Ends a process: a signal first, SIGKILL when it has not ended within the grace. One that has ended already is left alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The process.
    pub process: Later<Process>,
    /// The signal to begin with.
    #[serde(default = "term")]
    pub signal: SignalName,
    /// How long it may take before SIGKILL.
    #[serde(default = "ten_seconds")]
    pub grace: Millis,
}

fn term() -> SignalName {
    SignalName::TERM
}

fn ten_seconds() -> Millis {
    Millis(10_000)
}

/// How it ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// The last signal that was sent; null if it had ended before.
    pub signal: Handle<String>,
}

/// The step.
pub struct Kill;

impl Step for Kill {
    const KIND: &'static str = "process.kill";
    const CHANGES: &'static str = "Ends a process.";
    const REVERSED_BY: &'static str = "Nothing: a dead process does not come back.";
    const NATURE: Nature = Nature::Commit;
    const PROCESS: Option<&str> = Some("process");
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A program is asked to stop, and has a second to do so.",
        plan: "plan: example/kill
steps:
  init: { uses: process.clone, with: { stdio: log } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/sleep, \"60\"] } }
  stop: { uses: process.kill, needs: [exec], with: { process: \"${init.process}\", grace: 1s } }
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let made = cx.effect(EndProcess { process: input.process, signal: input.signal, grace: input.grace });
        Ok(Output { signal: made.handle("signal") })
    }
}
