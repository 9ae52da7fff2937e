//! `console.relay`: the caller's terminal and the container's become one.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::EXAMPLE;
use crate::effects::relay::RelayConsole;
use crate::outcomes::Process;

/// Carries the engine's stdin to the container's terminal, and what that shows to the engine's stdout, until the container has ended. Where stdin
/// is a terminal it is raw meanwhile, and its size is passed on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The container's init; its `process.clone` has `terminal` set and no `console_socket`.
    pub process: Handle<Process>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Relay;

impl Step for Relay {
    const KIND: &'static str = "console.relay";
    const CHANGES: &'static str = "The mode of the caller's terminal, while it lasts.";
    const REVERSED_BY: &'static str = "Sets the mode back when it ends or is cancelled.";
    const NATURE: Nature = Nature::Waits;
    const EXAMPLES: &'static [Example] = &[EXAMPLE];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        cx.effect(RelayConsole { process: input.process });
        Ok(Output {})
    }
}
