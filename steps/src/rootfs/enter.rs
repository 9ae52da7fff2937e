//! `rootfs.enter`: into the root of a container that has none of its own mounts.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::inside::RootEnter;
use crate::outcomes::Process;

/// Changes to the root of another process. Who joins a container's mount namespace has its root by that; one that has the caller's mounts has a root by
/// chroot(2) alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The container's process.
    pub process: Later<Process>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Enter;

impl Step for Enter {
    const KIND: &'static str = "rootfs.enter";
    const CHANGES: &'static str = "The root of the site's process.";
    const REVERSED_BY: &'static str = "Goes with the process.";
    const PLACE: Place = Place::Inside;
    const AFTER: After = &[];
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A process beside another one, in the same root.",
        plan: "plan: example/rootfs-enter
steps:
  other: { uses: process.clone, with: { new: [mount], stdio: log } }
  root: { uses: rootfs.overlay, site: \"${other}\" }
  pivot: { uses: rootfs.pivot, site: \"${other}\", needs: [root] }
  init: { uses: process.clone, needs: [pivot], with: { new: [uts], stdio: log } }
  enter: { uses: rootfs.enter, site: \"${init}\", with: { process: \"${other.process}\" } }
  exec: { uses: process.exec, site: \"${init}\", needs: [enter], with: { args: [/bin/ls, /] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
  last: { uses: process.exec, site: \"${other}\", needs: [enter], with: { args: [/bin/true] } }
  end: { uses: process.wait, with: { process: \"${other.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        cx.effect(RootEnter { process: input.process });
        Ok(Output {})
    }
}
