//! Network devices of the host that are lent to a container.

mod config;
mod former;
mod traits;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::libc;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::config::Config;
use self::traits::Traits;
use super::example_process;
use super::link::Seen;
use super::wait::resolve;
use crate::facts::boot_id;
use crate::net::identity::{Devices, Identity};
use crate::net::name::LinkName;
use crate::net::netlink::{Found, Refused, Rtnl};
use crate::net::netns::{self, Netns};
use crate::outcomes::Process;

/// Moves a device of the host into a container's network namespace, with its permanent global addresses, and brings it up there (config-linux.md,
/// "Network Devices").
///
/// Undo gives it back under its old name, with its addresses and routes, and as it was otherwise, whatever the container has made of it. Until
/// that can be done the namespace stays pinned. The spec leaves devices to the kernel, because a runtime may not be there
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
    /// Absent in the journals of former builds, which knew a device by what a container can change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traits: Option<Traits>,
}

/// The device in the container.
#[derive(Debug, Serialize, Deserialize)]
struct Inside {
    index: u32,
    name: String,
}

/// Where a device is, with a socket there.
enum Place {
    /// In the container, or in a namespace that the container made.
    Inside(Rtnl, Found),
    Host(Rtnl, Found),
    Nowhere,
}

/// What it is called on its way back, until nothing is in the way of its own name: with `%d`, so that the kernel finds a free one.
const ON_ITS_WAY: &str = "lcback%d";

/// How long a physical device may take from a dying namespace to the machine's first one. The kernel does it in its own time.
const PATIENCE: Duration = Duration::from_secs(5);

impl MoveDevice {
    fn wanted(&self) -> &LinkName {
        self.name.as_ref().unwrap_or(&self.device)
    }

    /// The name that it will have among those that are there.
    fn choose(&self, taken: &[Found]) -> Result<String, EffectError> {
        let is_free = |name: &str| taken.iter().all(|link| link.name != *name);
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

    /// Where it is now: in the container, on the host, in another namespace that a process is in, or nowhere, as when somebody deletes it, or as
    /// the other end of a cable goes.
    fn find(&self, before: &Before, record: &Record, cx: &Cx) -> Result<Place, EffectError> {
        let pinned = self.netns(cx)?;
        let Some(traits) = &before.traits else { return former::find(self, before, record, pinned) };
        if let Some(net) = &pinned
            && let Some((there, found)) = netns::within(net, || find_here(traits.identity))??
        {
            return Ok(Place::Inside(there, found));
        }
        if let Some((host, found)) = find_here(traits.identity)? {
            return Ok(Place::Host(host, found));
        }
        for net in netns::all() {
            // A namespace that is not to be entered, or is ending, holds nothing that could be fetched.
            if let Ok(Ok(Some((there, found)))) = netns::within(net, || find_here(traits.identity)) {
                return Ok(Place::Inside(there, found));
            }
        }
        Ok(Place::Nowhere)
    }

    /// The same, but a physical device is waited for: the kernel never destroys it.
    fn find_at_last(&self, before: &Before, record: &Record, cx: &Cx) -> Result<Place, EffectError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let place = self.find(before, record, cx)?;
            if !matches!(place, Place::Nowhere) || !before.is_physical() || Instant::now() >= deadline {
                return Ok(place);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn vanished(&self) -> EffectError {
        EffectError::new(format!("network device {} vanishes while it is moved", self.device))
    }

    fn give_back(&self, before: &Before, record: &Record, cx: &mut Cx) -> Result<(), EffectError> {
        let mut place = self.find_at_last(before, record, cx)?;
        if let Place::Inside(there, found) = &mut place {
            self.bring_back(there, found)?;
            place = self.find(before, record, cx)?;
        }
        let Place::Host(mut host, found) = place else { return Ok(()) };
        let failed = |r: Refused| r.error(format!("give back network device {}", self.device));
        before.link_again(&found, &mut host).map_err(failed)?;
        if found.name != self.device.as_str() {
            self.rename(&found, &mut host)?;
        }
        if let Some(traits) = &before.traits {
            for name in traits.restore_names(&found, &mut host).map_err(failed)? {
                let name = name.to_string_lossy();
                cx.warn(&format!("network device {} is no longer called {name}: another one is", self.device));
            }
        }
        before.config.restore(&mut host, found.index, before.link.up).map_err(failed)
    }

    /// Moves it to the host, under whatever name is free there: its own may be another's by now, and what a container calls it must not keep it
    /// there.
    fn bring_back(&self, there: &mut Rtnl, found: &Found) -> Result<(), EffectError> {
        let host = netns::own()?;
        let failed = |r: Refused| r.error(format!("move network device {} back to the host", self.device));
        traits::down(there, found.index).map_err(failed)?;
        traits::drop_names(found, there).map_err(failed)?;
        let moved = set(there, found.index, |message| {
            message.attributes.push(LinkAttribute::NetNsFd(host.as_raw_fd()));
            message.attributes.push(LinkAttribute::IfName(ON_ITS_WAY.to_owned()));
        });
        moved.map_err(failed)
    }

    fn rename(&self, found: &Found, host: &mut Rtnl) -> Result<(), EffectError> {
        traits::down(host, found.index)
            .and_then(|()| {
                set(host, found.index, |m| m.attributes.push(LinkAttribute::IfName(self.device.to_string())))
            })
            .map_err(|refused| {
                let taken = refused.errno == libc::EEXIST;
                let now = found.name.to_string_lossy();
                let error = refused.error(format!("give network device {}, now {now}, its name back", self.device));
                if taken {
                    error.help(format!(
                        "There is another {} on the host by now: rename it, then undo again.",
                        self.device
                    ))
                } else {
                    error
                }
            })
    }

    /// What is to be said, or be an error, of a device that is in no namespace that there is.
    fn lost(&self, before: &Before, cx: &mut Cx) -> Result<Undone, EffectError> {
        let device = &self.device;
        if before.traits.is_some() && before.is_physical() {
            return Err(EffectError::new(format!("network device {device} is in no network namespace of any process"))
                .help("The container has moved it into a namespace of its own, which a file or a descriptor keeps: end who has it, then undo again."));
        }
        cx.warn(&format!(
            "network device {device} is gone, and cannot be given back: it was destroyed by the container, with a namespace that the container had moved it to, or with its other end"
        ));
        Ok(Undone::Done)
    }
}

/// The device in the network namespace that the calling thread is in, and a socket there.
fn find_here(identity: Identity) -> Result<Option<(Rtnl, Found)>, EffectError> {
    let Some(index) = Devices::here()?.index(identity)? else { return Ok(None) };
    let mut rtnl = Rtnl::open()?;
    let found = rtnl.link_by_index(index).map_err(|r| r.error("get a link by its index"))?;
    Ok(found.map(|found| (rtnl, found)))
}

fn set(rtnl: &mut Rtnl, index: u32, fill: impl FnOnce(&mut LinkMessage)) -> Result<(), Refused> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    fill(&mut message);
    rtnl.change(RouteNetlinkMessage::SetLink(message), 0)
}

impl Before {
    /// The kernel destroys no physical device with its namespace.
    fn is_physical(&self) -> bool {
        self.kind.is_empty()
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
        })?;
        self.traits.as_ref().map_or(Ok(()), |traits| traits.restore(found, &self.link, host))
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
        let identity = Devices::here()?.identity(&link.name)?;
        let traits = identity.map(|identity| Traits::of(identity, &link)).ok_or_else(|| self.vanished())?;
        let config = Config::of(&mut host, link.index)?;
        let net = self.netns(cx)?.ok_or_else(|| EffectError::new("the container's network namespace is gone"))?;
        let mut there = netns::within(net, Rtnl::open)??;
        let inside = self.choose(&there.links().map_err(|r| r.error("list the links of the container"))?)?;
        let kind = link.kind.clone();
        Ok(json!(Before { boot: boot_id().to_owned(), link: link.into(), kind, config, inside, traits: Some(traits) }))
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
        let failed = |r: Refused| r.error(format!("set up network device {} in the container", before.inside));
        let identity = before.traits.as_ref().ok_or_else(|| self.vanished())?.identity;
        let moved = netns::within(net, || find_here(identity))??;
        let (mut there, Found { index, .. }) = moved.ok_or_else(|| self.vanished())?;
        before.config.give(&mut there, index, &self.device, &before.inside).map_err(failed)?;
        Applied::outcome(&Inside { index, name: before.inside })
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
            return self.lost(&before, cx);
        }
        answer.map(|()| Undone::Done)
    }

    fn holds_back(&self) -> bool {
        true
    }
}
