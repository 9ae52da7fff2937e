//! What whoever administers a network namespace may change about a device in it, and the device brings along wherever it goes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, Prop};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::super::link::Seen;
use super::set;
use crate::net::identity::Identity;
use crate::net::netlink::{Found, Refused, Rtnl};

/// The flags that are for the administrator to set, besides IFF_UP; the others are what the driver and the cable say.
const SETTABLE: i32 =
    libc::IFF_NOARP | libc::IFF_PROMISC | libc::IFF_ALLMULTI | libc::IFF_MULTICAST | libc::IFF_DYNAMIC;

/// Which device it is, and what it was like on the host besides [`Seen`]. Names are bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Traits {
    pub(super) identity: Identity,
    alias: Vec<u8>,
    altnames: Vec<Vec<u8>>,
    flags: u32,
    queue: u32,
    group: u32,
}

impl Traits {
    pub(super) fn of(identity: Identity, found: &Found) -> Self {
        Self {
            identity,
            alias: alias(found).to_vec(),
            altnames: found.altnames.iter().map(|name| name.as_bytes().to_vec()).collect(),
            flags: found.flags & SETTABLE as u32,
            queue: found.queue,
            group: found.group,
        }
    }

    /// Gives the device back what it had, while it is down: some drivers take another address only then. Nothing is asked of the kernel that is
    /// as it was. Its other names follow when it has its own.
    pub(super) fn restore(&self, found: &Found, seen: &Seen, host: &mut Rtnl) -> Result<(), Refused> {
        if found.mac != seen.mac {
            down(host, found.index)?;
            set(host, found.index, |m| m.attributes.push(LinkAttribute::Address(seen.mac.clone())))?;
        }
        if alias(found) != self.alias {
            let alias = DefaultNla::new(libc::IFLA_IFALIAS, self.alias.clone());
            set(host, found.index, |m| m.attributes.push(LinkAttribute::Other(alias)))?;
        }
        if (found.flags ^ self.flags) & SETTABLE as u32 != 0 {
            set(host, found.index, |m| {
                m.header.flags = LinkFlags::from_bits_retain(self.flags);
                m.header.change_mask = LinkFlags::from_bits_retain(SETTABLE as u32);
            })?;
        }
        if (found.queue, found.group) != (self.queue, self.group) {
            set(host, found.index, |m| {
                m.attributes.push(LinkAttribute::TxQueueLen(self.queue));
                m.attributes.push(LinkAttribute::Group(self.group));
            })?;
        }
        Ok(())
    }

    /// Gives it its other names, and no more; those that somebody else has by now are the answer.
    pub(super) fn restore_names(&self, found: &Found, host: &mut Rtnl) -> Result<Vec<OsString>, Refused> {
        let known = |name: &OsString| self.altnames.iter().any(|known| *known == name.as_bytes());
        for name in found.altnames.iter().filter(|name| !known(name)) {
            host.change(RouteNetlinkMessage::DelLinkProp(altname(found.index, name)), 0)?;
        }
        let mut taken = Vec::new();
        for name in self.altnames.iter().cloned().map(OsString::from_vec).filter(|name| !found.altnames.contains(name))
        {
            match host.change(
                RouteNetlinkMessage::NewLinkProp(altname(found.index, &name)),
                NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND,
            ) {
                Err(refused) if refused.errno == libc::EEXIST => taken.push(name),
                answer => answer?,
            }
        }
        Ok(taken)
    }
}

/// Takes all other names away from a device. One that is in use where it goes would keep it from going there.
pub(super) fn drop_names(found: &Found, rtnl: &mut Rtnl) -> Result<(), Refused> {
    let mut drop = |name| rtnl.change(RouteNetlinkMessage::DelLinkProp(altname(found.index, name)), 0);
    found.altnames.iter().try_for_each(|name| drop(name))
}

pub(super) fn down(rtnl: &mut Rtnl, index: u32) -> Result<(), Refused> {
    set(rtnl, index, |m| {
        m.header.flags = LinkFlags::empty();
        m.header.change_mask = LinkFlags::Up;
    })
}

fn alias(found: &Found) -> &[u8] {
    found.alias.as_ref().map(|alias| alias.as_bytes()).unwrap_or_default()
}

fn altname(index: u32, name: &OsStr) -> LinkMessage {
    let text = [name.as_bytes(), b"\0"].concat();
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::PropList(vec![Prop::Other(DefaultNla::new(libc::IFLA_ALT_IFNAME, text))]));
    message
}
