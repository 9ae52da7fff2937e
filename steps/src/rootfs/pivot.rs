//! `rootfs.pivot`: into the new root.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::inside::{RootPivot, RootPropagation};
use crate::mounts::Propagation;
use crate::spec::RootfsPropagation;

/// Makes the prepared root the container's own and lets go of the host's: from here on the container sees nothing of the host but what was
/// mounted for it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// How mounts travel between the host and the container's root. Null: not at all.
    #[serde(default)]
    pub propagation: Option<RootfsPropagation>,
    /// The new root is moved over the old one instead: what a host on an initramfs needs, which cannot be exchanged. Less strict: the old root
    /// stays mounted below.
    #[serde(default)]
    pub no_pivot: bool,
    /// The site has the caller's mounts, in which nothing is changed but what lies below the new root: the root changes by chroot(2) alone.
    #[serde(default)]
    pub shares_mounts: bool,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Pivot;

impl Step for Pivot {
    const KIND: &'static str = "rootfs.pivot";
    const CHANGES: &'static str = "The root of the site's mount namespace.";
    const REVERSED_BY: &'static str = "Goes with the namespace.";
    const PLACE: Place = Place::Inside;
    const AFTER: After = &["rootfs.mount", "rootfs.overlay"];
    const EXAMPLES: &'static [Example] = &[Example {
        about: "The container sees its own root alone.",
        plan: "plan: example/rootfs-pivot
steps:
  init: { uses: process.clone, with: { new: [mount], stdio: log } }
  root: { uses: rootfs.overlay, site: \"${init}\" }
  pivot: { uses: rootfs.pivot, site: \"${init}\", needs: [root] }
  exec: { uses: process.exec, site: \"${init}\", needs: [pivot], with: { args: [/bin/ls, /] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        cx.effect(RootPivot { no_pivot: input.no_pivot, shares_mounts: input.shares_mounts });
        // Only now: set before, it would have changed the host's mounts along with the container's. A root that is to be a slave was bound as
        // one, and what is mounted in it has the propagation that it asks for.
        if !input.shares_mounts
            && let Some((propagation, recursive)) = input.propagation.map(RootfsPropagation::parts)
            && matches!(propagation, Propagation::Shared | Propagation::Unbindable)
        {
            cx.effect(RootPropagation { propagation, recursive });
        }
        Ok(Output {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan_inside;
    use serde_json::json;

    #[test]
    fn propagation_is_set_after_the_change() {
        for none in ["private", "rslave"] {
            assert_eq!(plan_inside::<Pivot>(json!({ "propagation": none })).effects.len(), 1);
        }
        let planned = plan_inside::<Pivot>(json!({ "propagation": "rshared" }));
        assert_eq!(planned.effects[1], "make / and every mount below shared");
    }
}
