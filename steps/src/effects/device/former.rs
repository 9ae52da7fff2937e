//! Finding a device by the journal of a former build, which has no identity of it.

use std::os::fd::OwnedFd;

use lifecycle_engine::effect::Record;
use lifecycle_engine::error::EffectError;

use super::{Before, Inside, MoveDevice, Place};
use crate::net::netlink::{Found, Rtnl};
use crate::net::netns;

/// By its index in the container once that is known; by our name for it and its hardware address otherwise.
pub(super) fn find(
    effect: &MoveDevice,
    before: &Before,
    record: &Record,
    pinned: Option<OwnedFd>,
) -> Result<Place, EffectError> {
    if let Some(net) = pinned {
        let mut there = netns::within(net, Rtnl::open)??;
        let links = there.links().map_err(|r| r.error("list the links of the container"))?;
        let moved = record.outcome::<Inside>();
        let is_it = |link: &Found| match &moved {
            Some(moved) => link.index == moved.index,
            None => link.name == *before.inside && link.mac == before.link.mac,
        };
        if let Some(found) = links.into_iter().find(|link| link.kind == before.kind && is_it(link)) {
            return Ok(Place::Inside(there, found));
        }
    }
    let mut host = Rtnl::open()?;
    let links = host.links().map_err(|r| r.error("list the links"))?;
    let is_it = |link: &Found| link.kind == before.kind && link.mac == before.link.mac;
    let called = |name: &str| links.iter().find(|link| link.name == *name && is_it(link));
    // On its way back, or a physical one that the kernel has put back under the name that it had in the container.
    let on_its_way = || links.iter().find(|link| link.name.to_string_lossy().starts_with("lcback") && is_it(link));
    let physical = || if before.is_physical() { called(&before.inside) } else { None };
    let found = called(effect.device.as_str()).or_else(on_its_way).or_else(physical);
    Ok(found.cloned().map_or(Place::Nowhere, |found| Place::Host(host, found)))
}
