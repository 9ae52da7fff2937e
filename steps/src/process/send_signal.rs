//! `process.signal`: sends a signal, and does not wait for what comes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SignalName;
use crate::effects::signal::SendSignal;
use crate::outcomes::Process;

/// Sends a signal to a container's first process, or to every process in its cgroup.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The container's first process.
    pub process: Later<Process>,
    /// The signal.
    #[serde(default = "term")]
    pub signal: SignalName,
    /// To every process in these cgroups (`cgroup.create`'s `paths`) instead: what a container without a pid namespace of its own needs.
    #[serde(default)]
    pub cgroups: BTreeMap<String, PathBuf>,
}

fn term() -> SignalName {
    SignalName::TERM
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct SendSignalTo;

impl Step for SendSignalTo {
    const KIND: &'static str = "process.signal";
    const CHANGES: &'static str = "Whatever the process does about the signal.";
    const REVERSED_BY: &'static str = "Nothing: a signal cannot be taken back.";
    const NATURE: Nature = Nature::Commit;
    const PROCESS: Option<&str> = Some("process");
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A program is told to end.",
        plan: "plan: example/signal
steps:
  init: { uses: process.clone, with: { stdio: log } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/sleep, \"60\"] } }
  signal: { uses: process.signal, needs: [exec], with: { process: \"${init.process}\", signal: TERM } }
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let Input { process, signal, cgroups } = input;
        let mut cgroups: Vec<PathBuf> = cgroups.into_values().collect();
        cgroups.sort_unstable();
        cgroups.dedup();
        cx.effect(SendSignal { process, signal, cgroups });
        Ok(Output {})
    }
}
