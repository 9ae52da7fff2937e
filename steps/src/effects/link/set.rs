//! Changing links.

use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage};
use nix::libc;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Link, Seen, Target};
use crate::effects::owns;
use crate::net::mac::Mac;
use crate::net::name::LinkName;
use crate::net::netlink::{Found, Refused, Rtnl};

/// Changes a link. Undo gives back what was there before, if the link still is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSet {
    /// Which.
    pub link: Target,
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<LinkName>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The bridge to put it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<Handle<Link>>,
    /// The kernel gives it no IPv6 address of its own when it comes up. For a link made by this run: nothing takes it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_own_address: bool,
    /// It comes up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub up: bool,
    /// It happens in a namespace that another effect made, and dies with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scoped: bool,
}

impl LinkSet {
    /// Nothing yet.
    pub fn new(link: Target) -> Self {
        Self { link, name: None, mtu: None, mac: None, master: None, no_own_address: false, up: false, scoped: false }
    }

    /// Brings a link up.
    pub fn up(link: Target) -> Self {
        Self { up: true, ..Self::new(link) }
    }

    /// Whether all it does is to bring up a link that is up.
    fn is_as_wanted(&self, found: &Found) -> bool {
        *self == Self { scoped: self.scoped, ..Self::up(self.link.clone()) } && found.up
    }

    fn give_back(&self, seen: &Seen, now: &Found, message: &mut LinkMessage) {
        if self.name.is_some() && now.name != *seen.name {
            message.attributes.push(LinkAttribute::IfName(seen.name.clone()));
        }
        if self.mtu.is_some() && now.mtu != seen.mtu {
            message.attributes.push(LinkAttribute::Mtu(seen.mtu));
        }
        if self.mac.is_some() && now.mac != seen.mac {
            message.attributes.push(LinkAttribute::Address(seen.mac.clone()));
        }
        if self.master.is_some() && now.master != seen.master {
            message.attributes.push(LinkAttribute::Controller(seen.master));
        }
    }

    fn refused(&self, refused: Refused) -> EffectError {
        let taken = refused.errno == libc::EEXIST;
        let error = refused.error(EffectDef::describe(self));
        match &self.name {
            Some(name) if taken => {
                error.help(format!("There is a link called {name} already: see `ip link`. Choose another name."))
            }
            _ => error,
        }
    }
}

fn change(rtnl: &mut Rtnl, index: u32, fill: impl FnOnce(&mut LinkMessage)) -> Result<(), Refused> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    fill(&mut message);
    rtnl.change(RouteNetlinkMessage::SetLink(message), 0)
}

fn set_up(message: &mut LinkMessage, up: bool) {
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
}

impl EffectDef for LinkSet {
    const KIND: &'static str = "link.set";

    fn examples(_scratch: &Path) -> Vec<Self> {
        // Not up: the loopback keeps the address that the kernel gives it when it first comes up.
        vec![Self { mtu: Some(32_000), ..Self::new(Target::Name(LinkName::lo())) }]
    }

    fn class(&self) -> Class {
        if self.scoped { Class::Scoped } else { Class::Reversible }
    }

    fn describe(&self) -> String {
        let mut what = Vec::new();
        what.extend(self.name.as_ref().map(|name| format!("called {name}")));
        what.extend(self.mtu.map(|mtu| format!("mtu {mtu}")));
        what.extend(self.mac.as_ref().map(|mac| format!("mac {mac}")));
        what.extend(self.master.as_ref().map(|master| format!("in bridge {master}")));
        what.extend(self.no_own_address.then(|| "no address of its own".to_owned()));
        what.extend(self.up.then(|| "up".to_owned()));
        format!("set link {}: {}", self.link, what.join(", "))
    }

    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError> {
        let found = self.link.get(&mut Rtnl::open()?, cx)?;
        // A container in the host's network has a loopback that is up; anything more would change it for the host.
        if self.scoped && !self.is_as_wanted(&found) {
            owns(cx, "net", &format!("link {}", self.link))?;
        }
        Ok(json!(Seen::from(found)))
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let seen =
            Seen::deserialize(before).map_err(|e| EffectError::new(format!("what was before cannot be read: {e}")))?;
        let mut rtnl = Rtnl::open()?;
        let master = self.master.as_ref().map(|m| Target::Made(m.clone()).get(&mut rtnl, cx)).transpose()?;
        if self.no_own_address {
            let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
            match change(&mut rtnl, seen.index, |m| m.attributes.push(LinkAttribute::AfSpecUnspec(vec![mode]))) {
                // A kernel without IPv6 gives no such address anyway.
                Err(refused) if refused.errno == libc::EAFNOSUPPORT => {}
                answer => answer.map_err(|r| self.refused(r))?,
            }
        }
        let fill = |message: &mut LinkMessage| {
            message.attributes.extend(self.name.as_ref().map(|name| LinkAttribute::IfName(name.to_string())));
            message.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
            message.attributes.extend(self.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
            message.attributes.extend(master.map(|m| LinkAttribute::Controller(m.index)));
            if self.up {
                set_up(message, true);
            }
        };
        change(&mut rtnl, seen.index, fill).map_err(|r| self.refused(r))?;
        Ok(Applied::done())
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        let Ok(seen) = Seen::deserialize(&record.before) else { return Ok(Undone::Done) };
        if self.scoped {
            return Ok(Undone::Done);
        }
        let mut rtnl = Rtnl::open()?;
        let Some(now) = self.link.again(&seen, &mut rtnl, cx)? else { return Ok(Undone::Done) };
        // Down first: older kernels rename no link that is up.
        let down = self.up && now.up != seen.up;
        let first = if down { change(&mut rtnl, seen.index, |m| set_up(m, seen.up)) } else { Ok(()) };
        match first.and_then(|()| change(&mut rtnl, seen.index, |m| self.give_back(&seen, &now, m))) {
            Err(refused) if refused.is_absent() => Ok(Undone::Done),
            answer => {
                answer.map(|()| Undone::Done).map_err(|r| r.error(format!("take back: {}", EffectDef::describe(self))))
            }
        }
    }
}
