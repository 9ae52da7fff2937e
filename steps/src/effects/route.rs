//! Routes.

use std::net::IpAddr;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::address::family;
use super::link::{Seen, Target};
use super::owns;
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

/// What was there before.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    link: Seen,
    had_it: bool,
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
}

impl EffectDef for RouteAdd {
    const KIND: &'static str = "route.add";

    fn examples(_scratch: &Path) -> Vec<Self> {
        // Documentation networks, which nobody routes; the loopback has to be up.
        let networks = ["192.0.2.0/24", "2001:db8::/32"].into_iter().flat_map(IpNet::parse);
        networks.map(|to| Self { link: Target::Name(LinkName::lo()), to, via: None, scoped: false }).collect()
    }

    fn class(&self) -> Class {
        if self.scoped { Class::Scoped } else { Class::Reversible }
    }

    fn describe(&self) -> String {
        let to = if self.to.prefix == 0 { "default".to_owned() } else { self.to.network().to_string() };
        let via = self.via.map_or_else(String::new, |via| format!(" via {via}"));
        format!("add route to {to}{via} on link {}", self.link)
    }

    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError> {
        if self.scoped {
            owns(cx, "net", &format!("routes on link {}", self.link))?;
        }
        let mut rtnl = Rtnl::open()?;
        let link = self.link.get(&mut rtnl, cx)?;
        let had_it = self.is_there(link.index, &mut rtnl)?;
        Ok(json!(Before { link: link.into(), had_it }))
    }

    fn apply(&self, before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        let before = Before::deserialize(before)
            .map_err(|e| EffectError::new(format!("what was before cannot be read: {e}")))?;
        if !before.had_it {
            let message = RouteNetlinkMessage::NewRoute(self.message(before.link.index));
            let answer = Rtnl::open()?.change(message, NLM_F_CREATE | NLM_F_EXCL);
            answer.map_err(|r| r.error(EffectDef::describe(self)))?;
        }
        Ok(Applied::done())
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        let Ok(before) = Before::deserialize(&record.before) else { return Ok(Undone::Done) };
        if self.scoped || before.had_it {
            return Ok(Undone::Done);
        }
        let mut rtnl = Rtnl::open()?;
        if self.link.again(&before.link, &mut rtnl, cx)?.is_none() {
            return Ok(Undone::Done);
        }
        match rtnl.change(RouteNetlinkMessage::DelRoute(self.message(before.link.index)), 0) {
            Err(refused) if refused.is_absent() => Ok(Undone::Done),
            answer => {
                answer.map(|()| Undone::Done).map_err(|r| r.error(format!("take back: {}", EffectDef::describe(self))))
            }
        }
    }
}
