//! Checkpoint and restore through CRIU, criu(8): a container's processes as files.

pub mod dump;
pub mod finish;
pub mod restore;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::{Facts, FileKind};
use lifecycle_engine::step::Planning;
use lifecycle_engine::types::{HostPath, Mode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::criu::Mountpoint;
use crate::effects::inside::clean;
use crate::effects::{Directory, Existing, Symlink};
use crate::facts::{CRIU, CgroupLayout, CgroupMode, Criu};
use crate::spec::{Mount, Namespace, NamespaceType};

/// What both take, and give to criu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CriuOptions {
    /// The criu program: a path, or a name to be looked for.
    #[serde(default = "criu")]
    pub criu: String,
    /// The image: a directory.
    pub images: HostPath,
    /// Where criu keeps its log and temporary files. Absent: the image.
    #[serde(default)]
    pub work: Option<HostPath>,
    /// An earlier image that this one is on top of, relative to it.
    #[serde(default)]
    pub parent: Option<PathBuf>,
    /// Open TCP connections are saved.
    #[serde(default)]
    pub tcp_established: bool,
    /// TCP connections that are being made are left out.
    #[serde(default)]
    pub tcp_skip_in_flight: bool,
    /// Unix sockets may lead out of the container.
    #[serde(default)]
    pub ext_unix_sk: bool,
    /// The terminal is the caller's.
    #[serde(default)]
    pub shell_job: bool,
    /// Memory is fetched when it is needed.
    #[serde(default)]
    pub lazy_pages: bool,
    /// File locks are saved.
    #[serde(default)]
    pub file_locks: bool,
    /// How cgroups are saved: soft, full, strict or ignore.
    #[serde(default = "soft")]
    pub manage_cgroups_mode: String,
    /// Namespaces that are made but not filled, such as `net`.
    #[serde(default)]
    pub empty_ns: Vec<String>,
    /// Memory that an earlier image holds too is left out of that.
    #[serde(default)]
    pub auto_dedup: bool,
}

fn criu() -> String {
    Criu::USUAL.to_owned()
}

fn soft() -> String {
    "soft".to_owned()
}

/// What a container has from outside: criu finds it under the same name in the image.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    /// The config's mounts.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// What relative sources of those are relative to.
    #[serde(default)]
    pub bundle: Option<HostPath>,
    /// The config's masked paths: files among them are covered by /dev/null.
    #[serde(default)]
    pub masked_paths: Vec<PathBuf>,
    /// The config's namespaces: those with a path are another's.
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
    /// The container's cgroups (`cgroup.create`'s `paths`).
    #[serde(default)]
    pub cgroups: BTreeMap<String, PathBuf>,
}

/// The name of the file in the image that tells what the process's stdio was; as runc's, whose images can be restored so.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";

impl CriuOptions {
    /// Refused before anything is touched, where criu cannot work. One that is named is asked when the run begins: a look at a plan executes
    /// nothing that the plan names.
    fn check(&self, facts: &mut Facts) -> Result<(), PlanError> {
        if self.criu == Criu::USUAL {
            let found = facts.get::<Criu>(CRIU);
            Criu::check(found.as_ref(), &self.criu)
                .map_err(|(what, help)| PlanError::new("options.criu", what).help(help))?;
        }
        if !["soft", "full", "strict", "ignore"].contains(&self.manage_cgroups_mode.as_str()) {
            return Err(PlanError::new(
                "options.manage_cgroups_mode",
                format!("{:?} is none of soft, full, strict, ignore", self.manage_cgroups_mode),
            ));
        }
        if let Some(kind) = self.empty_ns.iter().find(|kind| !["network", "net"].contains(&kind.as_str())) {
            return Err(PlanError::new(
                "options.empty_ns",
                format!("criu makes no empty {kind} namespace: network alone"),
            ));
        }
        if self.parent.as_ref().is_some_and(|parent| parent.is_absolute()) {
            return Err(PlanError::new("options.parent", "the earlier image has to be named relative to the new one"));
        }
        Ok(())
    }

    /// With absolute directories: undo may come from another one.
    fn absolute(mut self, cx: &mut Planning) -> Result<Self, PlanError> {
        self.images = HostPath(crate::fs::absolute(&self.images, cx)?);
        self.work = self.work.map(|work| crate::fs::absolute(&work, cx).map(HostPath)).transpose()?;
        Ok(self)
    }

    /// What a directory for the log and temporary files is made of.
    fn work(&self) -> Option<PathBuf> {
        self.work.as_ref().map(|work| work.0.clone())
    }

    /// Where the log is.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.work.as_ref().unwrap_or(&self.images).0.join(name)
    }

    /// The arguments that dump and restore have in common, but for the first two words.
    fn arguments(&self, log: &str) -> Vec<String> {
        let mut words: Vec<String> = vec!["--images-dir".into(), self.images.to_string()];
        if let Some(work) = &self.work {
            words.extend(["--work-dir".into(), work.to_string()]);
        }
        words.extend(["--log-file", log, "-v4"].map(str::to_owned));
        let flags = [
            (self.tcp_established, "--tcp-established"),
            (self.tcp_skip_in_flight, "--skip-in-flight"),
            (self.ext_unix_sk, "--ext-unix-sk"),
            (self.shell_job, "--shell-job"),
            (self.lazy_pages, "--lazy-pages"),
            (self.file_locks, "--file-locks"),
            (self.auto_dedup, "--auto-dedup"),
            (!self.empty_ns.is_empty(), "--empty-ns=net"),
        ];
        words.extend(flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag.to_owned()));
        words.push(format!("--manage-cgroups={}", self.manage_cgroups_mode));
        words
    }
}

/// A directory with every hierarchy of cgroups, for criu to use those and mount none: mounted anew, a hierarchy of version 2 would lose its
/// options on the whole machine.
fn yard(cx: &mut Planning) -> Vec<String> {
    let layout: CgroupLayout = cx.facts.get("cgroup.layout").unwrap_or_default();
    let v1 = layout.v1.iter().map(|hierarchy| {
        let name = hierarchy.controllers.join(",");
        (name.strip_prefix("name=").unwrap_or(&name).to_owned(), hierarchy.mount.clone())
    });
    let links: Vec<_> = v1.chain(layout.v2.map(|unified| ("unified".to_owned(), unified.mount))).collect();
    if links.is_empty() {
        return Vec::new();
    }
    let yard = cx.run.dir().join("cgroups");
    cx.effect(Directory {
        path: yard.clone(),
        mode: Mode(0o700),
        owner: None,
        existing: Existing::Refuse,
        keep: false,
    });
    for (name, target) in links {
        cx.effect(Symlink { path: yard.join(name), target });
    }
    vec!["--cgroup-yard".to_owned(), yard.display().to_string()]
}

impl Outside {
    /// What a bind mount binds.
    fn bound(&self, mount: &Mount) -> Option<PathBuf> {
        let source = mount.source.as_ref().filter(|_| mount.binds() && !mount.remounts())?;
        Some(self.bundle.as_ref().map_or_else(|| source.clone(), |bundle| bundle.0.join(source)))
    }

    /// Where the mounts hang that lie in the root file system or in something that is bound. What is in other file systems is in the image.
    fn mountpoints(&self, rootfs: &Path) -> Vec<Mountpoint> {
        let point = |(index, mount): (usize, &Mount)| {
            let at = clean(&mount.destination);
            let around = self.mounts[..index].iter().map(|mount| (clean(&mount.destination), mount));
            let around = around.filter(|(around, _)| at.parent().is_some_and(|parent| parent.starts_with(around)));
            let (within, at) = match around.max_by_key(|(around, _)| around.components().count()) {
                None => (rootfs.to_owned(), at),
                Some((around, mount)) => {
                    (self.bound(mount)?, Path::new("/").join(at.strip_prefix(around).unwrap_or(&at)))
                }
            };
            Some(Mountpoint { within, at, source: self.bound(mount) })
        };
        self.mounts.iter().enumerate().filter(|(_, mount)| !mount.remounts()).filter_map(point).collect()
    }

    /// Each mount that comes from outside: where the container has it, and what it is on the host.
    fn external(&self, facts: &mut Facts) -> Vec<(PathBuf, PathBuf)> {
        let bound = self.mounts.iter().filter_map(|mount| Some((clean(&mount.destination), self.bound(mount)?)));
        let mut all: Vec<(PathBuf, PathBuf)> = bound.collect();
        // In a cgroup namespace of its own it has the hierarchies themselves, which criu mounts; else what was bound of them.
        let own = self.namespaces.iter().any(|namespace| namespace.kind == NamespaceType::Cgroup);
        let bound = self.mounts.iter().filter(|mount| !own && mount.kind.as_deref() == Some("cgroup"));
        let layout: CgroupLayout = facts.get("cgroup.layout").unwrap_or_default();
        for mount in bound {
            let at = |controller: &str| match (layout.mode, layout.v1_of(controller), &layout.v2) {
                (CgroupMode::V2, ..) => Some(mount.destination.clone()),
                (_, Some(hierarchy), _) => Some(mount.destination.join(hierarchy.mount.file_name()?)),
                (_, None, Some(unified)) => Some(mount.destination.join(unified.mount.file_name()?)),
                (_, None, None) => None,
            };
            all.extend(self.cgroups.iter().filter_map(|(controller, dir)| Some((at(controller)?, dir.clone()))));
        }
        all.sort();
        all.dedup();
        let is_file = |path: &&PathBuf| facts.kind(path).is_ok_and(|kind| kind != FileKind::Directory);
        let masked = self.masked_paths.iter().filter(is_file);
        all.extend(masked.map(|path| (path.clone(), PathBuf::from("/dev/null"))));
        all
    }

    /// The container's cgroup in each hierarchy, as `--cgroup-root` takes it: the image may name another.
    fn roots(&self, facts: &mut Facts) -> Vec<String> {
        let layout: CgroupLayout = facts.get("cgroup.layout").unwrap_or_default();
        let below = |dir: &Path, mount: &Path| dir.strip_prefix(mount).ok().map(|path| Path::new("/").join(path));
        let root = |(controller, dir): (&String, &PathBuf)| {
            if controller.is_empty() {
                // Without a controller it stands for every hierarchy, so where others are its path is left as it is.
                let unified = layout.v2.as_ref().filter(|_| layout.mode == CgroupMode::V2)?;
                return Some(below(dir, &unified.mount)?.display().to_string());
            }
            Some(format!("{controller}:{}", below(dir, &layout.v1_of(controller)?.mount)?.display()))
        };
        self.cgroups.iter().filter_map(root).collect()
    }

    /// The namespaces that belong to another, which criu can leave alone: of networks and of process ids.
    fn joined(&self) -> Vec<(NamespaceType, &Path)> {
        let joined = self.namespaces.iter().filter_map(|n| Some((n.kind, n.path.as_deref()?)));
        joined.filter(|(kind, _)| matches!(kind, NamespaceType::Network | NamespaceType::Pid)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle_engine::facts::{FileFact, Recorded};
    use serde_json::json;

    fn options() -> CriuOptions {
        serde_json::from_value(json!({ "images": "/images" })).unwrap()
    }

    fn with(criu: serde_json::Value) -> Facts {
        let mut given = Recorded::default();
        given.host.insert("criu:criu".into(), criu);
        Facts::fixed(given)
    }

    #[test]
    fn where_criu_cannot_work_it_is_said_why() {
        let able = json!({ "version": "3.17", "problems": [] });
        assert!(options().check(&mut with(able.clone())).is_ok());
        let error = options().check(&mut with(json!(null))).unwrap_err().to_string();
        assert!(error.contains("there is no program \"criu\""), "{error}");
        let unable = json!({ "version": "3.17", "problems": ["vdso: Unexpected rt vDSO area bounds"] });
        let error = options().check(&mut with(unable)).unwrap_err().to_string();
        assert!(error.contains("CRIU 3.17 cannot work on this machine: vdso: Unexpected"), "{error}");
        // Nothing is asked of one that is named.
        let named = CriuOptions { criu: "/nosuch/criu".into(), ..options() };
        assert!(named.check(&mut with(json!(null))).is_ok());
        for wrong in
            [json!({ "manage_cgroups_mode": "hard" }), json!({ "empty_ns": ["pid"] }), json!({ "parent": "/abs" })]
        {
            let mut fields = json!({ "images": "/images" });
            fields.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
            let options: CriuOptions = serde_json::from_value(fields).unwrap();
            assert!(options.check(&mut with(able.clone())).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_option_is_a_word_for_criu() {
        let all = json!({
            "images": "/i", "work": "/w", "tcp_established": true, "tcp_skip_in_flight": true, "ext_unix_sk": true, "shell_job": true,
            "lazy_pages": true, "file_locks": true, "auto_dedup": true, "empty_ns": ["network"], "manage_cgroups_mode": "full",
        });
        let options: CriuOptions = serde_json::from_value(all).unwrap();
        assert_eq!(
            options.arguments("dump.log").join(" "),
            "--images-dir /i --work-dir /w --log-file dump.log -v4 --tcp-established --skip-in-flight --ext-unix-sk --shell-job \
             --lazy-pages --file-locks --auto-dedup --empty-ns=net --manage-cgroups=full"
        );
    }

    #[test]
    fn mountpoints_lie_in_the_root_or_in_what_is_bound() {
        let outside: Outside = serde_json::from_value(json!({
            "bundle": "/bundle",
            "mounts": [
                { "destination": "/proc", "type": "proc" },
                { "destination": "/dev/", "type": "tmpfs" },
                { "destination": "/dev/pts", "type": "devpts" },
                { "destination": "/data", "source": "/srv", "options": ["rbind"] },
                { "destination": "/data/a/file", "type": "bind", "source": "hosts" },
                { "destination": "/dev/shm/x", "type": "bind", "source": "/x" },
                { "destination": "/proc", "options": ["remount", "ro"] },
            ],
        }))
        .unwrap();
        let point = |within: &str, at: &str, source: Option<&str>| Mountpoint {
            within: within.into(),
            at: at.into(),
            source: source.map(PathBuf::from),
        };
        let wanted = [
            point("/root", "/proc", None),
            point("/root", "/dev", None),
            point("/root", "/data", Some("/srv")),
            point("/srv", "/a/file", Some("/bundle/hosts")),
        ];
        assert_eq!(outside.mountpoints(Path::new("/root")), wanted);
        let mut facts = with(json!(null));
        let external = outside.external(&mut facts);
        assert!(external.contains(&("/data/a/file".into(), "/bundle/hosts".into())), "{external:?}");
    }

    #[test]
    fn what_is_bound_from_outside_is_external() {
        let outside: Outside = serde_json::from_value(json!({
            "mounts": [
                { "destination": "/data", "source": "/srv", "options": ["rbind"] },
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/sys/fs/cgroup", "type": "cgroup" },
            ],
            "masked_paths": ["/proc/kcore", "/proc/acpi"],
            "cgroups": { "cpu": "/sys/fs/cgroup/cpu/x", "": "/sys/fs/cgroup/unified/x" },
        }))
        .unwrap();
        let layout = |mode: &str| {
            let v1 = json!([{ "controllers": ["cpu"], "mount": "/sys/fs/cgroup/cpu", "writable": true }]);
            let v2 = json!({ "controllers": [], "mount": "/sys/fs/cgroup/unified", "writable": true });
            json!({ "mode": mode, "v1": if mode == "v2" { json!([]) } else { v1 }, "v2": v2 })
        };
        let told = |mode: &str, outside: &Outside| -> Vec<String> {
            let mut given = Recorded::default();
            given.kinds.insert("/proc/kcore".into(), FileFact::Kind(FileKind::File));
            given.kinds.insert("/proc/acpi".into(), FileFact::Kind(FileKind::Directory));
            given.host.insert("cgroup.layout".into(), layout(mode));
            let mut facts = Facts::fixed(given);
            let external = outside.external(&mut facts);
            let mounts = external.iter().map(|(at, from)| format!("{}={}", at.display(), from.display()));
            mounts.chain(outside.roots(&mut facts)).collect()
        };
        let always = ["/data=/srv", "/proc/kcore=/dev/null"];
        let hybrid = told("hybrid", &outside);
        let bound = ["/sys/fs/cgroup/cpu=/sys/fs/cgroup/cpu/x", "/sys/fs/cgroup/unified=/sys/fs/cgroup/unified/x"];
        assert_eq!(hybrid, [always[0], bound[0], bound[1], always[1], "cpu:/x"]);
        let one = Outside { cgroups: [(String::new(), "/sys/fs/cgroup/unified/x".into())].into(), ..outside };
        assert_eq!(told("v2", &one), [always[0], "/sys/fs/cgroup=/sys/fs/cgroup/unified/x", always[1], "/x"]);
        let own = Outside { namespaces: vec![Namespace { kind: NamespaceType::Cgroup, path: None }], ..one };
        assert_eq!(told("v2", &own), [always[0], always[1], "/x"]);
    }
}
