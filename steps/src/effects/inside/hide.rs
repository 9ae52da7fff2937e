//! What a root that stays below another one must not leave in a mount namespace.
//!
//! Who makes a user namespace may mount a procfs or a sysfs of his own in it only where one is visible in whole already: mount_too_revealing() in the
//! kernel's fs/namespace.c looks at every mount of the namespace, and not at whether somebody could reach it. After pivot_root(2) the container's own
//! is the only one, masked as the config says. Without, the host's are there too, and nothing masks them. runc takes them away as well.

use crate::mounts::Propagation;
use crate::mounts::api::{self, magic_link};
use crate::mounts::table::{self, Mount};
use lifecycle_engine::error::EffectError;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Unmounts every procfs and sysfs that is seen in whole, but those in the container's root; what may not be unmounted is covered.
pub(super) fn hide_pseudo_file_systems(root: BorrowedFd) -> Result<(), EffectError> {
    let all = table::read()?;
    let own = own_and_around(&all, table::number(root)?);
    let is_pseudo = |mount: &&Mount| mount.root == Path::new("/") && matches!(mount.kind.as_str(), "proc" | "sysfs");
    // What lies on another one is listed behind it and goes first; and last goes what this program itself needs to name a mount by a descriptor.
    let (needed, others): (Vec<&Mount>, Vec<&Mount>) = all
        .iter()
        .rev()
        .filter(is_pseudo)
        .filter(|m| !own.contains(&m.id))
        .partition(|m| m.target == Path::new("/proc"));
    for found in others {
        loop {
            let now = table::read()?;
            // It may have gone with what it was mounted on.
            let is_there = now.iter().any(|mount| mount.id == found.id);
            if !is_there || hide_one(found, &now, &own)? != Hidden::WhatWasOver {
                break;
            }
        }
    }
    for found in needed {
        let hidden = loop {
            match hide_one(found, &all, &own)? {
                Hidden::WhatWasOver => {}
                hidden => break hidden,
            }
        };
        // What is below that is covered as well.
        if hidden == Hidden::ByACover {
            break;
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Hidden {
    /// It is unmounted.
    Itself,
    /// An empty file system lies on it.
    ByACover,
    /// Something that kept it out of reach, which the kernel does not mind, is unmounted.
    WhatWasOver,
}

/// Takes a mount away or covers it; or takes away what lies over it.
fn hide_one(found: &Mount, all: &[Mount], own: &BTreeSet<u64>) -> Result<Hidden, EffectError> {
    // As far as the way to it leads.
    let reached = found.target.ancestors().find_map(|path| open(path).ok()).ok_or_else(|| out_of_reach(found))?;
    let number = table::number(&reached)?;
    if number == found.id {
        return hide(&reached, &found.target);
    }
    let over =
        all.iter().find(|mount| mount.id == number && !own.contains(&number)).ok_or_else(|| out_of_reach(found))?;
    let top = open(&over.target).map_err(|_| out_of_reach(found))?;
    if table::number(&top)? != number {
        return Err(out_of_reach(found));
    }
    match hide(&top, &over.target)? {
        Hidden::ByACover if over.target == found.target => Ok(Hidden::ByACover),
        Hidden::ByACover => Err(out_of_reach(found)),
        _ => Ok(Hidden::WhatWasOver),
    }
}

fn out_of_reach(found: &Mount) -> EffectError {
    EffectError::new(format!("the {} on {} cannot be taken away", found.kind, found.target.display()))
        .help("do without --no-pivot here: a user namespace in the container could mount one that nothing masks")
}

/// The mounts in the container's root, itself, and those that it is in.
fn own_and_around(all: &[Mount], root: u64) -> BTreeSet<u64> {
    let parent =
        |id: u64| all.iter().find(|mount| mount.id == id).map(|mount| mount.parent).filter(|parent| *parent != id);
    let chain = |id: u64| std::iter::successors(Some(id), move |id| parent(*id));
    let below = all.iter().map(|mount| mount.id).filter(|id| chain(*id).any(|around| around == root));
    below.chain(chain(root)).collect()
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Takes a mount away, or covers it where a user namespace may not unmount what it has from the host.
fn hide(top: &OwnedFd, path: &Path) -> Result<Hidden, EffectError> {
    let link = magic_link(top.as_fd());
    // Unmounted while it still passes events on, it would be unmounted on the host too.
    api::classic_propagation(&link, Propagation::Slave, true)?;
    match unmount(&link, UnmountFlags::DETACH) {
        Ok(()) => Ok(Hidden::Itself),
        Err(Errno::INVAL | Errno::PERM) => {
            mount("tmpfs", &link, "tmpfs", MountFlags::RDONLY, None).map_err(|errno| {
                EffectError::call(format!("mount(\"tmpfs\", \"{}\")", path.display()), errno)
                    .help("the host's procfs and sysfs have to be covered where pivot_root is not used")
            })?;
            Ok(Hidden::ByACover)
        }
        Err(errno) => Err(EffectError::call(format!("umount2(\"{}\", MNT_DETACH)", path.display()), errno)),
    }
}
