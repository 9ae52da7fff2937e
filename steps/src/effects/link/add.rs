//! Making links.

use std::os::fd::AsRawFd;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use nix::libc;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Link;
use crate::net::mac::Mac;
use crate::net::name::LinkName;
use crate::net::netlink::{Found, Rtnl};
use crate::net::netns::Netns;
use crate::outcomes::Process;

/// Makes a link. Undo deletes it, and with it the other end of a pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkAdd {
    /// Its name. Derived from the run and the step (`LinkName::of`): until the index is in the journal, the name is what undo goes by.
    pub name: LinkName,
    /// Its alias, which holds the run.
    pub alias: String,
    /// What it is.
    pub kind: Kind,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What a link is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A switch.
    Bridge,
    /// A cable with two ends.
    Veth(Peer),
}

/// The other end of a veth pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name there.
    pub name: LinkName,
    /// It is made in this process's network namespace; in the same one if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Handle<Process>>,
    /// Its hardware address; the kernel's choice if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

impl LinkAdd {
    fn create(&self, rtnl: &mut Rtnl, cx: &Cx) -> Result<(), EffectError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(self.name.to_string()));
        message.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        // Held until the kernel has answered: it looks the namespace up by the descriptor's number.
        let netns = match &self.kind {
            Kind::Veth(Peer { process: Some(process), .. }) => Some(Netns::of(&cx.resolve(process)?)?),
            _ => None,
        };
        let info = match &self.kind {
            Kind::Bridge => vec![LinkInfo::Kind(InfoKind::Bridge)],
            Kind::Veth(peer) => {
                let data = InfoData::Veth(InfoVeth::Peer(self.peer(peer, netns.as_ref())));
                vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]
            }
        };
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let answer = rtnl.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
        answer.map_err(|refused| {
            let taken = refused.errno == libc::EEXIST;
            let error = refused.error(EffectDef::describe(self));
            if taken { error.help(self.taken()) } else { error }
        })
    }

    fn peer(&self, peer: &Peer, netns: Option<&Netns>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(peer.name.to_string()));
        message.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(peer.mac.as_ref().map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        message.attributes.extend(netns.map(|n| LinkAttribute::NetNsFd(n.net().as_raw_fd())));
        message
    }

    fn taken(&self) -> String {
        let there = match &self.kind {
            Kind::Bridge => String::new(),
            Kind::Veth(peer) => format!(", or one called {} where the other end goes", peer.name),
        };
        format!(
            "There is a link called {} already{there}: see `ip link`. One that an interrupted run has left is taken back by `lifecycle recover`.",
            self.name
        )
    }

    /// The link that this effect made, if it is there. Without an outcome the name is all there is to go by: only this step of this run has it,
    /// but a link that was there before, or that somebody else put his own alias on, is not ours.
    fn ours(&self, record: &Record, rtnl: &mut Rtnl) -> Result<Option<Found>, EffectError> {
        let refused = |r: crate::net::netlink::Refused| r.error(format!("get link {}", self.name));
        if let Some(link) = record.outcome::<Link>() {
            let found = rtnl.link_by_index(link.index).map_err(refused)?;
            return Ok(found.filter(|found| found.alias.as_ref().is_some_and(|alias| *alias == *self.alias)));
        }
        let Some(found) = rtnl.link_by_name(self.name.as_str()).map_err(refused)? else { return Ok(None) };
        if record.before.get("index") == Some(&json!(found.index)) {
            return Ok(None);
        }
        match &found.alias {
            Some(alias) if *alias != *self.alias => Err(EffectError::new(format!(
                "the link {} is not ours: its alias is {:?}, not {:?}",
                self.name,
                alias.to_string_lossy(),
                self.alias
            ))),
            _ => Ok(Some(found)),
        }
    }
}

impl EffectDef for LinkAdd {
    const KIND: &'static str = "link.add";

    fn examples(_scratch: &Path) -> Vec<Self> {
        let name = |text: &str| LinkName::parse(text).into_iter();
        let link = |name: LinkName, kind| Self { name, alias: "lifecycle:example:link".into(), kind, mtu: Some(1400) };
        let bridge = name("lcexample0").map(|n| link(n, Kind::Bridge));
        let veth = name("lcexample1").zip(name("lcexample2"));
        let veth = veth.map(|(n, peer)| link(n, Kind::Veth(Peer { name: peer, process: None, mac: None })));
        bridge.chain(veth).collect()
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let mtu = self.mtu.map_or_else(String::new, |mtu| format!(", mtu {mtu}"));
        match &self.kind {
            Kind::Bridge => format!("make bridge {}{mtu}", self.name),
            Kind::Veth(Peer { name, process, mac }) => {
                let place = process.as_ref().map_or_else(String::new, |p| format!(" in the network of {p}"));
                let mac = mac.as_ref().map_or_else(String::new, |mac| format!(", mac {mac}"));
                format!("make veth pair {} and {name}{place}{mtu}{mac}", self.name)
            }
        }
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        let found =
            Rtnl::open()?.link_by_name(self.name.as_str()).map_err(|r| r.error(format!("get link {}", self.name)))?;
        Ok(found.map_or(Value::Null, |link| json!({ "index": link.index })))
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let mut rtnl = Rtnl::open()?;
        self.create(&mut rtnl, cx)?;
        let lost = || EffectError::new(format!("the link {} is gone right after it was made", self.name));
        let found = rtnl.link_by_name(self.name.as_str()).map_err(|r| r.error(format!("get link {}", self.name)))?;
        let index = found.ok_or_else(lost)?.index;
        // The kernel takes an alias only for a link that is there.
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::IfAlias(self.alias.clone()));
        let answer = rtnl.change(RouteNetlinkMessage::SetLink(message), 0);
        answer.map_err(|r| r.error(format!("set the alias of link {} to {:?}", self.name, self.alias)))?;
        Applied::outcome(&Link { index, name: self.name.to_string(), alias: self.alias.clone() })
    }

    fn undo(&self, record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        let mut rtnl = Rtnl::open()?;
        let Some(found) = self.ours(record, &mut rtnl)? else { return Ok(Undone::Done) };
        let mut message = LinkMessage::default();
        message.header.index = found.index;
        match rtnl.change(RouteNetlinkMessage::DelLink(message), 0) {
            // It went with the namespace of its other end meanwhile.
            Err(refused) if refused.is_absent() => Ok(Undone::Done),
            answer => answer
                .map(|()| Undone::Done)
                .map_err(|r| r.error(format!("delete link {}", found.name.to_string_lossy()))),
        }
    }
}
