//! IP addresses of links.

use std::net::IpAddr;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::link::{Seen, Target};
use super::owns;
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

/// What was there before.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    link: Seen,
    had_it: bool,
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
}

impl EffectDef for AddressAdd {
    const KIND: &'static str = "address.add";

    fn examples(_scratch: &Path) -> Vec<Self> {
        let addresses = ["127.9.9.9/32", "fd00:9::9/128"].into_iter().flat_map(IpNet::parse);
        addresses.map(|address| Self { link: Target::Name(LinkName::lo()), address, scoped: false }).collect()
    }

    fn class(&self) -> Class {
        if self.scoped { Class::Scoped } else { Class::Reversible }
    }

    fn describe(&self) -> String {
        format!("add address {} to link {}", self.address, self.link)
    }

    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError> {
        if self.scoped {
            owns(cx, "net", &format!("addresses of link {}", self.link))?;
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
            let message = RouteNetlinkMessage::NewAddress(self.message(before.link.index));
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
        match rtnl.change(RouteNetlinkMessage::DelAddress(self.message(before.link.index)), 0) {
            Err(refused) if refused.is_absent() => Ok(Undone::Done),
            answer => {
                answer.map(|()| Undone::Done).map_err(|r| r.error(format!("take back: {}", EffectDef::describe(self))))
            }
        }
    }
}
