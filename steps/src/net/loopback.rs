//! `net.loopback`.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Place, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::LinkName;
use crate::effects::link::{LinkSet, Target};

/// Brings `lo` up.
pub struct Loopback;

/// Bring the loopback interface up, with the addresses 127.0.0.1 and ::1, which the kernel gives it then.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {}

/// Nothing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {}

impl Step for Loopback {
    const KIND: &'static str = "net.loopback";
    const CHANGES: &'static str = "The interface `lo` of the site's network namespace is up.";
    const REVERSED_BY: &'static str = "The end of the network namespace.";
    const PLACE: Place = Place::Inside;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A process with a loopback of its own.",
        plan: include_str!("examples/loopback.yaml"),
        needs: &["root"],
    }];
    type Input = Input;
    type Output = Output;

    fn plan(_: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        cx.effect(LinkSet { scoped: true, ..LinkSet::up(Target::Name(LinkName::lo())) });
        Ok(Output {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan_inside;
    use serde_json::json;

    #[test]
    fn the_loopback_comes_up() {
        assert_eq!(plan_inside::<Loopback>(json!({})).effects, ["set link lo: up"]);
    }
}
