//! `net.device`.

use std::collections::BTreeMap;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::{Handle, Later};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::name::LinkName;
use crate::effects::device::MoveDevice;
use crate::outcomes::Process;

/// Lends a device.
pub struct Device;

/// Move a network device of the host into a process's network namespace, with its permanent global addresses, and bring it up there. It comes
/// back under its old name, with its addresses and routes, when the run is undone.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The process.
    pub process: Handle<Process>,
    /// Its network namespace: the `path` of a `net.pin`.
    pub netns: HostPath,
    /// The device's name on the host.
    pub device: LinkName,
    /// Its name in there, where `%d` stands for the first free number; the same if not given.
    #[serde(default)]
    pub name: Option<LinkName>,
}

/// Nothing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {}

impl Step for Device {
    const KIND: &'static str = "net.device";
    const CHANGES: &'static str = "A device is gone from the host and is there in the process's network namespace.";
    const REVERSED_BY: &'static str = "Moving it back, with its name, addresses and routes.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "One end of a cable goes from the host into a process's network, the other stays with its neighbour.",
        plan: include_str!("examples/device.yaml"),
        needs: &["root"],
    }];
    type Input = Input;
    type Output = Output;

    fn takes_root(_with: &BTreeMap<&str, &Value>) -> Option<&'static str> {
        Some(super::TAKES_ROOT)
    }

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let Input { process, netns, device, name } = input;
        check(name.as_ref().unwrap_or(&device))?;
        // The name itself is no new one.
        let name = name.filter(|name| *name != device);
        cx.effect(MoveDevice { device, name, process: Later::Handle(process), pin: netns.0 });
        Ok(Output {})
    }
}

/// The kernel fills in one number.
fn check(name: &LinkName) -> Result<(), PlanError> {
    let parts = name.as_str().matches('%').count();
    if parts > 1 || parts == 1 && !name.as_str().contains("%d") {
        return Err(PlanError::new("name", format!("{name} has a `%` that is not one `%d`")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, process, refused};
    use serde_json::{Value, json};

    fn with(name: Value) -> Value {
        json!({ "process": process(), "netns": "/run/lifecycle/web/netns", "device": "eth1", "name": name })
    }

    #[test]
    fn a_device_is_moved_under_the_name_that_it_is_to_have() {
        let effect = |name: Value| plan::<Device>(with(name)).effects.remove(0);
        assert_eq!(
            effect(json!("data%d")),
            "move network device eth1 into the network of ‹init› as data%d, with its addresses, and up"
        );
        assert_eq!(effect(Value::Null), effect(json!("eth1")));
        assert_eq!(refused::<Device>(with(json!("a%s"))).field, "name");
        assert_eq!(refused::<Device>(with(json!("a%d%d"))).field, "name");
    }
}
