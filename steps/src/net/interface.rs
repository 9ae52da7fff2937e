//! `net.interface`.

use std::net::IpAddr;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Place, Planning, Step};
use lifecycle_engine::types::Millis;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ip::IpNet;
use super::mac::Mac;
use super::name::LinkName;
use super::veth::check_mtu;
use crate::effects::address::AddressAdd;
use crate::effects::link::{LinkSet, LinkWait, Target};
use crate::effects::route::RouteAdd;

/// Configures an interface inside.
pub struct Interface;

/// Wait for an interface in the site's network namespace, give it addresses and routes, and bring it up.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its name.
    #[serde(default = "LinkName::eth0")]
    pub name: LinkName,
    /// Its addresses, such as 10.0.0.2/24.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Its routes.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// The largest packet, in bytes; as it is if not given.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// The hardware address; as it is if not given.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// How long to wait until the interface is there.
    #[serde(default = "within")]
    pub within: Millis,
}

/// A route.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The network that it leads to; everywhere (the default route) if not given.
    #[serde(default)]
    pub to: Option<IpNet>,
    /// The router's address; not given, the network is on the link itself.
    #[serde(default)]
    pub via: Option<IpAddr>,
}

/// The interface.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its addresses, without their prefix lengths.
    pub addresses: Vec<String>,
}

fn within() -> Millis {
    Millis(10_000)
}

impl Route {
    /// With the default network of the router's family.
    fn network(&self, field: &str) -> Result<IpNet, PlanError> {
        match (self.to, self.via) {
            (None, None) => Err(PlanError::new(field, "a route needs `to`, `via` or both")),
            (Some(to), Some(via)) if to.address.is_ipv4() != via.is_ipv4() => Err(PlanError::new(
                format!("{field}.via"),
                format!("{via} cannot lead to {to}: one is IPv4, the other IPv6"),
            )),
            (Some(to), _) => Ok(to),
            (None, Some(via)) => {
                let address = if via.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
                Ok(IpNet { address, prefix: 0 })
            }
        }
    }
}

impl Step for Interface {
    const KIND: &'static str = "net.interface";
    const CHANGES: &'static str = "An interface of the site's network namespace: addresses, routes, size, up.";
    const REVERSED_BY: &'static str = "The end of the network namespace.";
    const PLACE: Place = Place::Inside;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "Two processes that reach each other through a switch, and not the host.",
        plan: include_str!("examples/veth.yaml"),
        needs: &["root"],
    }];
    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        check_mtu(input.mtu)?;
        let networks = input.routes.iter().enumerate().map(|(k, route)| route.network(&format!("routes.{k}")));
        let networks = networks.collect::<Result<Vec<_>, _>>()?;
        let link = Target::Name(input.name.clone());
        cx.effect(LinkWait { name: input.name.clone(), within: input.within });
        for &address in &input.addresses {
            cx.effect(AddressAdd { link: link.clone(), address, scoped: true });
        }
        cx.effect(LinkSet { mtu: input.mtu, mac: input.mac, scoped: true, ..LinkSet::up(link.clone()) });
        // A route needs its link up.
        for (route, to) in input.routes.iter().zip(networks) {
            cx.effect(RouteAdd { link: link.clone(), to, via: route.via, scoped: true });
        }
        let addresses = input.addresses.iter().map(|a| a.address.to_string()).collect();
        Ok(Output { name: input.name.to_string(), addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan_inside, refused_inside};
    use serde_json::json;

    #[test]
    fn an_interface_gets_its_addresses_before_it_comes_up_and_its_routes_after() {
        let planned = plan_inside::<Interface>(json!({ "addresses": ["10.0.0.2/24", "fd00::2/64"], "mtu": 1400,
            "routes": [{ "via": "10.0.0.1" }, { "to": "10.9.1.1/16" }, { "via": "fd00::1" }] }));
        assert_eq!(
            planned.effects,
            [
                "wait until there is a link eth0, within 10s",
                "add address 10.0.0.2/24 to link eth0",
                "add address fd00::2/64 to link eth0",
                "set link eth0: mtu 1400, up",
                "add route to default via 10.0.0.1 on link eth0",
                "add route to 10.9.0.0/16 on link eth0",
                "add route to default via fd00::1 on link eth0",
            ]
        );
        assert_eq!(planned.output["addresses"], json!(["10.0.0.2", "fd00::2"]));
    }

    #[test]
    fn a_route_to_nowhere_or_between_families_is_refused() {
        assert_eq!(refused_inside::<Interface>(json!({ "routes": [{}] })).field, "routes.0");
        assert_eq!(
            refused_inside::<Interface>(json!({ "routes": [{ "to": "::/0", "via": "10.0.0.1" }] })).field,
            "routes.0.via"
        );
    }
}
