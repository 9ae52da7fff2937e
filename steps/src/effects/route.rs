//! Routes.

use std::net::IpAddr;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::address::family;
use super::link::Target;
use super::link::belonging::{self, Belonging};
use crate::net::ip::IpNet;
use crate::net::name::LinkName;
use crate::net::netlink::Rtnl;

/// Adds a route to the main table. One that is there already is left alone, by undo too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteAdd {
    /// The link that leads there.
    pub link: Target,
    /// The network that it leads to; `0.0.0.0/0` or `::/0` is the default route.
    pub to: IpNet,
    /// The router; without it the network is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// It happens in a namespace that another effect made, and dies with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scoped: bool,
}

impl RouteAdd {
    fn message(&self, index: u32) -> RouteMessage {
        let to = self.to.network();
        let mut message = RouteMessage::default();
        message.header.address_family = family(to.address);
        message.header.destination_prefix_length = to.prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if self.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
        if to.address.is_ipv6() {
            message.header.scope = RouteScope::Universe;
        }
        message.attributes.push(RouteAttribute::Oif(index));
        if to.prefix > 0 {
            message.attributes.push(RouteAttribute::Destination(to.address.into()));
        }
        message.attributes.extend(self.via.map(|via| RouteAttribute::Gateway(via.into())));
        message
    }
}

impl Belonging for RouteAdd {
    const PLURAL: &'static str = "routes";

    fn link(&self) -> &Target {
        &self.link
    }

    fn scoped(&self) -> bool {
        self.scoped
    }

    fn is_there(&self, index: u32, rtnl: &mut Rtnl) -> Result<bool, EffectError> {
        let want = self.message(index);
        let mut filter = RouteMessage::default();
        filter.header.address_family = want.header.address_family;
        filter.header.table = RouteHeader::RT_TABLE_MAIN;
        filter.attributes.push(RouteAttribute::Oif(index));
        let all = rtnl.dump(RouteNetlinkMessage::GetRoute(filter)).map_err(|r| r.error("list the routes"))?;
        Ok(all.iter().any(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => {
                let gateway = |r: &RouteMessage| r.attributes.iter().any(|a| matches!(a, RouteAttribute::Gateway(_)));
                route.header.table == want.header.table
                    && route.header.destination_prefix_length == want.header.destination_prefix_length
                    && want.attributes.iter().all(|a| route.attributes.contains(a))
                    && gateway(route) == gateway(&want)
            }
            _ => false,
        }))
    }

    fn addition(&self, index: u32) -> RouteNetlinkMessage {
        RouteNetlinkMessage::NewRoute(self.message(index))
    }

    fn removal(&self, index: u32) -> RouteNetlinkMessage {
        RouteNetlinkMessage::DelRoute(self.message(index))
    }
}

impl EffectDef for RouteAdd {
    const KIND: &'static str = "route.add";

    fn examples(_scratch: &Path) -> Vec<Self> {
        // Documentation networks, which nobody routes; the loopback has to be up.
        let networks = ["192.0.2.0/24", "2001:db8::/32"].into_iter().flat_map(IpNet::parse);
        networks.map(|to| Self { link: Target::Name(LinkName::lo()), to, via: None, scoped: false }).collect()
    }

    fn class(&self) -> Class {
        belonging::class(self)
    }

    fn describe(&self) -> String {
        let to = if self.to.prefix == 0 { "default".to_owned() } else { self.to.network().to_string() };
        let via = self.via.map_or_else(String::new, |via| format!(" via {via}"));
        format!("add route to {to}{via} on link {}", self.link)
    }

    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError> {
        belonging::before(self, cx)
    }

    fn apply(&self, before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        belonging::apply(self, before)
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        belonging::undo(self, record, cx)
    }
}
