//! The container's view of its cgroups.

use super::mount::bind_on;
use super::root::{Root, clean, open_host};
use crate::facts::own_of;
use crate::mounts::api::{self, Api};
use crate::mounts::{Bind, Options};
use crate::sys::mount::RDONLY;
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::proc;
use rustix::fs::{FsWord, Mode, OFlags, fstat, fstatfs, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// linux/magic.h.
const CGROUP_SUPER_MAGIC: FsWord = 0x27_e0eb;
/// linux/magic.h.
const CGROUP2_SUPER_MAGIC: FsWord = 0x6367_7270;

/// A hierarchy of version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupHierarchy {
    /// Its controllers, or `name=…`.
    pub controllers: Vec<String>,
    /// Where the host has it mounted.
    pub mount: PathBuf,
}

/// Mounts the hierarchies that the container is in, so that it sees its own cgroups as their tops.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootCgroup {
    /// Where the container sees them.
    pub destination: PathBuf,
    /// Options, as the runtime-spec writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Hierarchies of version 1; empty where the host has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub v1: Vec<CgroupHierarchy>,
    /// Where the host has the hierarchy of version 2 mounted, and none of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v2: Option<PathBuf>,
    /// The container has a cgroup namespace of its own, whose top its own cgroups are. Otherwise they are bound, each by itself.
    pub own_namespace: bool,
    /// The SELinux context of the directory of hierarchies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Which calls to use.
    #[serde(default, skip_serializing_if = "Api::is_default")]
    pub api: Api,
}

/// One thing to mount: a hierarchy and the cgroup in it.
struct View<'a> {
    kind: &'static str,
    /// Options that choose the hierarchy.
    select: Vec<String>,
    mount: &'a Path,
}

/// The cgroup that the process is in, by the hierarchy's mount point: the way below that.
type Own = BTreeMap<PathBuf, String>;

impl EffectDef for RootCgroup {
    const KIND: &'static str = "root.cgroup";

    fn examples(_scratch: &Path) -> Vec<Self> {
        // Whatever the host has: the effect is made from its facts.
        let layout: crate::facts::CgroupLayout =
            serde_json::from_value(lifecycle_engine::facts::Host::read(&crate::facts::Machine, "cgroup.layout"))
                .unwrap_or_default();
        let example = |api| Self {
            destination: "/sys/fs/cgroup".into(),
            options: ["nosuid", "noexec", "nodev", "relatime", "ro"].map(str::to_owned).into(),
            v1: layout.v1.iter().map(CgroupHierarchy::from).collect(),
            v2: layout.v2.as_ref().filter(|_| layout.v1.is_empty()).map(|unified| unified.mount.clone()),
            own_namespace: false,
            label: None,
            api,
        };
        vec![example(Api::Detached), example(Api::Classic)]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        let names: Vec<String> = self
            .v1
            .iter()
            .map(|hierarchy| hierarchy.controllers.join(","))
            .chain(self.v2.as_ref().map(|_| "v2".to_owned()))
            .collect();
        let options = if self.options.is_empty() { String::new() } else { format!(" ({})", self.options.join(",")) };
        format!(
            "mount the container's cgroups [{}] on {}{options}",
            names.join(" "),
            clean(&self.destination).display()
        )
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let options = Options::parse(&self.options).map_err(EffectError::new)?;
        let own = if self.own_namespace { Own::new() } else { own()? };
        let root = Root::of(cx)?;
        let destination = clean(&self.destination);
        let target = root.mountpoint(&destination, true)?;
        if root.is_itself(&target)? {
            return Err(EffectError::new(format!("{} leads to the root itself", destination.display()))
                .help("a symlink of the image leads there; nothing can be mounted on /"));
        }
        match &self.v2 {
            Some(mount) if self.v1.is_empty() => {
                let top = || root.top(&destination, &target);
                self.mount(&view_of_v2(mount), &own, (&target, &top), &destination, &options)?;
            }
            _ => self.mount_v1(&root, &target, &destination, &options, &own)?,
        }
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl RootCgroup {
    /// A tmpfs with a directory for each hierarchy, as systemd lays them out.
    fn mount_v1(
        &self,
        root: &Root,
        target: &OwnedFd,
        destination: &Path,
        options: &Options,
        own: &Own,
    ) -> Result<(), EffectError> {
        let writable = Options {
            set: options.set & !RDONLY,
            data: vec!["mode=755".into()],
            context: self.label.clone(),
            ..options.clone()
        };
        let top = match self.api {
            Api::Detached => {
                let mount = api::new_file_system("tmpfs", Some("tmpfs"), &writable)?;
                api::attach(&mount, target, destination)?;
                mount
            }
            Api::Classic => {
                api::classic_file_system("tmpfs", Some("tmpfs"), &writable, target, destination)?;
                root.top(destination, target)?
            }
        };
        for hierarchy in &self.v1 {
            let name = hierarchy.directory();
            self.mount_in(&top, destination, &name, (&view_of_v1(hierarchy), own), options)?;
            for controller in
                hierarchy.controllers.iter().filter(|controller| **controller != name && !controller.contains('='))
            {
                let made = symlinkat(&name, &top, controller.as_str());
                made.map_err(|errno| {
                    EffectError::call(format!("symlinkat(\"{}/{controller}\")", destination.display()), errno)
                })?;
            }
        }
        if options.set & RDONLY == 0 {
            return Ok(());
        }
        let read_only = Options { set: RDONLY, ..Options::default() };
        match self.api {
            Api::Detached => api::configure(&top, &read_only, None),
            Api::Classic => api::classic_configure(&top, &read_only, destination),
        }
    }

    fn mount_in(
        &self,
        top: &OwnedFd,
        destination: &Path,
        name: &str,
        (view, own): (&View, &Own),
        options: &Options,
    ) -> Result<(), EffectError> {
        let path = destination.join(name);
        let failed = |call: &str, errno: Errno| EffectError::call(format!("{call}(\"{}\")", path.display()), errno);
        mkdirat(top, name, Mode::from_raw_mode(0o755)).map_err(|errno| failed("mkdirat", errno))?;
        let place = || {
            openat(top, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| failed("open", errno))
        };
        let target = place()?;
        self.mount(view, own, (&target, &place), &path, options)
    }

    /// Mounts a view on the target; the other one finds what mount(2) has put there.
    fn mount(
        &self,
        view: &View,
        own: &Own,
        (target, top): (&OwnedFd, &dyn Fn() -> Result<OwnedFd, EffectError>),
        path: &Path,
        options: &Options,
    ) -> Result<(), EffectError> {
        if self.own_namespace {
            // The superblock is shared with the host's: its own options must not be changed through it.
            let options = Options { data: view.select.clone(), ..options.clone() };
            return match self.api {
                Api::Detached => {
                    let mount = api::new_file_system(view.kind, Some("cgroup"), &options)?;
                    api::configure(&mount, &options, None)?;
                    api::attach(mount, target, path)
                }
                Api::Classic => api::classic_file_system(view.kind, Some("cgroup"), &options, target, path),
            };
        }
        let source = view.open(own)?;
        match self.api {
            Api::Detached => {
                let mount = api::clone_tree(&source, path, Bind::One)?;
                api::configure(&mount, options, None)?;
                api::attach(mount, target, path)
            }
            Api::Classic => {
                bind_on(self.api, &source, Bind::One, target, path)?;
                api::classic_configure(top()?, options, path)
            }
        }
    }
}

impl CgroupHierarchy {
    /// The directory's name: that of systemd, and of the host's own mount.
    fn directory(&self) -> String {
        self.controllers.join(",").trim_start_matches("name=").to_owned()
    }
}

impl From<&crate::facts::Hierarchy> for CgroupHierarchy {
    fn from(hierarchy: &crate::facts::Hierarchy) -> Self {
        Self { controllers: hierarchy.controllers.clone(), mount: hierarchy.mount.clone() }
    }
}

fn view_of_v1(hierarchy: &CgroupHierarchy) -> View<'_> {
    let named = hierarchy.controllers.iter().any(|controller| controller.contains('='));
    let mut select = hierarchy.controllers.clone();
    if named {
        select.insert(0, "none".into());
    }
    View { kind: "cgroup", select, mount: &hierarchy.mount }
}

fn view_of_v2(mount: &Path) -> View<'_> {
    View { kind: "cgroup2", select: Vec::new(), mount }
}

fn own() -> Result<Own, EffectError> {
    let read = |file: &str| {
        proc::text(file).map_err(|error| {
            EffectError::call(format!("read(\"{file}\")"), error).help("the host's /proc must be mounted")
        })
    };
    Ok(own_of(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
}

impl View<'_> {
    /// The process's own cgroup, and never a hierarchy's top in its stead: that would show the container every other one.
    fn open(&self, own: &Own) -> Result<OwnedFd, EffectError> {
        let mount = self.mount.display();
        let Some(below) = own.get(self.mount) else {
            return Err(EffectError::new(format!("this process is in no cgroup of the hierarchy at {mount}"))
                .help("give the container a cgroup namespace of its own (linux.namespaces)"));
        };
        let top = open_host(self.mount)?;
        let path = self.mount.join(below.trim_start_matches('/'));
        let found = open_host(&path)?;
        let device = |fd: &OwnedFd| fstat(fd).map(|stat| stat.st_dev).map_err(|e| EffectError::call("fstat", e));
        let magic =
            fstatfs(&found).map_err(|e| EffectError::call(format!("fstatfs(\"{}\")", path.display()), e))?.f_type;
        if ![CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&magic) || device(&top)? != device(&found)? {
            return Err(EffectError::new(format!("{} is no cgroup of the hierarchy at {mount}", path.display()))
                .help("something else is mounted on it"));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_cgroup_of_a_hierarchy_is_shown() {
        let refused = |mount: &str, own: &Own| {
            let view = View { kind: "cgroup", select: Vec::new(), mount: Path::new(mount) };
            view.open(own).unwrap_err().what
        };
        assert_eq!(
            refused("/sys/fs/cgroup/x", &Own::new()),
            "this process is in no cgroup of the hierarchy at /sys/fs/cgroup/x"
        );
        assert_eq!(
            refused("/", &Own::from([("/".into(), "/proc".into())])),
            "/proc is no cgroup of the hierarchy at /"
        );
    }

    #[test]
    fn a_hierarchy_without_controllers_is_chosen_by_its_name() {
        let hierarchy =
            CgroupHierarchy { controllers: vec!["name=systemd".into()], mount: "/sys/fs/cgroup/systemd".into() };
        assert_eq!(view_of_v1(&hierarchy).select, ["none", "name=systemd"]);
        assert_eq!(hierarchy.directory(), "systemd");
    }
}
