//! `fifo.wait`: a created container's init waits here for `start`.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::EXAMPLE;
use crate::effects::fifo::AwaitStart;

/// Waits at the exec FIFO until `fifo.release` writes to it, in another run perhaps. What comes after it in the site is armed: planned, and not
/// waited for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Wait;

impl Step for Wait {
    const KIND: &'static str = "fifo.wait";
    const CHANGES: &'static str = "Nothing: the process blocks in reading from the FIFO.";
    const REVERSED_BY: &'static str = "Goes with the process.";
    const PLACE: Place = Place::Inside;
    const ARMS: bool = true;
    const AFTER: After = &[
        "console.open",
        "net.loopback",
        "process.privileges",
        "rootfs.mount",
        "rootfs.overlay",
        "rootfs.pivot",
        "rootfs.protect",
        "seccomp.load",
        "sysctl.write",
        "uts.set",
    ];
    const EXAMPLES: &'static [Example] = &[EXAMPLE];

    type Input = Input;
    type Output = Output;

    fn plan(_: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        cx.effect(AwaitStart {});
        Ok(Output {})
    }
}
