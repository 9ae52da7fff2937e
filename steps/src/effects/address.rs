//! IP addresses of links.

use std::net::IpAddr;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::link::Target;
use super::link::belonging::{self, Belonging};
use crate::net::ip::IpNet;
use crate::net::name::LinkName;
use crate::net::netlink::Rtnl;

/// Gives a link an address. One that it has already is left alone, by undo too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressAdd {
    /// The link.
    pub link: Target,
    /// The address, and the length of its network's prefix.
    pub address: IpNet,
    /// It happens in a namespace that another effect made, and dies with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scoped: bool,
}

pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

impl AddressAdd {
    fn message(&self, index: u32) -> AddressMessage {
        let ip = self.address.address;
        let mut message = AddressMessage::default();
        message.header.family = family(ip);
        message.header.prefix_len = self.address.prefix;
        message.header.index = index;
        if ip.is_ipv6() {
            // Usable at once: asking the neighbours whether somebody has it takes a second, and nobody else is on a link that we made.
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        message
    }
}

impl Belonging for AddressAdd {
    const PLURAL: &'static str = "addresses";

    fn link(&self) -> &Target {
        &self.link
    }

    fn scoped(&self) -> bool {
        self.scoped
    }

    fn is_there(&self, index: u32, rtnl: &mut Rtnl) -> Result<bool, EffectError> {
        let mut filter = AddressMessage::default();
        filter.header.family = family(self.address.address);
        filter.header.index = index;
        let all = rtnl.dump(RouteNetlinkMessage::GetAddress(filter));
        let all = all.map_err(|r| r.error(format!("list the addresses of link {}", self.link)))?;
        // An older kernel lists those of every link. An IPv6 address has no IFA_LOCAL.
        let is_it = |a: &AddressAttribute| match a {
            AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => *ip == self.address.address,
            _ => false,
        };
        Ok(all.iter().any(|answer| match answer {
            RouteNetlinkMessage::NewAddress(a) => {
                a.header.index == index && a.header.prefix_len == self.address.prefix && a.attributes.iter().any(is_it)
            }
            _ => false,
        }))
    }

    fn addition(&self, index: u32) -> RouteNetlinkMessage {
        RouteNetlinkMessage::NewAddress(self.message(index))
    }

    fn removal(&self, index: u32) -> RouteNetlinkMessage {
        RouteNetlinkMessage::DelAddress(self.message(index))
    }
}

impl EffectDef for AddressAdd {
    const KIND: &'static str = "address.add";

    fn examples(_scratch: &Path) -> Vec<Self> {
        let addresses = ["127.9.9.9/32", "fd00:9::9/128"].into_iter().flat_map(IpNet::parse);
        addresses.map(|address| Self { link: Target::Name(LinkName::lo()), address, scoped: false }).collect()
    }

    fn class(&self) -> Class {
        belonging::class(self)
    }

    fn describe(&self) -> String {
        format!("add address {} to link {}", self.address, self.link)
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
