//! Network devices of the host that are lent to a container.

mod config;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Said, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::libc;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::config::Config;
use super::example_process;
use super::link::Seen;
use super::wait::resolve;
use crate::facts::boot_id;
use crate::net::name::LinkName;
use crate::net::netlink::{Found, Refused, Rtnl};
use crate::net::netns::{self, Netns};
use crate::outcomes::Process;

/// Moves a device of the host into a container's network namespace, with its permanent global addresses, and brings it up there (config-linux.md,
/// "Network Devices").
///
/// Undo gives it back under its old name, with its addresses and routes. The spec leaves devices to the kernel, because a runtime may not be there
/// when a namespace dies, and the kernel destroys a virtual device and renames a physical one. This namespace is pinned (see
/// [`super::netns::PinNetns`]), so there is nothing to leave to chance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveDevice {
    /// Its name on the host.
    pub device: LinkName,
    /// Its name in the container: another one, or one with `%d` for the first free number. Absent: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<LinkName>,
    /// A process in the container's network namespace.
    pub process: Later<Process>,
    /// Where that namespace is pinned.
    pub pin: PathBuf,
}

/// The device on the host.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    boot: String,
    link: Seen,
    kind: String,
    config: Config,
    /// Its name in the container, chosen.
    inside: String,
}

/// The device in the container.
#[derive(Debug, Serialize, Deserialize)]
struct Inside {
    index: u32,
    name: String,
}

/// Where a device is, with a socket there.
enum Place {
    Inside(Rtnl, u32),
    Host(Rtnl, Found),
    Nowhere,
}

impl MoveDevice {
    fn wanted(&self) -> &LinkName {
        self.name.as_ref().unwrap_or(&self.device)
    }

    /// The name that it will have among those that are there.
    fn choose(&self, taken: &[Found]) -> Result<String, EffectError> {
        let is_free = |name: &str| taken.iter().all(|link| link.name != name);
        let wanted = self.wanted().as_str();
        if let Some((head, tail)) = wanted.split_once("%d") {
            let free = (0..=taken.len()).map(|n| format!("{head}{n}{tail}")).find(|name| is_free(name));
            return Ok(free.unwrap_or_else(|| wanted.to_owned()));
        }
        if is_free(wanted) {
            return Ok(wanted.to_owned());
        }
        Err(EffectError::new(format!("there is a device {wanted} in the container's network namespace already"))
            .help("give linux.netDevices another `name`; one that ends in %d gets the first free number"))
    }

    /// The container's namespace: as it was pinned, or of its process.
    fn netns(&self, cx: &Cx) -> Result<Option<OwnedFd>, EffectError> {
        if let Some(pinned) = netns::pinned(&self.pin)? {
            return Ok(Some(pinned));
        }
        let Ok(process) = resolve(&self.process, cx) else { return Ok(None) };
        match Netns::of(&process) {
            Ok(found) => found.net().try_clone_to_owned().map(Some).map_err(|e| EffectError::call("dup", e)),
            // It has ended, and its namespace with it.
            Err(_) => Ok(None),
        }
    }

    /// Where it is now: in the container, on the host, or nowhere, as when somebody deletes it, or as the other end of a cable goes.
    fn find(&self, before: &Before, record: &Record, cx: &Cx) -> Result<Place, EffectError> {
        if let Some(net) = self.netns(cx)?
            && let Some((there, index)) = before.find_inside(&net, record)?
        {
            return Ok(Place::Inside(there, index));
        }
        let mut host = Rtnl::open()?;
        let listed = host.links().map_err(|r| r.error("list the links"))?;
        Ok(before.find_on_host(&self.device, listed).map_or(Place::Nowhere, |found| Place::Host(host, found)))
    }

    fn give_back(&self, before: &Before, record: &Record, cx: &Cx) -> Result<(), EffectError> {
        let mut place = self.find(before, record, cx)?;
        if let Place::Inside(there, index) = &mut place {
            self.bring_back(there, *index)?;
            place = self.find(before, record, cx)?;
        }
        let Place::Host(mut host, found) = place else { return Ok(()) };
        let failed = |r: Refused| r.error(format!("give back network device {}", self.device));
        if found.name != self.device.as_str() {
            set(&mut host, found.index, |m| m.attributes.push(LinkAttribute::IfName(self.device.to_string())))
                .map_err(failed)?;
        }
        before.link_again(&found, &mut host).map_err(failed)?;
        before.config.restore(&mut host, found.index, before.link.up).map_err(failed)
    }

    fn bring_back(&self, there: &mut Rtnl, index: u32) -> Result<(), EffectError> {
        let host = netns::own()?;
        let moved = set(there, index, |message| {
            message.attributes.push(LinkAttribute::NetNsFd(host.as_raw_fd()));
            message.attributes.push(LinkAttribute::IfName(self.device.to_string()));
        });
        moved.map_err(|refused| {
            let taken = refused.errno == libc::EEXIST;
            let error = refused.error(format!("move network device {} back to the host", self.device));
            if taken {
                error.help(format!("There is another {} on the host by now: rename it, then undo again.", self.device))
            } else {
                error
            }
        })
    }
}

fn set(rtnl: &mut Rtnl, index: u32, fill: impl FnOnce(&mut LinkMessage)) -> Result<(), Refused> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    fill(&mut message);
    rtnl.change(RouteNetlinkMessage::SetLink(message), 0)
}

impl Before {
    /// The device in the container, and a socket there. By its index once that is known, whatever the container has called it since; until then
    /// the container has not run, and it is what has our name and its hardware address.
    fn find_inside(&self, net: &OwnedFd, record: &Record) -> Result<Option<(Rtnl, u32)>, EffectError> {
        let mut there = netns::within(net, Rtnl::open)??;
        let links = there.links().map_err(|r| r.error("list the links of the container"))?;
        let moved = record.outcome::<Inside>();
        let is_it = |link: &Found| match &moved {
            Some(moved) => link.index == moved.index,
            None => link.name == self.inside && link.mac == self.link.mac,
        };
        Ok(links.iter().find(|link| link.kind == self.kind && is_it(link)).map(|link| (there, link.index)))
    }

    /// The device on the host: where it was, or a physical one that the kernel has put back under the name that it had in the container.
    fn find_on_host(&self, device: &LinkName, links: Vec<Found>) -> Option<Found> {
        let is_it = |link: &Found| link.kind == self.kind && link.mac == self.link.mac;
        let called = |name: &str| links.iter().find(|link| link.name == name && is_it(link));
        let physical = || if self.kind.is_empty() { called(&self.inside) } else { None };
        called(device.as_str()).or_else(physical).cloned()
    }

    /// What the link itself was.
    fn link_again(&self, found: &Found, host: &mut Rtnl) -> Result<(), Refused> {
        let Seen { mtu, master, .. } = self.link;
        let master_is_there = master != 0 && host.link_by_index(master)?.is_some();
        set(host, found.index, |message| {
            if found.mtu != mtu {
                message.attributes.push(LinkAttribute::Mtu(mtu));
            }
            if found.master != master && master_is_there {
                message.attributes.push(LinkAttribute::Controller(master));
            }
        })
    }
}

impl EffectDef for MoveDevice {
    const KIND: &'static str = "device.move";

    fn examples(scratch: &Path) -> Vec<Self> {
        let (process, pin) = (Later::Handle(example_process()), scratch.join("netns"));
        let device = LinkName::parse("lcexample3").into_iter();
        let names = [None, LinkName::parse("data%d").ok()];
        device
            .flat_map(|device| {
                names.clone().map(|name| Self {
                    device: device.clone(),
                    name,
                    process: process.clone(),
                    pin: pin.clone(),
                })
            })
            .collect()
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let called = self.name.as_ref().map_or_else(String::new, |name| format!(" as {name}"));
        format!(
            "move network device {} into the network of {}{called}, with its addresses, and up",
            self.device, self.process
        )
    }

    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError> {
        let mut host = Rtnl::open()?;
        let found =
            host.link_by_name(self.device.as_str()).map_err(|r| r.error(format!("get link {}", self.device)))?;
        let link = found.ok_or_else(|| {
            EffectError::new(format!("there is no network device {} on the host", self.device)).help("see `ip link`")
        })?;
        let config = Config::of(&mut host, link.index)?;
        let net = self.netns(cx)?.ok_or_else(|| EffectError::new("the container's network namespace is gone"))?;
        let mut there = netns::within(net, Rtnl::open)??;
        let inside = self.choose(&there.links().map_err(|r| r.error("list the links of the container"))?)?;
        let kind = link.kind.clone();
        Ok(json!(Before { boot: boot_id().to_owned(), link: link.into(), kind, config, inside }))
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let before = Before::deserialize(before)
            .map_err(|e| EffectError::new(format!("what was before cannot be read: {e}")))?;
        let net = self.netns(cx)?.ok_or_else(|| EffectError::new("the container's network namespace is gone"))?;
        let moved = set(&mut Rtnl::open()?, before.link.index, |message| {
            message.attributes.push(LinkAttribute::NetNsFd(net.as_fd().as_raw_fd()));
            message.attributes.push(LinkAttribute::IfName(before.inside.clone()));
        });
        moved.map_err(|refused| {
            let fixed = refused.errno == libc::EINVAL;
            let error = refused.error(EffectDef::describe(self));
            if fixed {
                error.help(
                    "A device that belongs to its namespace (a bridge, a tunnel's own device, lo) cannot be moved.",
                )
            } else {
                error
            }
        })?;
        let mut there = netns::within(net, Rtnl::open)??;
        let failed = |r: Refused| r.error(format!("set up network device {} in the container", before.inside));
        let lost = || EffectError::new(format!("network device {} is gone right after it was moved", before.inside));
        let index = there.link_by_name(&before.inside).map_err(failed)?.ok_or_else(lost)?.index;
        before.config.give(&mut there, index, &self.device, &before.inside).map_err(failed)?;
        Ok(Applied::outcome(&Inside { index, name: before.inside }))
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        let Ok(before) = Before::deserialize(&record.before) else { return Ok(Undone::Done) };
        // After a reboot every device is where the kernel finds it, and no namespace of ours is there.
        if before.boot != boot_id() {
            return Ok(Undone::Done);
        }
        let answer = self.give_back(&before, record, cx);
        // It may go at any time, between two of our calls, too: a refusal is one only while the device is there.
        if matches!(self.find(&before, record, cx)?, Place::Nowhere) {
            let gone = format!("network device {} is gone: there is nothing to give back", self.device);
            (cx.output)(Said::Line(&gone));
            return Ok(Undone::Done);
        }
        answer.map(|()| Undone::Done)
    }
}
