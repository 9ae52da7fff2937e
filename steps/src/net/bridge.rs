//! `net.bridge`.

use std::collections::BTreeMap;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check_admin;
use super::ip::IpNet;
use super::name::{LinkName, alias};
use super::veth::check_mtu;
use crate::effects::address::AddressAdd;
use crate::effects::link::{Kind, Link, LinkAdd, LinkSet, Target};

/// Makes a bridge on the host.
pub struct Bridge;

/// Make a bridge on the host: a switch that the veth pairs of containers are put in. Without `address` the host itself takes no part in it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its name; if not given, one that derives from the run and the step.
    #[serde(default)]
    pub name: Option<LinkName>,
    /// An address for the host in the bridge's network, such as 10.88.0.1/16.
    #[serde(default)]
    pub address: Option<IpNet>,
    /// The largest packet, in bytes; the kernel's choice if not given.
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// The bridge.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {
    /// The link, for `net.veth`.
    pub link: Handle<Link>,
    /// Its name.
    pub name: String,
}

impl Step for Bridge {
    const KIND: &'static str = "net.bridge";
    const CHANGES: &'static str =
        "A bridge on the host, up; with `address`, an address and the route that comes with it.";
    const REVERSED_BY: &'static str = "Deleting the bridge.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A switch without an address on the host.",
        plan: include_str!("examples/bridge.yaml"),
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
        let ours = LinkName::of(cx.run, &cx.step, 'b');
        let alias = alias(cx.run, &cx.step);
        // Made under the name that we chose, and given the caller's when it is known to be ours: see `LinkAdd::name`.
        let made = cx.effect(LinkAdd { name: ours.clone(), alias, kind: Kind::Bridge, mtu: input.mtu });
        let link = made.handle::<Link>("");
        let name = input.name.as_ref().unwrap_or(&ours).to_string();
        cx.effect(LinkSet { name: input.name, no_own_address: true, ..LinkSet::up(Target::Made(link.clone())) });
        if let Some(address) = input.address {
            cx.effect(AddressAdd { link: Target::Made(link.clone()), address, scoped: false });
        }
        Ok(Output { link, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, refused};
    use serde_json::json;

    #[test]
    fn a_bridge_has_a_name_of_ours_until_it_is_known_and_no_address_unless_asked() {
        let plain = plan::<Bridge>(json!({}));
        let name = plain.output["name"].as_str().unwrap();
        assert_eq!(plain.effects, [format!("make bridge {name}"), "set link ‹step›: no address of its own, up".into()]);
        let named = plan::<Bridge>(json!({ "name": "br0", "address": "10.88.0.1/16", "mtu": 1400 }));
        assert_eq!(
            named.effects,
            [
                &format!("make bridge {name}, mtu 1400"),
                "set link ‹step›: called br0, no address of its own, up",
                "add address 10.88.0.1/16 to link ‹step›",
            ]
        );
        assert_eq!(named.output["name"], json!("br0"));
    }

    #[test]
    fn a_name_that_no_link_can_have_is_refused() {
        assert!(refused::<Bridge>(json!({ "name": "a/b" })).message.contains("a/b"));
        assert_eq!(refused::<Bridge>(json!({ "mtu": 10 })).field, "mtu");
    }
}
