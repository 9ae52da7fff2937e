//! `net.pin`.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::{Handle, Later};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::netns::PinNetns;
use crate::outcomes::Process;

/// Keeps a network namespace.
pub struct Pin;

/// Keep a process's network namespace until the run is undone, also when the process ends before: what was lent to it can be fetched back.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The process.
    pub process: Handle<Process>,
}

/// The namespace.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {
    /// A file that stands for it.
    pub path: HostPath,
}

impl Step for Pin {
    const KIND: &'static str = "net.pin";
    const CHANGES: &'static str = "A file in the run's directory with the namespace mounted on it.";
    const REVERSED_BY: &'static str =
        "Unmounting and removing the file; with it the namespace goes, if nobody else is in it.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "The network namespace of a program.",
        plan: "plan: example/pin
steps:
  init: { uses: process.clone, with: { new: [network] } }
  pin: { uses: net.pin, with: { process: \"${init.process}\" } }
  exec: { uses: process.exec, site: \"${init}\", needs: [pin], with: { args: [sleep, \"0.1\"] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
",
        needs: &["root"],
    }];
    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let path = cx.run.dir().join("netns");
        cx.effect(PinNetns { process: Later::Handle(input.process), path: path.clone() });
        Ok(Output { path: HostPath(path) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, process};
    use serde_json::json;

    #[test]
    fn the_file_is_in_the_runs_directory() {
        let planned = plan::<Pin>(json!({ "process": process() }));
        assert_eq!(planned.effects, ["pin the network namespace of ‹init› at /run/lifecycle/web/netns"]);
        assert_eq!(planned.output["path"], "/run/lifecycle/web/netns");
    }
}
