//! `rootfs.sources`: bind mounts that only the host's side can make.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entry::{made_before, normalise_options, without_dots};
use super::mount::{base, outside};
use crate::effects;
use crate::effects::inside::clean;
use crate::effects::prepare::{IdMap, PrepareMount};
use crate::mounts::{Api, Options};
use crate::outcomes::DetachedMount;
use crate::spec::{IdMapping, Mount, Namespace, NamespaceType, RootfsPropagation};

/// Makes the bind mounts of a container in a user namespace, with their ids mapped where that is asked for, before its first process is there to
/// take them over: that one may not map the ids of the host's file systems, nor look into directories that are closed to it. Other containers
/// need nothing of it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Mounts, as in config.json.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// The root file system on the host. What a mount before makes in it is not there on the host's side: init binds that itself.
    #[serde(default)]
    pub root: Option<HostPath>,
    /// What relative sources are relative to: the bundle. Null: the caller's working directory.
    #[serde(default)]
    pub bundle: Option<HostPath>,
    /// The container's namespaces, as given to `process.clone`.
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
    /// The user ids of its user namespace: those of an id-mapped mount that has none of its own.
    #[serde(default)]
    pub uid_mappings: Vec<IdMapping>,
    /// The group ids.
    #[serde(default)]
    pub gid_mappings: Vec<IdMapping>,
    /// How mounts travel between the host and the container, as given to `rootfs.mount`.
    #[serde(default)]
    pub propagation: Option<RootfsPropagation>,
    /// The container has the caller's mounts: its root is bound on itself there, so that what is mounted in it can be taken back with that.
    #[serde(default)]
    pub shares_mounts: bool,
}

/// What has been made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// By the mount's place in the list. `process.clone` hands them over, `rootfs.mount` attaches them.
    pub prepared: BTreeMap<String, Handle<DetachedMount>>,
}

/// The step.
pub struct Sources;

impl Step for Sources {
    const KIND: &'static str = "rootfs.sources";
    const CHANGES: &'static str = "Bind mounts that are attached nowhere, as descriptors of the engine; with `shares_mounts` the root's, in the caller's mounts.";
    const REVERSED_BY: &'static str =
        "They go with their descriptors; the root's is unmounted, with all that is mounted in it.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A directory of the host's root, in a container whose root is somebody else there, and whose files are its own all the same.",
        plan: "plan: example/rootfs-sources
steps:
  sources:
    uses: rootfs.sources
    with:
      mounts: [{ destination: /mnt, type: bind, source: /etc, options: [rbind, ro, idmap] }]
      namespaces: [{ type: user }]
      uid_mappings: [{ containerID: 0, hostID: 100000, size: 65536 }]
      gid_mappings: [{ containerID: 0, hostID: 100000, size: 65536 }]
  init:
    uses: process.clone
    with:
      new: [user, pid, network, mount]
      uid_mappings: [{ containerID: 0, hostID: 100000, size: 65536 }]
      gid_mappings: [{ containerID: 0, hostID: 100000, size: 65536 }]
      mounts: \"${sources.prepared}\"
      stdio: log
  root: { uses: rootfs.overlay, site: \"${init}\", with: { user_namespace: true } }
  mounts:
    uses: rootfs.mount
    site: \"${init}\"
    needs: [root]
    with:
      mounts: [{ destination: /mnt, type: bind, source: /etc, options: [rbind, ro, idmap] }]
      prepared: \"${sources.prepared}\"
      namespaces: [{ type: user }]
      default_devices: false
  pivot: { uses: rootfs.pivot, site: \"${init}\", needs: [mounts] }
  exec:
    uses: process.exec
    site: \"${init}\"
    needs: [pivot]
    with: { args: [/usr/bin/stat, -c, \"%u\", /mnt/passwd] }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root", "kernel.mount_setattr"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let mut prepared = BTreeMap::new();
        if input.shares_mounts {
            bind_root(input.root.as_ref(), input.bundle.as_ref(), cx)?;
            return Ok(Output { prepared });
        }
        let Some(user) = input.namespaces.iter().find(|namespace| namespace.kind == NamespaceType::User) else {
            return Ok(Output { prepared });
        };
        if !may_prepare(cx) {
            return Ok(Output { prepared });
        }
        let base = base(input.bundle.as_ref(), cx)?;
        let root = input.root.as_ref().map(|root| base.join(&root.0));
        let (propagation, _) = outside(input.propagation);
        for (index, mount) in input.mounts.iter().enumerate().filter(|(_, mount)| mount.binds()) {
            let wrong = |field: &str, message: String| PlanError::new(format!("mounts.{index}.{field}"), message);
            let mut options = mount.options.clone();
            normalise_options(mount, &mut options);
            let parsed = Options::parse(&options).map_err(|message| wrong("options", message))?;
            // It changes one that is there.
            if parsed.remount {
                continue;
            }
            let source = mount.source.as_ref().ok_or_else(|| wrong("source", "a bind mount needs a source".into()))?;
            let source = without_dots(&base.join(source));
            if made_before(&input.mounts[..index], root.as_deref(), &source).is_some() {
                continue;
            }
            let made = cx.effect(PrepareMount {
                source,
                destination: mount.destination.clone(),
                options,
                propagation,
                id_map: parsed.id_map.map(|_| ids_of(mount, user, &input.uid_mappings, &input.gid_mappings)),
            });
            prepared.insert(index.to_string(), made.handle(""));
        }
        Ok(Output { prepared })
    }
}

fn bind_root(root: Option<&HostPath>, bundle: Option<&HostPath>, cx: &mut Planning) -> Result<(), PlanError> {
    let root = root.ok_or_else(|| PlanError::new("root", "is missing: `shares_mounts` makes a mount of it"))?;
    let root = base(bundle, cx)?.join(&root.0);
    if clean(&root) == Path::new("/") {
        return Err(PlanError::new("root", "is the caller's own, and the container has the caller's mounts")
            .help("give the container a root of its own, or a mount namespace"));
    }
    let options = ["rbind", "rprivate"].map(str::to_owned).into();
    let (api, reused_ids) = (Api::choose(cx.facts), !cx.facts.has("kernel.unique_mount_ids"));
    let (target, source) = (root.clone(), Some(root));
    cx.effect(effects::Mount { target, kind: None, source, options, api, reused_ids, with_all_on_it: true });
    Ok(())
}

/// Whoever may not make mounts in the namespace that he is in leaves them to the container's own init. What the host's mounts forbid is locked for
/// that one, too: it has them in a namespace of its own.
fn may_prepare(cx: &mut Planning) -> bool {
    let caps: Vec<String> = cx.facts.get("caps.effective").unwrap_or_default();
    let may = |wanted: &str| caps.iter().any(|cap| cap == wanted);
    may("CAP_SYS_ADMIN") && may("CAP_SYS_CHROOT") && Api::choose(cx.facts) == Api::Detached
}

/// A mount's own maps, else those of the container's user namespace.
fn ids_of(mount: &Mount, user: &Namespace, uids: &[IdMapping], gids: &[IdMapping]) -> IdMap {
    if !mount.uid_mappings.is_empty() {
        return IdMap::Ranges { uid: mount.uid_mappings.clone(), gid: mount.gid_mappings.clone() };
    }
    let joined: Option<PathBuf> = user.path.clone();
    joined.map_or_else(|| IdMap::Ranges { uid: uids.to_vec(), gid: gids.to_vec() }, IdMap::Namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan_with, refused_with};
    use serde_json::{Value, json};

    fn root() -> Value {
        json!({ "caps.effective": ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"], "kernel.mount_api": true, "kernel.mount_setattr": true })
    }

    fn input(user: Value) -> Value {
        json!({
            "mounts": [
                { "destination": "/proc", "type": "proc" },
                { "destination": "/a", "type": "bind", "source": "/srv/a", "options": ["ro"] },
                { "destination": "/b", "source": "/srv/b", "options": ["rbind", "idmap"] },
                { "destination": "/c", "source": "/srv/c", "options": ["bind"],
                  "uidMappings": [{ "containerID": 0, "hostID": 7, "size": 1 }],
                  "gidMappings": [{ "containerID": 0, "hostID": 8, "size": 1 }] },
            ],
            "namespaces": [{ "type": "mount" }, user],
            "uid_mappings": [{ "containerID": 0, "hostID": 1000, "size": 10 }],
            "gid_mappings": [{ "containerID": 0, "hostID": 2000, "size": 10 }],
        })
    }

    #[test]
    fn bind_mounts_of_a_user_namespace_are_made_on_the_host() {
        let planned = plan_with::<Sources>(root(), input(json!({ "type": "user" })));
        assert_eq!(
            planned.effects,
            [
                "bind /srv/a for /a (bind,ro), locked and attached nowhere yet",
                "bind /srv/b for /b (rbind,idmap), locked and attached nowhere yet; ids mapped",
                "bind /srv/c for /c (bind,idmap), locked and attached nowhere yet; ids mapped",
            ]
        );
        assert_eq!(planned.data[1]["id_map"]["ranges"]["gid"][0]["hostID"], 2000);
        assert_eq!(planned.data[2]["id_map"]["ranges"]["uid"][0]["hostID"], 7);
        let indexes: Vec<&String> = planned.output["prepared"].as_object().unwrap().keys().collect();
        assert_eq!(indexes, ["1", "2", "3"]);
    }

    #[test]
    fn the_ids_of_a_joined_namespace_are_its_own() {
        let planned = plan_with::<Sources>(root(), input(json!({ "type": "user", "path": "/proc/7/ns/user" })));
        assert_eq!(planned.data[1]["id_map"]["namespace"], "/proc/7/ns/user");
    }

    #[test]
    fn in_the_callers_mounts_the_root_is_made_one() {
        let input = json!({ "root": "rootfs", "bundle": "/b", "shares_mounts": true });
        assert_eq!(plan_with::<Sources>(root(), input).effects, ["bind /b/rootfs on /b/rootfs (rbind,rprivate)"]);
        let error = refused_with::<Sources>(root(), json!({ "root": "/b/..", "shares_mounts": true }));
        assert_eq!(error.field, "root");
    }

    #[test]
    fn what_a_mount_before_makes_is_left_to_init() {
        let mut input = input(json!({ "type": "user" }));
        input["root"] = json!("/b/rootfs");
        input["mounts"][2]["source"] = json!("/b/rootfs/a/below");
        let planned = plan_with::<Sources>(root(), input);
        let indexes: Vec<&String> = planned.output["prepared"].as_object().unwrap().keys().collect();
        assert_eq!(indexes, ["1", "3"]);
    }

    #[test]
    fn without_a_user_namespace_or_the_right_to_there_is_nothing_to_prepare() {
        assert!(plan_with::<Sources>(root(), input(json!({ "type": "uts" }))).effects.is_empty());
        assert!(plan_with::<Sources>(json!({}), input(json!({ "type": "user" }))).effects.is_empty());
    }
}
