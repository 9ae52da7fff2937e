//! `rootfs.mount`: the container's root, with everything that is mounted in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use lifecycle_engine::types::{HostPath, Mode};
use lifecycle_engine::value::{Handle, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entry::{Common, lies_in_own, mount_around, plan_mount, plan_seal};
use crate::effects::inside::{InVolume, RootBind, RootDevice, RootFile, RootOpen, RootPropagation, RootSymlink, clean};
use crate::mounts::{Api, Propagation};
use crate::outcomes::DetachedMount;
use crate::process::label::require_selinux;
use crate::spec::{Device, DeviceType, Mount, Namespace, RootfsPropagation};

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
    /// The SELinux context of the file systems that are mounted: linux.mountLabel. Those that are bound keep theirs, and proc and sysfs have none.
    #[serde(default)]
    pub label: Option<String>,
    /// Bind mounts that the host's side has made: the `prepared` of a `rootfs.sources`, which `process.clone` must have been given too.
    #[serde(default)]
    pub prepared: BTreeMap<String, Handle<DetachedMount>>,
    /// The site has the caller's mounts, and a `rootfs.sources` has made a mount of the root there: nothing else of them is changed.
    #[serde(default)]
    pub shares_mounts: bool,
    /// File systems that are read-only once they are filled, a tmpfs and what is on /dev, stay writable: a `rootfs.protect` gets the same mounts.
    #[serde(default)]
    pub seal_later: bool,
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
        if input.label.is_some() {
            require_selinux("label", "linux.mountLabel", cx.facts)?;
        }
        let relative_root = input.root.as_ref().is_some_and(|root| root.is_relative());
        let base = if relative_root || input.mounts.iter().any(Mount::binds) || input.bundle.is_some() {
            base(input.bundle.as_ref(), cx)?
        } else {
            PathBuf::new()
        };
        if input.shares_mounts {
            let root =
                input.root.as_ref().ok_or_else(|| PlanError::new("root", "is missing: there is nothing to share"))?;
            let asked = input.propagation.map(|asked| asked.parts().0);
            if asked.is_some_and(|asked| asked != Propagation::Private) {
                return Err(PlanError::new("propagation", "can only be private: the mounts are the caller's")
                    .help("give the container a mount namespace of its own, or take linux.rootfsPropagation out"));
            }
            cx.effect(RootOpen { source: base.join(&root.0) });
        } else if let Some(root) = &input.root {
            let (propagation, recursive) = outside(input.propagation);
            cx.effect(RootPropagation { propagation, recursive });
            let slave = input.propagation.is_some_and(|asked| asked.parts().0 == Propagation::Slave);
            cx.effect(RootBind { source: base.join(&root.0), slave, api });
        } else if input.propagation.is_some() {
            return Err(PlanError::new("propagation", "belongs to a `root` of the container's own")
                .help("an overlay of the host's root never passes mounts on; leave it out"));
        }
        let root = input.root.as_ref().map(|root| base.join(&root.0));
        let common = Common {
            own_root: input.root.is_none(),
            base: &base,
            root: root.as_deref(),
            shares_mounts: input.shares_mounts,
            namespaces: &input.namespaces,
            api,
            label: input.label.as_deref(),
            prepared: Some(&input.prepared),
        };
        (0..input.mounts.len()).try_for_each(|index| plan_mount(&input.mounts, index, common, cx))?;
        // As in runc: a /dev of the host's, bound, is not ours to fill. Where the image's symlinks put one there is found out when it is resolved.
        let dev_is_bound =
            input.mounts.iter().any(|mount| clean(&mount.destination) == Path::new("/dev") && mount.binds());
        if input.default_devices && !dev_is_bound {
            default_devices(api, is_own(&input, Path::new("/dev/null")), cx);
        }
        // The link to the container's own devpts is there already: the host's multiplexer would open terminals of the host.
        let is_link = |device: &Device| !dev_is_bound && clean(&device.path) == Path::new("/dev/ptmx");
        for (index, device) in input.devices.iter().enumerate().filter(|(_, device)| !is_link(device)) {
            cx.effect(
                device_effect(device, &input, api)
                    .map_err(|message| PlanError::new(format!("devices.{index}"), message))?,
            );
        }
        for (path, content) in input.files.clone() {
            let own = is_own(&input, &clean(Path::new(&path)));
            cx.effect(RootFile { path: path.into(), content, mode: Mode(0o644), own });
        }
        if !input.seal_later {
            plan_seal(&input.mounts, api, cx);
        }
        Ok(Output {})
    }
}

/// How the host's mounts travel into the mount namespace before the container's root is taken out of it. All of them, or a volume that lies on
/// another mount than the root would still pass events to the host; and what is unbindable could not become the container's root.
pub(super) fn outside(asked: Option<RootfsPropagation>) -> (Propagation, bool) {
    match asked.map(RootfsPropagation::parts) {
        None | Some((Propagation::Slave, _)) => (Propagation::Slave, true),
        Some((Propagation::Private | Propagation::Unbindable, _)) => (Propagation::Private, true),
        Some(shared) => shared,
    }
}

/// Whether what is made at the path goes with the container: in a throw-away root, or in a mount that is made for the container and binds nothing
/// of the host's.
fn is_own(input: &Input, path: &Path) -> bool {
    lies_in_own(input.root.is_none(), &input.mounts, path)
}

/// What relative paths are relative to.
pub(super) fn base(bundle: Option<&HostPath>, cx: &mut Planning) -> Result<PathBuf, PlanError> {
    match bundle {
        Some(bundle) if bundle.is_absolute() => Ok(bundle.0.clone()),
        Some(bundle) => Ok(crate::fs::working_directory(cx)?.join(&bundle.0)),
        None => crate::fs::working_directory(cx),
    }
}

/// config-linux.md, "Default Devices", and the links of runtime-linux.md, "Dev symbolic links".
pub(super) fn default_devices(api: Api, own: bool, cx: &mut Planning) {
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        let path = Path::new("/dev").join(name);
        let host = Some(path.clone());
        let (kind, mode, owner) = (DeviceType::C, Mode(0o666), (0, 0));
        let in_volume = InVolume::Leave;
        cx.effect(RootDevice { path, kind, major, minor, mode, owner, host, api, own, in_volume });
    }
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let (path, target) = (Path::new("/dev").join(name), target.into());
        cx.effect(RootSymlink { path, target, own, in_volume: InVolume::Leave });
    }
}

fn device_effect(device: &Device, input: &Input, api: Api) -> Result<RootDevice, String> {
    let path = clean(&device.path);
    let own = is_own(input, &path);
    // In a directory of the host's it is made only where the config itself puts it there.
    let around = path.parent().and_then(|parent| mount_around(&input.mounts, parent));
    let in_volume = if around.is_some_and(Mount::binds) { InVolume::Make } else { InVolume::Refuse };
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
    Ok(RootDevice { path, kind: device.kind, major, minor, mode, owner, host, api, own, in_volume })
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
    use crate::testing::{plan_inside, plan_with, refused_inside, refused_with};
    use serde_json::{Value, json};

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

    /// A host with SELinux and the newer calls.
    fn modern() -> Value {
        json!({ "lsm": ["selinux"], "kernel.mount_api": true, "kernel.mount_setattr": true })
    }

    #[test]
    fn new_file_systems_get_the_mount_label_and_others_keep_theirs() {
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        let mounts = json!([
            { "destination": "/proc", "type": "proc" },
            { "destination": "/data", "type": "tmpfs" },
            { "destination": "/own", "type": "tmpfs", "options": ["context=a:b:c:s0"] },
            { "destination": "/host", "type": "bind", "source": "/srv" },
        ]);
        let input = json!({ "root": "/r", "mounts": mounts, "label": label, "default_devices": false });
        let planned = plan_with::<MountRoot>(modern(), input.clone());
        let labels: Vec<&Value> = planned.data[2..].iter().map(|data| &data["label"]).collect();
        // Which of them the kernel is told is for the effect to say: it knows what each file system takes.
        assert_eq!(labels, [&json!(label), &json!(label), &json!(label), &Value::Null]);
        let refused = refused_inside::<MountRoot>(input);
        assert_eq!(refused.field, "label");
        assert!(refused.message.contains("fact `lsm`"), "{refused}");
    }

    #[test]
    fn a_remount_changes_a_mount_before_it() {
        let mounts = json!([
            { "destination": "/data", "type": "tmpfs", "options": ["size=1m"] },
            { "destination": "/data/", "options": ["remount", "ro", "size=2m"] },
        ]);
        let planned = plan_inside::<MountRoot>(json!({ "mounts": mounts, "default_devices": false }));
        assert_eq!(planned.effects[1], "change the mount on /data (remount,ro,size=2m)");
        let alone = json!([{ "destination": "/data", "options": ["remount", "ro"] }]);
        assert_eq!(refused_inside::<MountRoot>(json!({ "mounts": alone })).field, "mounts.0.options");
        let of_the_host = json!([
            { "destination": "/data", "type": "bind", "source": "/srv" },
            { "destination": "/data", "options": ["remount", "sync"] },
        ]);
        assert_eq!(refused_inside::<MountRoot>(json!({ "mounts": of_the_host })).field, "mounts.1.options");
    }

    #[test]
    fn what_is_filled_is_read_only_last() {
        let mounts = json!([
            { "destination": "/dev", "type": "tmpfs", "options": ["ro", "mode=755"] },
            { "destination": "/dev/shm", "type": "tmpfs" },
            { "destination": "/run", "type": "tmpfs", "options": ["ro"] },
            { "destination": "/run", "options": ["remount", "rw"] },
            { "destination": "/mnt", "type": "bind", "source": "/srv", "options": ["ro"] },
        ]);
        let input = |later| json!({ "mounts": mounts, "default_devices": false, "seal_later": later });
        let planned = plan_inside::<MountRoot>(input(false));
        assert_eq!(planned.effects.last().unwrap(), "make what was mounted on /dev read-only, now that it is filled");
        let later: Vec<bool> = planned.data[..3].iter().map(|data| data["sealed_later"] == true).collect();
        assert_eq!(later, [true, false, false]);
        assert_eq!(plan_inside::<MountRoot>(input(true)).effects.len(), planned.effects.len() - 1);
    }

    #[test]
    fn a_source_that_a_mount_before_makes_is_one_of_the_root() {
        let mounts = json!([
            { "destination": "/early", "type": "bind", "source": "/b/rootfs/data", "options": ["rbind"] },
            { "destination": "/data", "type": "tmpfs" },
            { "destination": "/late", "type": "bind", "source": "rootfs/./data/sub", "options": ["rbind"] },
        ]);
        let input = json!({ "root": "rootfs", "bundle": "/b", "mounts": mounts, "default_devices": false });
        let planned = plan_inside::<MountRoot>(input);
        let binds: Vec<&str> = planned.effects.iter().filter_map(|line| line.strip_prefix("bind ")).collect();
        assert!(binds[0].starts_with("/b/rootfs/data on /early (rbind)"), "{binds:?}");
        assert!(binds[1].starts_with("/data/sub of the root on /late (rbind)"), "{binds:?}");
    }

    #[test]
    fn id_maps_need_newer_calls() {
        let own = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
        let mount = json!({ "destination": "/x", "source": "/srv", "options": ["bind", "idmap"], "uidMappings": own, "gidMappings": own });
        let input = json!({ "mounts": [mount], "default_devices": false });
        let error = refused_inside::<MountRoot>(input.clone());
        assert!(error.message.contains("fact kernel.mount_setattr"), "{error}");
        assert_eq!(plan_with::<MountRoot>(modern(), input).effects.len(), 1);
        // Without ids to map.
        let mount = json!({ "destination": "/x", "source": "/srv", "options": ["bind", "idmap"] });
        let error = refused_with::<MountRoot>(modern(), json!({ "mounts": [mount] }));
        assert!(error.message.contains("uidMappings"), "{error}");
        // Only mount(2) has a flag for it.
        let mount = json!({ "destination": "/x", "type": "tmpfs", "options": ["iversion"] });
        let planned = plan_with::<MountRoot>(modern(), json!({ "mounts": [mount], "default_devices": false }));
        assert_eq!(planned.data[0]["api"], "classic");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        for (mount, field) in [
            (json!({ "destination": "/x", "options": ["bind", "tmpcopyup"] }), "mounts.0.options"),
            (json!({ "destination": "/x", "type": "proc", "options": ["tmpcopyup"] }), "mounts.0.options"),
            (json!({ "destination": "/x", "type": "bind" }), "mounts.0.source"),
            (json!({ "destination": "/a/..", "type": "tmpfs" }), "mounts.0.destination"),
            (json!({ "destination": "/x/../proc/sys", "type": "tmpfs" }), "mounts.0.destination"),
            (json!({ "destination": "/proc", "type": "tmpfs" }), "mounts.0.destination"),
            (json!({ "destination": "/sys/fs/cgroup", "type": "cgroup" }), "mounts.0.type"),
        ] {
            assert_eq!(refused_inside::<MountRoot>(json!({ "mounts": [mount] })).field, field);
        }
        assert_eq!(refused_inside::<MountRoot>(json!({ "propagation": "shared" })).field, "propagation");
        let device = json!({ "path": "/dev/x", "type": "c", "major": 1 });
        assert_eq!(refused_inside::<MountRoot>(json!({ "devices": [device] })).field, "devices.0");
    }
}
