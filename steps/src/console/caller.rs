//! `console.caller`: whether there is a terminal to relay.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tells whether the caller is at a terminal (fact `terminal`), for the `if` of a `console.open` and a `console.relay`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {}

/// The answer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Whether stdin and stdout are terminals.
    pub terminal: bool,
}

/// The step.
pub struct Caller;

impl Step for Caller {
    const KIND: &'static str = "console.caller";
    const CHANGES: &'static str = "Nothing: it reads while the run is planned.";
    const REVERSED_BY: &'static str = "Nothing to reverse.";
    const NATURE: Nature = Nature::Pure;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "Something that is done for a person only.",
        plan: "plan: example/caller
steps:
  caller: { uses: console.caller }
  greeting: { uses: command.run, if: caller.terminal, with: { args: [echo, hello] } }
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(_: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        Ok(Output { terminal: cx.facts.has("terminal") })
    }
}
