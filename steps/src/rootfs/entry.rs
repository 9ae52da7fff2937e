//! One entry of config.json's `mounts`, as an effect.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::Planning;
use lifecycle_engine::value::Handle;

use crate::effects::inside::{ALLOWED_IN_PROC, CgroupHierarchy, RootCgroup, RootMount, RootRemount, RootSeal, clean};
use crate::facts::CgroupLayout;
use crate::mounts::{Api, Options};
use crate::outcomes::DetachedMount;
use crate::spec::{Mount, Namespace, NamespaceType};
use crate::sys::mount::RDONLY;

/// Whether what is made at the path goes with the container; `root` says whether the root itself does.
/// The innermost mount decides, of two in one place the later one.
pub(super) fn lies_in_own(root: bool, mounts: &[Mount], path: &Path) -> bool {
    mount_around(mounts, path).map_or(root, |mount| !mount.binds())
}

/// The mount in which the path lies, by the destinations' text.
pub(super) fn mount_around<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let around = mounts.iter().filter(|mount| path.starts_with(clean(&mount.destination)));
    around.max_by_key(|mount| clean(&mount.destination).components().count())
}

/// What all mounts of a container have in common.
#[derive(Clone, Copy)]
pub(super) struct Common<'a> {
    /// The root goes with the container.
    pub own_root: bool,
    /// What relative sources are relative to.
    pub base: &'a Path,
    /// Where the root is on the host, if it is a directory there.
    pub root: Option<&'a Path>,
    /// It is mounted in the caller's mounts.
    pub shares_mounts: bool,
    /// The container's namespaces.
    pub namespaces: &'a [Namespace],
    /// Which calls to use.
    pub api: Api,
    /// The SELinux context of new file systems.
    pub label: Option<&'a str>,
    /// Bind mounts that the host's side has made, by their place in the list.
    pub prepared: Option<&'a BTreeMap<String, Handle<DetachedMount>>>,
}

/// Plans one of the mounts.
pub(super) fn plan_mount(mounts: &[Mount], index: usize, common: Common, cx: &mut Planning) -> Result<(), PlanError> {
    let mount = &mounts[index];
    let wrong = |field: &str, message: String| PlanError::new(format!("mounts.{index}.{field}"), message);
    let destination = clean(&mount.destination);
    let own_place = destination.parent().is_some_and(|parent| lies_in_own(common.own_root, &mounts[..index], parent));
    if destination == Path::new("/") {
        return Err(
            wrong("destination", "nothing can be mounted on / itself".into()).help("the root is what `root` says")
        );
    }
    let mut written = mount.options.clone();
    normalise_options(mount, &mut written);
    // Where the mounts around are the container's own, all are slaves of the host's already.
    if common.shares_mounts && mount.binds() && !mount.remounts() {
        written.insert(0, "rslave".into());
    }
    let options = Options::parse(&written).map_err(|message| wrong("options", message))?;
    if options.remount {
        return plan_remount(mounts, index, written, common, cx).map_err(|message| wrong("options", message));
    }
    performable(mount, &options, common).map_err(|message| wrong("options", message))?;
    if matches!(mount.kind.as_deref(), Some("cgroup" | "cgroup2")) && options.bind.is_none() {
        return plan_cgroup(mount, common, cx).map_err(|message| wrong("type", message));
    }
    // Whether what is bound on /proc itself is a procfs is seen when it is opened.
    let in_proc = destination.starts_with("/proc")
        && !(destination == Path::new("/proc") && (mount.kind.as_deref() == Some("proc") || options.bind.is_some()));
    if in_proc && !ALLOWED_IN_PROC.iter().any(|path| destination == Path::new(path)) {
        return Err(wrong(
            "destination",
            format!(
                "nothing may be mounted on {}: it could hide what the runtime writes to /proc",
                destination.display()
            ),
        ));
    }
    let binds = options.bind.is_some();
    let source = match &mount.source {
        Some(source) if binds => Some(without_dots(&common.base.join(source))),
        None if binds => return Err(wrong("source", "a bind mount needs a source".into())),
        source => source.clone(),
    };
    let in_root =
        source.as_deref().filter(|_| binds).and_then(|source| made_before(&mounts[..index], common.root, source));
    let source_in_root = in_root.is_some();
    let prepared = common.prepared.and_then(|prepared| prepared.get(&index.to_string()));
    cx.effect(RootMount {
        destination,
        kind: mount.kind.clone().filter(|_| !binds),
        source: in_root.or(source),
        source_in_root,
        options: written,
        uid_mappings: mount.uid_mappings.clone(),
        gid_mappings: mount.gid_mappings.clone(),
        api: if options.needs_classic() { Api::Classic } else { common.api },
        keeps_mountpoint: !own_place,
        label: common.label.filter(|_| !binds).map(str::to_owned),
        sealed_later: is_sealed(mounts, index),
        prepared: prepared.filter(|_| binds).cloned(),
    });
    Ok(())
}

/// The path in the root of what is bound, where one of the mounts before has made it: such a source is on the host something else, or nothing.
pub(super) fn made_before(earlier: &[Mount], root: Option<&Path>, source: &Path) -> Option<PathBuf> {
    let below = clean(source).strip_prefix(clean(root?)).ok()?.to_owned();
    let source = Path::new("/").join(below);
    let is_on = |mount: &&Mount| !mount.remounts() && source.starts_with(clean(&mount.destination));
    earlier.iter().find(is_on).map(|_| source.clone())
}

/// Whether a file system becomes read-only once it is filled: a tmpfs, and what is on /dev, as with runc. One that a later entry changes is as that
/// entry says, from there on.
fn is_sealed(mounts: &[Mount], index: usize) -> bool {
    let mount = &mounts[index];
    let destination = clean(&mount.destination);
    let is_filled = mount.kind.as_deref() == Some("tmpfs") || destination == Path::new("/dev");
    let is_changed = || mounts[index + 1..].iter().any(|m| m.remounts() && clean(&m.destination) == destination);
    is_filled
        && !mount.binds()
        && !mount.remounts()
        && Options::parse(&mount.options).is_ok_and(|options| options.set & RDONLY != 0)
        && !is_changed()
}

/// Makes those mounts read-only, where there are any.
pub(super) fn plan_seal(mounts: &[Mount], api: Api, cx: &mut Planning) {
    let sealed = (0..mounts.len()).filter(|index| is_sealed(mounts, *index));
    let destinations: Vec<PathBuf> = sealed.map(|index| clean(&mounts[index].destination)).collect();
    if !destinations.is_empty() {
        cx.effect(RootSeal { destinations, api });
    }
}

/// The options of a mount with what its other fields imply: type `bind` is a bind mount, and maps of its own make it an id-mapped one.
pub(super) fn normalise_options(mount: &Mount, options: &mut Vec<String>) {
    if mount.kind.as_deref() == Some("bind") && !options.iter().any(|option| option == "bind" || option == "rbind") {
        options.insert(0, "bind".into());
    }
    if !mount.uid_mappings.is_empty() && !options.iter().any(|option| option == "idmap" || option == "ridmap") {
        options.push("idmap".into());
    }
}

/// What this host, or this container, cannot have.
fn performable(mount: &Mount, options: &Options, common: Common) -> Result<(), String> {
    if options.copy_up && mount.kind.as_deref() != Some("tmpfs") {
        return Err("tmpcopyup fills a tmpfs; it has no meaning for another file system".into());
    }
    if options.id_map.is_some() && common.api == Api::Classic {
        return Err("an id-mapped mount needs mount_setattr, Linux 5.12 (fact kernel.mount_setattr)".into());
    }
    // config.md: "an error MUST be returned".
    let has_users = common.namespaces.iter().any(|namespace| namespace.kind == NamespaceType::User);
    if options.id_map.is_some() && mount.uid_mappings.is_empty() && !has_users {
        return Err("idmap needs uidMappings and gidMappings of the mount, or a user namespace of the container".into());
    }
    Ok(())
}

/// `remount` changes one of the mounts before it.
fn plan_remount(
    mounts: &[Mount],
    index: usize,
    options: Vec<String>,
    common: Common,
    cx: &mut Planning,
) -> Result<(), String> {
    let destination = clean(&mounts[index].destination);
    let earlier =
        mounts[..index].iter().rev().find(|mount| clean(&mount.destination) == destination && !mount.remounts());
    let Some(earlier) = earlier else {
        return Err(format!("no mount before this one is on {}, so there is none to change", destination.display()));
    };
    let parsed = Options::parse(&options)?;
    if earlier.binds() && (!parsed.data.is_empty() || !parsed.super_flags.is_empty()) {
        return Err("a bind mount shares its file system with the host, whose options cannot be changed here".into());
    }
    cx.effect(RootRemount { destination, options, api: common.api });
    Ok(())
}

/// A path of the host without `.`: `..` stays, since what is before it may be a symlink.
pub(super) fn without_dots(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

fn plan_cgroup(mount: &Mount, common: Common, cx: &mut Planning) -> Result<(), String> {
    let Common { namespaces, api, .. } = common;
    let layout: CgroupLayout = cx.facts.get("cgroup.layout").unwrap_or_default();
    if layout.v1.is_empty() && layout.v2.is_none() {
        return Err("the host has no cgroup hierarchy mounted; leave the mount out".into());
    }
    let own_namespace = namespaces.iter().any(|namespace| namespace.kind == NamespaceType::Cgroup);
    let user_namespace = namespaces.iter().any(|namespace| namespace.kind == NamespaceType::User);
    let mut options = mount.options.clone();
    // CVE-2023-25809: bound into a user namespace, the caller's own cgroups would be the container's to change.
    if user_namespace && !own_namespace && !options.iter().any(|option| option == "ro") {
        options.push("ro".into());
    }
    if common.shares_mounts {
        options.insert(0, "rslave".into());
    }
    cx.effect(RootCgroup {
        destination: clean(&mount.destination),
        options,
        v1: layout.v1.iter().map(CgroupHierarchy::from).collect(),
        // Beside version 1 it is not shown, as with runc.
        v2: layout.v2.filter(|_| layout.v1.is_empty()).map(|unified| unified.mount),
        own_namespace,
        label: common.label.map(str::to_owned),
        api,
    });
    Ok(())
}
