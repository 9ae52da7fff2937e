//! Links, addresses and routes of our network namespace, read by rtnetlink(7).

use std::collections::HashMap;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::Things;
use crate::{Error, Result, While};

/// The network as it is configured. What a link reports about its carrier is not part of it.
pub(super) struct Network {
    pub links: Things,
    pub addresses: Things,
    pub routes: Things,
}

pub(super) fn look() -> Result<Network> {
    let mut links = Vec::new();
    let mut addresses = Vec::new();
    let mut routes = Vec::new();
    let mut socket = Socket::new(NETLINK_ROUTE).when(|| "opening a netlink socket".into())?;
    socket.bind_auto().when(|| "binding a netlink socket".into())?;
    dump(&socket, RouteNetlinkMessage::GetLink(LinkMessage::default()), &mut |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            links.push(link);
        }
    })?;
    dump(&socket, RouteNetlinkMessage::GetAddress(AddressMessage::default()), &mut |message| {
        if let RouteNetlinkMessage::NewAddress(address) = message {
            addresses.push(address);
        }
    })?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        dump(&socket, RouteNetlinkMessage::GetRoute(request), &mut |message| {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                routes.push(route);
            }
        })?;
    }
    let names: Names = links.iter().map(|link| (link.header.index, name_of(link))).collect();
    Ok(Network {
        links: links.iter().map(|link| (name_of(link), describe_link(link, &names))).collect(),
        addresses: addresses.iter().map(|address| describe_address(address, &names)).collect(),
        routes: routes.iter().map(|route| (describe_route(route, &names), String::new())).collect(),
    })
}

/// Interface indexes are given anew to every interface, so names stand for them.
type Names = HashMap<u32, String>;

fn named(index: u32, names: &Names) -> String {
    names.get(&index).cloned().unwrap_or_else(|| "elsewhere".into())
}

fn name_of(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn describe_link(link: &LinkMessage, names: &Names) -> String {
    let up = if link.header.flags.contains(LinkFlags::Up) { "up" } else { "down" };
    let mut words = vec![up.to_owned()];
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => words.push(format!("mac {bytes:02x?}")),
            LinkAttribute::Mtu(mtu) => words.push(format!("mtu {mtu}")),
            LinkAttribute::IfAlias(alias) => words.push(format!("alias {alias}")),
            LinkAttribute::Controller(index) => words.push(format!("in {}", named(*index, names))),
            LinkAttribute::Link(index) => words.push(format!("linked to {}", named(*index, names))),
            LinkAttribute::TxQueueLen(length) => words.push(format!("queue {length}")),
            LinkAttribute::Qdisc(name) => words.push(format!("qdisc {name}")),
            LinkAttribute::Promiscuity(count) => words.push(format!("promiscuity {count}")),
            LinkAttribute::LinkInfo(infos) => words.extend(infos.iter().filter_map(kind)),
            _ => {}
        }
    }
    words.join(" ")
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(name)) => Some(format!("kind {name}")),
        LinkInfo::Kind(kind) => Some(format!("kind {kind:?}")),
        _ => None,
    }
}

fn describe_address(address: &AddressMessage, names: &Names) -> (String, String) {
    let mut words = vec![format!("scope {:?}", address.header.scope)];
    let mut ip = String::new();
    for attribute in &address.attributes {
        match attribute {
            AddressAttribute::Address(value) => ip = value.to_string(),
            AddressAttribute::Local(value) => words.push(format!("local {value}")),
            AddressAttribute::Broadcast(value) => words.push(format!("broadcast {value}")),
            AddressAttribute::Label(value) => words.push(format!("label {value}")),
            AddressAttribute::RoutePriority(value) => words.push(format!("metric {value}")),
            _ => {}
        }
    }
    let link = named(address.header.index, names);
    (format!("{link} {ip}/{}", address.header.prefix_len), words.join(" "))
}

/// A route has no name but all that it is.
fn describe_route(route: &RouteMessage, names: &Names) -> String {
    let header = &route.header;
    let mut words = vec![format!(
        "{:?} {:?} /{} table {} {:?} {:?}",
        header.address_family,
        header.kind,
        header.destination_prefix_length,
        header.table,
        header.protocol,
        header.scope
    )];
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => words.push(format!("by {}", named(*index, names))),
            RouteAttribute::Iif(index) => words.push(format!("from {}", named(*index, names))),
            // Ages and use counts; and the table, which the header has said.
            RouteAttribute::CacheInfo(_)
            | RouteAttribute::MfcStats(_)
            | RouteAttribute::Expires(_)
            | RouteAttribute::MulticastExpires(_)
            | RouteAttribute::Table(_) => {}
            other => words.push(format!("{other:?}")),
        }
    }
    words.join(" ")
}

/// Asks for everything of one kind and hands each answer to `take`.
fn dump(socket: &Socket, request: RouteNetlinkMessage, take: &mut dyn FnMut(RouteNetlinkMessage)) -> Result<()> {
    let doing = || "asking the kernel for its network configuration".to_owned();
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
    packet.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).when(doing)?;
    loop {
        let (answer, _) = socket.recv_from_full().when(doing)?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).when(doing)?;
            // Each message is padded to four bytes (netlink(7)).
            let length = (message.header.length as usize).next_multiple_of(4);
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(Error::new(doing(), error)),
                NetlinkPayload::InnerMessage(message) => take(message),
                _ => {}
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
