//! `notify.forward`

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::notify::ForwardNotify;
use crate::outcomes::Process;

/// Passes on what the container says of itself, READY and STATUS, to the caller's service manager; a `notify.listen` comes before it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The container's first process.
    pub process: Later<Process>,
    /// Make it the service's main process, and wait no longer once it is ready.
    #[serde(default)]
    pub main_process: bool,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Forward;

/// For both steps.
pub(super) const EXAMPLE: Example = Example {
    about: "A program says that it is ready.",
    plan: "plan: example/notify
params: { manager: { type: string, default: /run/systemd/notify } }
steps:
  directory: { uses: notify.directory }
  listen: { uses: notify.listen, needs: [directory], with: { manager: \"${params.manager}\" } }
  init: { uses: process.clone, with: { stdio: log } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/sleep, \"1\"] } }
  forward: { uses: notify.forward, needs: [listen, exec], with: { process: \"${init.process}\" } }
  wait: { uses: process.wait, needs: [exec], with: { process: \"${init.process}\" } }
main: wait
",
    needs: &["service manager"],
};

impl Step for Forward {
    const KIND: &'static str = "notify.forward";
    const CHANGES: &'static str = "The service manager knows that the container is ready.";
    const REVERSED_BY: &'static str = "The end of the process, which the service manager sees.";
    const NATURE: Nature = Nature::Waits;
    const PROCESS: Option<&str> = Some("process");
    const EXAMPLES: &'static [Example] = &[EXAMPLE];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        cx.effect(ForwardNotify { process: input.process, main_process: input.main_process });
        Ok(Output {})
    }
}
