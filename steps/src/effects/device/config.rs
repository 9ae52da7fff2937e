//! The addresses and routes of a device, which it loses when it is moved.

use lifecycle_engine::error::EffectError;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::set;
use crate::net::name::LinkName;
use crate::net::netlink::{Refused, Rtnl, from_text, to_text};

/// What the kernel said of them: whole messages, so that whatever an address or a route has besides (a peer, a metric, a label) comes back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Config {
    /// Permanent ones of global scope.
    addresses: Vec<String>,
    /// Those that somebody set, and not the kernel by itself.
    routes: Vec<String>,
}

impl Config {
    pub(super) fn of(rtnl: &mut Rtnl, index: u32) -> Result<Self, EffectError> {
        let mut filter = AddressMessage::default();
        filter.header.index = index;
        let all = rtnl.dump(RouteNetlinkMessage::GetAddress(filter)).map_err(|r| r.error("list the addresses"))?;
        let is_kept = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewAddress(address) => address.header.index == index && is_lasting(address),
            _ => false,
        };
        let addresses = all.into_iter().filter(is_kept).map(to_text).collect();
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.attributes.push(RouteAttribute::Oif(index));
            let all = rtnl.dump(RouteNetlinkMessage::GetRoute(filter)).map_err(|r| r.error("list the routes"))?;
            let is_kept = |message: &RouteNetlinkMessage| match message {
                RouteNetlinkMessage::NewRoute(route) => is_set_by_hand(route, index),
                _ => false,
            };
            routes.extend(all.into_iter().filter(is_kept).map(to_text));
        }
        Ok(Self { addresses, routes })
    }

    /// Gives a device in the container its addresses, and brings it up.
    pub(super) fn give(&self, rtnl: &mut Rtnl, index: u32, old: &LinkName, new: &str) -> Result<(), Refused> {
        for mut address in self.addresses() {
            relabel(&mut address, old.as_str(), new);
            add_address(rtnl, address, index)?;
        }
        set(rtnl, index, |message| {
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
        })
    }

    /// Gives a device on the host back what it had. Whatever of it is there already stays.
    pub(super) fn restore(&self, rtnl: &mut Rtnl, index: u32, up: bool) -> Result<(), Refused> {
        for address in self.addresses() {
            add_address(rtnl, address, index)?;
        }
        set(rtnl, index, |message| {
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
            message.header.change_mask = LinkFlags::Up;
        })?;
        if !up {
            return Ok(());
        }
        // One by one: a route over a gateway needs the one that leads to the gateway.
        let mut routes: Vec<RouteMessage> = self.routes().collect();
        routes.sort_by_key(|route| route.attributes.iter().any(|a| matches!(a, RouteAttribute::Gateway(_))));
        for mut route in routes {
            for attribute in &mut route.attributes {
                if let RouteAttribute::Oif(oif) = attribute {
                    *oif = index;
                }
            }
            route.attributes.retain(|a| !matches!(a, RouteAttribute::CacheInfo(_)));
            match rtnl.change(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL) {
                Err(refused) if refused.errno == libc::EEXIST => {}
                answer => answer?,
            }
        }
        Ok(())
    }

    fn addresses(&self) -> impl Iterator<Item = AddressMessage> {
        self.addresses.iter().filter_map(|text| match from_text(text)? {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        })
    }

    fn routes(&self) -> impl Iterator<Item = RouteMessage> {
        self.routes.iter().filter_map(|text| match from_text(text)? {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })
    }
}

/// "permanent IP addresses (IFA_F_PERMANENT flag) of any family with global scope (RT_SCOPE_UNIVERSE value)".
fn is_lasting(address: &AddressMessage) -> bool {
    let flags = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(flags.contains(AddressFlags::Permanent)),
        _ => None,
    });
    let permanent = flags.unwrap_or_else(|| address.header.flags.contains(AddressHeaderFlags::Permanent));
    permanent && address.header.scope == AddressScope::Universe
}

fn is_set_by_hand(route: &RouteMessage, index: u32) -> bool {
    let by_itself = [RouteProtocol::Kernel, RouteProtocol::IcmpRedirect, RouteProtocol::Ra];
    route.attributes.contains(&RouteAttribute::Oif(index)) && !by_itself.contains(&route.header.protocol)
}

/// A label begins with the device's name, ip-address(8).
fn relabel(address: &mut AddressMessage, old: &str, new: &str) {
    for attribute in &mut address.attributes {
        if let AddressAttribute::Label(label) = attribute
            && let Some(rest) = label.strip_prefix(old).map(str::to_owned)
        {
            *label = format!("{new}{rest}");
        }
    }
}

fn add_address(rtnl: &mut Rtnl, mut address: AddressMessage, index: u32) -> Result<(), Refused> {
    address.header.index = index;
    // Life times and what the kernel has found out since; and the long form of the flags, which would undo the next line.
    address.attributes.retain(|a| !matches!(a, AddressAttribute::CacheInfo(_)));
    if address.header.family == AddressFamily::Inet6 {
        // It has been found to be nobody else's before.
        address.header.flags |= AddressHeaderFlags::Nodad;
        for attribute in &mut address.attributes {
            if let AddressAttribute::Flags(flags) = attribute {
                *flags |= AddressFlags::Nodad;
                *flags &= !(AddressFlags::Tentative | AddressFlags::Dadfailed);
            }
        }
    }
    match rtnl.change(RouteNetlinkMessage::NewAddress(address), NLM_F_CREATE | NLM_F_EXCL) {
        Err(refused) if refused.errno == libc::EEXIST => Ok(()),
        answer => answer,
    }
}
