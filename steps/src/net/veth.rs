//! `net.veth`.

use std::collections::BTreeMap;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check_admin;
use super::mac::Mac;
use super::name::{LinkName, alias};
use crate::effects::link::{Kind, Link, LinkAdd, LinkSet, Peer, Target};
use crate::outcomes::Process;

/// Connects a process's network with the host's.
pub struct Veth;

/// Make a veth pair: one end on the host, in a bridge if asked, the other in a process's network namespace. `net.interface` configures that
/// end.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The process in whose network namespace the other end is.
    pub process: Handle<Process>,
    /// The name of the end in there.
    #[serde(default = "LinkName::eth0")]
    pub name: LinkName,
    /// The bridge that the host's end is put in, such as `${bridge.link}`.
    #[serde(default)]
    pub bridge: Option<Handle<Link>>,
    /// The largest packet, in bytes; the kernel's choice if not given.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// The hardware address of the end in there; the kernel's choice if not given.
    #[serde(default)]
    pub mac: Option<Mac>,
}

/// The pair.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {
    /// The host's end.
    pub link: Handle<Link>,
    /// Its name on the host, which derives from the run and the step.
    pub host: String,
    /// The name of the other end.
    pub name: String,
}

/// The smallest packet that IPv4 asks of a link (RFC 791), and the largest that veth and bridge take.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;

/// Refuses a size that the kernel would refuse.
pub(super) fn check_mtu(mtu: Option<u32>) -> Result<(), PlanError> {
    match mtu.filter(|mtu| !MTU.contains(mtu)) {
        Some(mtu) => Err(PlanError::new("mtu", format!("{mtu} is not from {} to {}", MTU.start(), MTU.end()))),
        None => Ok(()),
    }
}

impl Step for Veth {
    const KIND: &'static str = "net.veth";
    const CHANGES: &'static str = "A link on the host, up, and one in the process's network namespace.";
    const REVERSED_BY: &'static str = "Deleting the host's end, and with it the other.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "Two processes that reach each other through a switch, and not the host.",
        plan: include_str!("examples/veth.yaml"),
        needs: &["root"],
    }];
    type Input = Input;
    type Output = Output;

    fn takes_root(_with: &BTreeMap<&str, &Value>) -> Option<&'static str> {
        Some(super::TAKES_ROOT)
    }

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        check_admin(cx.facts)?;
        check_mtu(input.mtu)?;
        let host = LinkName::of(cx.run, &cx.step, 'h');
        let peer = Peer { name: input.name.clone(), process: Some(input.process), mac: input.mac };
        let alias = alias(cx.run, &cx.step);
        let made = cx.effect(LinkAdd { name: host.clone(), alias, kind: Kind::Veth(peer), mtu: input.mtu });
        let link = made.handle::<Link>("");
        cx.effect(LinkSet { master: input.bridge, no_own_address: true, ..LinkSet::up(Target::Made(link.clone())) });
        Ok(Output { link, host: host.to_string(), name: input.name.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, process, refused};
    use serde_json::json;

    #[test]
    fn a_pair_is_made_with_its_other_end_in_place() {
        let bridge = json!({ "$handle": { "step": "bridge", "effect": 0, "field": "" } });
        let planned = plan::<Veth>(json!({ "process": process(), "bridge": bridge, "mac": "02:00:00:00:00:01" }));
        let host = planned.output["host"].as_str().unwrap();
        assert_eq!(
            planned.effects,
            [
                format!("make veth pair {host} and eth0 in the network of ‹init›, mac 02:00:00:00:00:01"),
                "set link ‹step›: in bridge ‹bridge›, no address of its own, up".into(),
            ]
        );
        assert_eq!(planned.data[0]["alias"], json!("lifecycle:web:step"));
        assert_eq!(refused::<Veth>(json!({ "process": process(), "mtu": 70_000 })).field, "mtu");
    }
}
