//! `rootfs.mount`: the container's root, with everything that is mounted in it.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use lifecycle_engine::types::{HostPath, Mode};
use lifecycle_engine::value::Text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::inside::{
    ALLOWED_IN_PROC, CgroupHierarchy, RootBind, RootCgroup, RootDevice, RootFile, RootMount, RootPropagation,
    RootSymlink, clean,
};
use crate::facts::CgroupLayout;
use crate::mounts::{Api, Options, Propagation};
use crate::spec::{Device, DeviceType, Mount, Namespace, NamespaceType, RootfsPropagation};

/// Makes a directory of the host the container's root, then mounts in it what the runtime-spec lists, in its order, and fills `/dev`: the six
/// devices and the links that every container has, and those that are asked for.
///
/// Mountpoints that are missing are made. In a root that lies on a disk they stay: to remove one could tear a mount out of a container that
/// still runs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The root file system on the host. Null: the one that a `rootfs.overlay` before this step has made.
    #[serde(default)]
    pub root: Option<HostPath>,
    /// What relative paths are relative to: the bundle. Null: the caller's working directory.
    #[serde(default)]
    pub bundle: Option<HostPath>,
    /// Mounts, as in config.json.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Devices beside the default ones, as in config.json.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Whether to make the default devices and links in `/dev`.
    #[serde(default = "yes")]
    pub default_devices: bool,
    /// Files to write, by their path in the container; their mode is 0644. Those that are there are replaced.
    #[serde(default)]
    pub files: BTreeMap<String, Text>,
    /// How mounts travel between the host and the container. Null: from the host into the container alone.
    #[serde(default)]
    pub propagation: Option<RootfsPropagation>,
    /// The container's namespaces, as given to `process.clone`: whether it has a cgroup namespace of its own decides how it sees its cgroups.
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
}

fn yes() -> bool {
    true
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct MountRoot;

impl Step for MountRoot {
    const KIND: &'static str = "rootfs.mount";
    const CHANGES: &'static str = "Mounts in the site's mount namespace. In a root on a disk: mountpoints, devices and links that were missing; they are kept.";
    const REVERSED_BY: &'static str = "Mounts go with the namespace.";
    const PLACE: Place = Place::Inside;
    const AFTER: After = &["rootfs.overlay"];
    const EXAMPLES: &'static [Example] = &[Example {
        about: "Mounts and a file of the container's own, over the host's files.",
        plan: "plan: example/rootfs-mount
steps:
  init: { uses: process.clone, with: { new: [pid, mount], stdio: log } }
  root: { uses: rootfs.overlay, site: \"${init}\" }
  mounts:
    uses: rootfs.mount
    site: \"${init}\"
    needs: [root]
    with:
      mounts:
        - { destination: /srv, type: tmpfs, source: tmpfs, options: [nosuid, nodev, mode=700] }
        - { destination: /mnt, type: bind, source: /etc, options: [rbind, ro] }
      default_devices: false
      files: { /etc/motd: \"Nothing here outlives the container.\\n\" }
  pivot: { uses: rootfs.pivot, site: \"${init}\", needs: [mounts] }
  exec: { uses: process.exec, site: \"${init}\", needs: [pivot], with: { args: [/bin/cat, /etc/motd, /proc/self/mounts] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let api = Api::choose(cx.facts);
        let base = base(&input, cx)?;
        if let Some(root) = &input.root {
            let (propagation, recursive) =
                input.propagation.map_or((Propagation::Slave, true), RootfsPropagation::parts);
            cx.effect(RootPropagation { propagation, recursive });
            cx.effect(RootBind { source: base.join(&root.0), api });
        } else if input.propagation.is_some() {
            return Err(PlanError::new("propagation", "belongs to a `root` of the container's own")
                .help("an overlay of the host's root never passes mounts on; leave it out"));
        }
        for index in 0..input.mounts.len() {
            plan_mount(&input.mounts, index, input.root.is_none(), &base, &input.namespaces, api, cx)?;
        }
        // As in runc: a /dev of the host's, bound, is not ours to fill.
        let dev_is_bound =
            input.mounts.iter().any(|mount| clean(&mount.destination) == Path::new("/dev") && is_bind(mount));
        if input.default_devices && !dev_is_bound {
            default_devices(api, is_own(&input, Path::new("/dev/null")), cx);
        }
        // The link to the container's own devpts is there already: the host's multiplexer would open terminals of the host.
        let is_link = |device: &Device| !dev_is_bound && clean(&device.path) == Path::new("/dev/ptmx");
        for (index, device) in input.devices.iter().enumerate().filter(|(_, device)| !is_link(device)) {
            cx.effect(
                device_effect(device, is_own(&input, &clean(&device.path)), api)
                    .map_err(|message| PlanError::new(format!("devices.{index}"), message))?,
            );
        }
        for (path, content) in input.files.clone() {
            let own = is_own(&input, &clean(Path::new(&path)));
            cx.effect(RootFile { path: path.into(), content, mode: Mode(0o644), own });
        }
        Ok(Output {})
    }
}

/// Whether what is made at the path goes with the container: in a throw-away root, or in a mount that is made for the container and binds nothing
/// of the host's. The innermost mount decides, of two in one place the later one.
fn is_own(input: &Input, path: &Path) -> bool {
    lies_in_own(input.root.is_none(), &input.mounts, path)
}

/// See [`is_own`]; `root` says whether the root itself goes with the container.
fn lies_in_own(root: bool, mounts: &[Mount], path: &Path) -> bool {
    let around = mounts.iter().filter(|mount| path.starts_with(clean(&mount.destination)));
    let innermost = around.max_by_key(|mount| clean(&mount.destination).components().count());
    innermost.map_or(root, |mount| !is_bind(mount))
}

/// What relative paths are relative to.
fn base(input: &Input, cx: &mut Planning) -> Result<PathBuf, PlanError> {
    let relative = |path: &Option<HostPath>| path.as_ref().is_none_or(|path| path.is_relative());
    if !relative(&input.bundle) {
        return Ok(input.bundle.as_ref().map(|bundle| bundle.0.clone()).unwrap_or_default());
    }
    let cwd = crate::fs::working_directory(cx)?;
    Ok(input.bundle.as_ref().map_or(cwd.clone(), |bundle| cwd.join(&bundle.0)))
}

fn is_bind(mount: &Mount) -> bool {
    mount.kind.as_deref() == Some("bind") || mount.options.iter().any(|option| option == "bind" || option == "rbind")
}

/// Plans one of the mounts. `own_root`: the root goes with the container.
pub(super) fn plan_mount(
    mounts: &[Mount],
    index: usize,
    own_root: bool,
    base: &Path,
    namespaces: &[Namespace],
    api: Api,
    cx: &mut Planning,
) -> Result<(), PlanError> {
    let mount = &mounts[index];
    let wrong = |field: &str, message: String| PlanError::new(format!("mounts.{index}.{field}"), message);
    let destination = clean(&mount.destination);
    let own_place = destination.parent().is_some_and(|parent| lies_in_own(own_root, &mounts[..index], parent));
    if destination == Path::new("/") {
        return Err(
            wrong("destination", "nothing can be mounted on / itself".into()).help("the root is what `root` says")
        );
    }
    let options = Options::parse(&mount.options).map_err(|message| wrong("options", message))?;
    if matches!(mount.kind.as_deref(), Some("cgroup" | "cgroup2")) && options.bind.is_none() {
        return plan_cgroup(mount, namespaces, api, cx).map_err(|message| wrong("type", message));
    }
    let in_proc = destination.starts_with("/proc")
        && !(destination == Path::new("/proc") && mount.kind.as_deref() == Some("proc"));
    if in_proc && !ALLOWED_IN_PROC.iter().any(|path| destination == Path::new(path)) {
        return Err(wrong(
            "destination",
            format!(
                "nothing may be mounted on {}: it could hide what the runtime writes to /proc",
                destination.display()
            ),
        ));
    }
    let mut effect = RootMount {
        destination,
        kind: mount.kind.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
        uid_mappings: mount.uid_mappings.clone(),
        gid_mappings: mount.gid_mappings.clone(),
        api,
        keeps_mountpoint: !own_place,
    };
    effect.normalise();
    if effect.kind.is_none() {
        let source = effect.source.take().ok_or_else(|| wrong("source", "a bind mount needs a source".into()))?;
        effect.source = Some(without_dots(&base.join(source)));
    }
    // As normalised: an id map may have come in.
    let options = Options::parse(&effect.options).map_err(|message| wrong("options", message))?;
    if options.id_map.is_some() && api == Api::Classic {
        let message = "this kernel has no id-mapped mounts (facts kernel.mount_api, kernel.mount_setattr)".into();
        return Err(wrong("options", message).help("they need Linux 5.12"));
    }
    cx.effect(effect);
    Ok(())
}

/// A path of the host without `.`: `..` stays, since what is before it may be a symlink.
fn without_dots(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

fn plan_cgroup(mount: &Mount, namespaces: &[Namespace], api: Api, cx: &mut Planning) -> Result<(), String> {
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
    cx.effect(RootCgroup {
        destination: clean(&mount.destination),
        options,
        v1: layout.v1.iter().map(CgroupHierarchy::from).collect(),
        v2: layout.v2.map(|unified| unified.mount),
        own_namespace,
        api,
    });
    Ok(())
}

/// config-linux.md, "Default Devices", and the links of runtime-linux.md, "Dev symbolic links".
pub(super) fn default_devices(api: Api, own: bool, cx: &mut Planning) {
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        let path = Path::new("/dev").join(name);
        let host = Some(path.clone());
        let (kind, mode, owner) = (DeviceType::C, Mode(0o666), (0, 0));
        cx.effect(RootDevice { path, kind, major, minor, mode, owner, host, api, own });
    }
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        cx.effect(RootSymlink { path: Path::new("/dev").join(name), target: target.into(), own });
    }
}

fn device_effect(device: &Device, own: bool, api: Api) -> Result<RootDevice, String> {
    let path = clean(&device.path);
    let number = |number: Option<i64>, name: &str| match number {
        Some(number) => u32::try_from(number).map_err(|_| format!("{name} {number} is not a device number")),
        None if device.kind == DeviceType::P => Ok(0),
        None => Err(format!("{} needs a {name} number", path.display())),
    };
    if device.kind == DeviceType::A {
        return Err("`a` is for cgroup rules; write `b`, `c`, `u` or `p`".into());
    }
    let (major, minor) = (number(device.major, "major")?, number(device.minor, "minor")?);
    let owner = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    // Podman and containerd write the bits of the file's type along with the permissions.
    let mode = Mode(device.file_mode.unwrap_or(0o666) & 0o7777);
    let host = (device.kind != DeviceType::P).then(|| path.clone());
    Ok(RootDevice { path, kind: device.kind, major, minor, mode, owner, host, api, own })
}

impl RootfsPropagation {
    /// The kind, and whether for all mounts below too.
    pub(crate) fn parts(self) -> (Propagation, bool) {
        match self {
            Self::Shared => (Propagation::Shared, false),
            Self::Slave => (Propagation::Slave, false),
            Self::Private => (Propagation::Private, false),
            Self::Unbindable => (Propagation::Unbindable, false),
            Self::Rshared => (Propagation::Shared, true),
            Self::Rslave => (Propagation::Slave, true),
            Self::Rprivate => (Propagation::Private, true),
            Self::Runbindable => (Propagation::Unbindable, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan_inside, refused_inside};
    use serde_json::json;

    #[test]
    fn a_bundle_as_runc_generates_it_is_planned_in_order() {
        let spec = crate::spec::Spec::parse(include_str!("../spec/fixtures/runc.json")).unwrap();
        let mounts: Vec<Mount> =
            spec.mounts.into_iter().filter(|mount| mount.kind.as_deref() != Some("cgroup")).collect();
        let planned = plan_inside::<MountRoot>(json!({ "root": "rootfs", "bundle": "/b", "mounts": mounts }));
        assert_eq!(
            planned.effects[..4],
            [
                "make / and every mount below slave",
                "use /b/rootfs as the root file system",
                "mount proc on /proc; its mountpoint, if it has to be made, stays",
                "mount tmpfs on /dev (nosuid,strictatime,mode=755,size=65536k); its mountpoint, if it has to be made, stays",
            ]
        );
        assert_eq!(
            planned.effects.last().unwrap(),
            "make symlink /dev/stderr -> /proc/self/fd/2 in the root, kept if it is there"
        );
        // Without the facts of a newer kernel, the calls of an older one.
        assert_eq!(planned.data[1]["api"], json!("classic"));
    }

    #[test]
    fn relative_sources_are_the_bundles() {
        let mounts = json!([{ "destination": "data", "type": "none", "source": "./data", "options": ["rbind"] }]);
        let planned = plan_inside::<MountRoot>(json!({ "bundle": "b", "mounts": mounts, "default_devices": false }));
        assert_eq!(planned.effects, ["bind /work/b/data on /data (rbind)"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        for (mount, field) in [
            (json!({ "destination": "/x", "options": ["bind", "tmpcopyup"] }), "mounts.0.options"),
            (json!({ "destination": "/x", "type": "bind" }), "mounts.0.source"),
            (json!({ "destination": "/a/..", "type": "tmpfs" }), "mounts.0.destination"),
            (json!({ "destination": "/x/../proc/sys", "type": "tmpfs" }), "mounts.0.destination"),
            (json!({ "destination": "/proc", "type": "bind", "source": "/fake" }), "mounts.0.destination"),
            (json!({ "destination": "/sys/fs/cgroup", "type": "cgroup" }), "mounts.0.type"),
        ] {
            assert_eq!(refused_inside::<MountRoot>(json!({ "mounts": [mount] })).field, field);
        }
        assert_eq!(refused_inside::<MountRoot>(json!({ "propagation": "shared" })).field, "propagation");
        let device = json!({ "path": "/dev/x", "type": "c", "major": 1 });
        assert_eq!(refused_inside::<MountRoot>(json!({ "devices": [device] })).field, "devices.0");
    }
}
