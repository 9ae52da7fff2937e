//! Asking the kernel's routing netlink, rtnetlink(7): one question, one answer, no wait for anything but the kernel's own work.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStringExt;

use lifecycle_engine::error::EffectError;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;

/// A socket in the network namespace that the process was in when it was opened.
pub struct Rtnl {
    socket: Socket,
    sequence: u32,
}

/// The kernel's refusal of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its errno.
    pub errno: i32,
    /// What it says in words (NLMSGERR_ATTR_MSG), if anything.
    pub said: Option<String>,
}

/// A link as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The interface index.
    pub index: u32,
    /// The name. The kernel takes any bytes for names and aliases.
    pub name: OsString,
    /// Other names.
    pub altnames: Vec<OsString>,
    /// IFLA_IFALIAS.
    pub alias: Option<OsString>,
    /// IFF_UP.
    pub up: bool,
    /// All flags, netdevice(7).
    pub flags: u32,
    /// Packets that may wait to be sent.
    pub queue: u32,
    /// IFLA_GROUP.
    pub group: u32,
    /// Bytes.
    pub mtu: u32,
    /// The index of the bridge it is in; 0 for none.
    pub master: u32,
    /// The hardware address.
    pub mac: Vec<u8>,
    /// IFLA_INFO_KIND, such as `veth`; empty for a physical device.
    pub kind: String,
}

impl Refused {
    fn errno(errno: i32) -> Self {
        Self { errno, said: None }
    }

    fn garbled() -> Self {
        Self { errno: libc::EBADMSG, said: Some("the kernel's answer cannot be read".into()) }
    }

    /// The kernel has no such link, address or route.
    pub fn is_absent(&self) -> bool {
        matches!(self.errno, libc::ENODEV | libc::ENXIO | libc::ESRCH | libc::EADDRNOTAVAIL)
    }

    /// As the failure of `what`, with the likely cause.
    pub fn error(self, what: impl fmt::Display) -> EffectError {
        let what = match &self.said {
            Some(said) => format!("{what} ({said})"),
            None => what.to_string(),
        };
        let error = EffectError::call(what, std::io::Error::from_raw_os_error(self.errno));
        match cause(self.errno) {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

/// The likely cause of an errno, and what to do.
fn cause(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EPERM | libc::EACCES => {
            "Links, addresses and routes need CAP_NET_ADMIN in the user namespace that owns the network namespace: run as root, or in a user namespace with a network of its own."
        }
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT => {
            "The kernel lacks this kind of link or address family: load its module (`modprobe veth`, `modprobe bridge`, `modprobe ipv6`)."
        }
        libc::EEXIST => "The name, address or route is taken: see `ip link`, `ip address`, `ip route`.",
        libc::ENODEV | libc::ENXIO => "There is no such link in this network namespace: see `ip link`.",
        libc::EADDRINUSE => "The address is in use.",
        libc::EADDRNOTAVAIL => "The link cannot have such an address.",
        libc::ENETUNREACH => {
            "No address of the link reaches the gateway: add an address in the gateway's network first."
        }
        libc::ENETDOWN => "The link is down.",
        libc::EBUSY => "The link is in use: in a bridge already, or up where it has to be down.",
        libc::ELOOP => "The links would contain each other.",
        _ => return None,
    })
}

impl Rtnl {
    /// A socket in the calling process's network namespace.
    pub fn open() -> Result<Self, EffectError> {
        let failed = |what| move |e| EffectError::call(what, e);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("socket(AF_NETLINK, NETLINK_ROUTE)"))?;
        socket.bind_auto().map_err(failed("bind(AF_NETLINK)"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect(AF_NETLINK)"))?;
        // The kernel's words for a refusal; and dumps that it filters. Both are refinements that a very old kernel may lack.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { socket, sequence: 0 })
    }

    /// A change: the kernel's acknowledgement is all that comes back.
    pub fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Refused> {
        self.ask(message, NLM_F_ACK | flags).map(drop)
    }

    /// All that matches the message.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Refused> {
        let read = |bytes: Vec<u8>| {
            NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes)
                .map_err(|_| Refused::garbled())
                .map(|m| m.payload)
        };
        let answers: Vec<_> = self.ask(message, NLM_F_DUMP)?.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(answers
            .into_iter()
            .filter_map(|payload| match payload {
                NetlinkPayload::InnerMessage(answer) => Some(answer),
                _ => None,
            })
            .collect())
    }

    /// The link of that name.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Found>, Refused> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link(message)
    }

    /// The link with that index.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Found>, Refused> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.link(message)
    }

    /// Every link of the namespace.
    pub fn links(&mut self) -> Result<Vec<Found>, Refused> {
        let all = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(all.iter().filter_map(|answer| Found::of(answer)).collect())
    }

    fn link(&mut self, message: LinkMessage) -> Result<Option<Found>, Refused> {
        match self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Err(refused) if refused.is_absent() => Ok(None),
            answers => Ok(answers?.iter().find_map(|answer| Found::of(answer))),
        }
    }

    /// The messages of the answer, as they are.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<Vec<u8>>, Refused> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        retry(|| self.socket.send(&bytes, 0))?;
        let mut answers = Vec::new();
        loop {
            let (bytes, from) = retry(|| self.socket.recv_from_full())?;
            // Anybody may send to a netlink socket; the kernel's port is 0.
            if from.port_number() == 0 && self.read(&bytes, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Whether that was the last of the answer.
    fn read(&self, mut bytes: &[u8], answers: &mut Vec<Vec<u8>>) -> Result<bool, Refused> {
        while !bytes.is_empty() {
            let header = Header::of(bytes).ok_or_else(Refused::garbled)?;
            let message = bytes.get(..header.length).ok_or_else(Refused::garbled)?;
            bytes = &bytes[header.length.next_multiple_of(4).min(bytes.len())..];
            if header.sequence != self.sequence {
                continue;
            }
            match i32::from(header.kind) {
                libc::NLMSG_ERROR => {
                    let code = message.get(Header::LENGTH..Header::LENGTH + 4).and_then(|code| code.try_into().ok());
                    return match i32::from_ne_bytes(code.ok_or_else(Refused::garbled)?) {
                        0 => Ok(true),
                        code => {
                            Err(Refused { errno: code.saturating_abs(), said: said(&message[Header::LENGTH + 4..]) })
                        }
                    };
                }
                libc::NLMSG_DONE => return Ok(true),
                libc::NLMSG_OVERRUN => return Err(Refused::errno(libc::ENOBUFS)),
                libc::NLMSG_NOOP => {}
                _ => answers.push(message.to_vec()),
            }
        }
        Ok(false)
    }
}

/// struct nlmsghdr, as far as it matters here.
struct Header {
    length: usize,
    kind: u16,
    sequence: u32,
}

impl Header {
    const LENGTH: usize = 16;

    fn of(bytes: &[u8]) -> Option<Self> {
        let length = usize::try_from(u32_at(bytes, 0)?).ok().filter(|length| *length >= Self::LENGTH)?;
        let kind = bytes.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)?;
        Some(Self { length, kind, sequence: u32_at(bytes, 8)? })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The attributes in a row of them, struct nlattr.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *rest else { return None };
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // Without NLA_F_NESTED and NLA_F_NET_BYTEORDER.
        Some((kind & 0x3fff, value))
    })
}

/// A text that ends with a null.
fn text(value: &[u8]) -> OsString {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    OsString::from_vec(value[..end].to_vec())
}

fn retry<T>(mut call: impl FnMut() -> std::io::Result<T>) -> Result<T, Refused> {
    loop {
        match call() {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Refused::errno(e.raw_os_error().unwrap_or(libc::EIO))),
            Ok(value) => return Ok(value),
        }
    }
}

/// NLMSGERR_ATTR_MSG among the attributes that follow the header of the refused request (linux/netlink.h, struct nlmsgerr).
fn said(refusal: &[u8]) -> Option<String> {
    const MSG: u16 = 1;
    let (_, said) = attributes(refusal.get(Header::LENGTH..)?).find(|(kind, _)| *kind == MSG)?;
    Some(text(said).to_string_lossy().into_owned()).filter(|said| !said.is_empty())
}

impl Found {
    /// The link in an RTM_NEWLINK. It is read here, as bytes: who administers a namespace chooses its names, and one that is no text must not
    /// hide the others.
    fn of(message: &[u8]) -> Option<Self> {
        // struct ifinfomsg: family, type, index, flags, change.
        const INFO: usize = 16;
        if Header::of(message)?.kind != libc::RTM_NEWLINK {
            return None;
        }
        let info = &message[Header::LENGTH..];
        let flags = u32_at(info, 8)?;
        let up = flags & libc::IFF_UP as u32 != 0;
        let mut found = Self { index: u32_at(info, 4)?, up, flags, ..Self::default() };
        for (kind, value) in attributes(info.get(INFO..)?) {
            let number = || u32_at(value, 0).unwrap_or_default();
            match kind {
                libc::IFLA_IFNAME => found.name = text(value),
                libc::IFLA_IFALIAS => found.alias = Some(text(value)),
                libc::IFLA_MTU => found.mtu = number(),
                libc::IFLA_MASTER => found.master = number(),
                libc::IFLA_TXQLEN => found.queue = number(),
                libc::IFLA_GROUP => found.group = number(),
                libc::IFLA_ADDRESS => found.mac = value.to_vec(),
                libc::IFLA_LINKINFO => {
                    let kind = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                    found.kind = kind.map(|(_, kind)| text(kind).to_string_lossy().into_owned()).unwrap_or_default();
                }
                libc::IFLA_PROP_LIST => {
                    let names = attributes(value).filter(|(kind, _)| *kind == libc::IFLA_ALT_IFNAME);
                    found.altnames.extend(names.map(|(_, name)| text(name)));
                }
                _ => {}
            }
        }
        Some(found)
    }
}

/// A message as text that a journal can hold.
pub fn to_text(message: RouteNetlinkMessage) -> String {
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What [`to_text`] wrote.
pub fn from_text(text: &str) -> Option<RouteNetlinkMessage> {
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect::<Option<_>>()?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).ok()?.payload {
        NetlinkPayload::InnerMessage(message) => Some(message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_found_by_name_and_index_and_others_are_not() {
        let mut rtnl = Rtnl::open().unwrap();
        let lo = rtnl.link_by_name("lo").unwrap().unwrap();
        assert_eq!((lo.name.to_str().unwrap(), lo.index), ("lo", 1));
        assert_eq!(rtnl.link_by_index(1).unwrap(), Some(lo));
        assert_eq!(rtnl.link_by_name("nosuchlink").unwrap(), None);
        assert_eq!(rtnl.link_by_index(1 << 30).unwrap(), None);
    }

    #[test]
    fn the_kernels_words_are_read_from_a_refusal() {
        let mut refusal = vec![0; 16];
        refusal.extend([8, 0, 2, 0, 9, 9, 9, 9]);
        refusal.extend([12, 0, 1, 0]);
        refusal.extend(b"no luck\0");
        assert_eq!(said(&refusal), Some("no luck".into()));
        assert_eq!(said(&refusal[..10]), None);
        assert_eq!(said(&[&[0u8; 16][..], &[200, 0, 1, 0, 1]].concat()), None);
        assert_eq!(said(&[&[0u8; 16][..], &[0, 0, 1, 0, 1]].concat()), None);
    }
}
