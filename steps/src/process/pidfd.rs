//! `process.pidfd`: hands a process to another program.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::pidfd::SendPidfd;
use crate::outcomes::Process;

/// Sends a pidfd of a process to a unix socket (`--pidfd-socket`): whoever listens there can wait for it and signal it, and takes no other
/// process for it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The socket on which somebody listens.
    pub socket: HostPath,
    /// The process.
    pub process: Later<Process>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Pidfd;

impl Step for Pidfd {
    const KIND: &'static str = "process.pidfd";
    const CHANGES: &'static str = "Another program has a descriptor of the process.";
    const REVERSED_BY: &'static str = "The end of the process, which its maker brings about.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A supervisor gets the process.",
        plan: "plan: example/pidfd
params: { socket: { type: path, default: /run/supervisor.sock } }
steps:
  init: { uses: process.clone, with: { stdio: log } }
  pidfd: { uses: process.pidfd, with: { socket: \"${params.socket}\", process: \"${init.process}\" } }
",
        needs: &["listener"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let socket = HostPath(crate::fs::absolute(&input.socket, cx)?);
        cx.effect(SendPidfd { socket, process: input.process });
        Ok(Output {})
    }
}
