//! `process.wait`: until a process has ended.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::value::{Handle, Later};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::wait::AwaitEnd;
use crate::outcomes::Process;

/// Waits until a process has ended, and tells how. Fails if its program ended with a code that is not accepted. Made the plan's `main`, it gives the
/// run its exit code.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The process: one that this run has made.
    pub process: Later<Process>,
    /// The signals that the engine gets meanwhile are sent on to the process, instead of cancelling the run.
    #[serde(default)]
    pub forward_signals: bool,
    /// The exit codes with which its program may end: with another one the step fails. An empty list takes every code.
    #[serde(default = "success")]
    pub accept: Vec<u8>,
}

fn success() -> Vec<u8> {
    vec![0]
}

/// How it ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Its exit code, or 128 + the signal that killed it.
    pub exit: Handle<i64>,
}

/// The step.
pub struct Wait;

impl Step for Wait {
    const KIND: &'static str = "process.wait";
    const CHANGES: &'static str = "Nothing.";
    const REVERSED_BY: &'static str = "Nothing to reverse.";
    const NATURE: Nature = Nature::Waits;
    const PROCESS: Option<&str> = Some("process");
    const EXAMPLES: &'static [Example] = &[Example {
        about: "The run ends when the container's program does, with its exit code.",
        plan: "plan: example/wait
steps:
  init: { uses: process.clone, with: { new: [pid], stdio: log } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/sh, -c, exit 3] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\", accept: [0, 3] } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let made = cx.effect(AwaitEnd {
            process: input.process,
            forward_signals: input.forward_signals,
            accept: input.accept.into_iter().map(i32::from).collect(),
        });
        Ok(Output { exit: made.handle("exit") })
    }
}
