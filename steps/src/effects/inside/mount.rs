//! One mount in the container's root.

use super::root::{Root, clean, is_directory, is_in_proc, is_procfs_itself, remember_own};
use super::seal;
use super::walk::Way;
use crate::mounts::api::{self, Api};
use crate::mounts::{Bind, Options, copy, id_map};
use crate::outcomes::DetachedMount;
use crate::process::handed;
use crate::spec::IdMapping;
use crate::sys::mount::RDONLY;
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Mounts a file system, or binds a path of the host, in the container's root. The mountpoint is made where it is missing.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RootMount {
    /// Where the container sees it.
    pub destination: PathBuf,
    /// The file system's type; absent for a bind mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A device's name, or for a bind mount an absolute path of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// The source is a path in the root, where a mount before this one has made it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub source_in_root: bool,
    /// Options, as the runtime-spec writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// User ids of an id-mapped mount; none: those of the container's user namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids of an id-mapped mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
    /// Which calls to use.
    #[serde(default, skip_serializing_if = "Api::is_default")]
    pub api: Api,
    /// The mountpoint lies in a root on a disk: if it has to be made, it stays there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_mountpoint: bool,
    /// The SELinux context of a new file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// That it is read-only comes last, by a [`super::RootSeal`]: it is filled first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sealed_later: bool,
    /// The host's side has made it, attributes and all; only to be attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<Handle<DetachedMount>>,
}

/// File systems that take no `context=`: labels in proc and sysfs are the policy's own (genfscon), and mqueue has room for one on each file.
const WITHOUT_CONTEXT: [&str; 3] = ["proc", "sysfs", "mqueue"];

/// What may be mounted in /proc: files that tell a program about its machine, faked by lxcfs and its like. Anything else could keep the
/// runtime's own writes to /proc (labels, sysctls) from arriving (CVE-2019-16884, CVE-2019-19921, CVE-2023-27561).
pub(crate) const ALLOWED_IN_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

impl EffectDef for RootMount {
    const KIND: &'static str = "root.mount";

    fn examples(_scratch: &Path) -> Vec<Self> {
        let options = |list: &[&str]| list.iter().map(|option| (*option).to_owned()).collect();
        let tmpfs = |api| Self {
            destination: "/example".into(),
            kind: Some("tmpfs".into()),
            options: options(&["nosuid", "mode=755", "tmpcopyup"]),
            api,
            ..Self::default()
        };
        let bind = |api| Self {
            destination: "/example".into(),
            source: Some("/etc".into()),
            options: options(&["rbind", "ro"]),
            api,
            ..Self::default()
        };
        vec![tmpfs(Api::Detached), tmpfs(Api::Classic), bind(Api::Detached), bind(Api::Classic)]
    }

    fn class(&self) -> Class {
        if self.keeps_mountpoint { Class::Kept } else { Class::Scoped }
    }

    fn describe(&self) -> String {
        let destination = clean(&self.destination);
        let kept = if self.keeps_mountpoint { "; its mountpoint, if it has to be made, stays" } else { "" };
        let later = if self.sealed_later { ", read-only later" } else { "" };
        let options = if self.options.is_empty() { String::new() } else { format!(" ({})", self.options.join(",")) }
            + later
            + kept;
        match (&self.kind, &self.source) {
            (None, Some(source)) if self.source_in_root => {
                format!("bind {} of the root on {}{options}", source.display(), destination.display())
            }
            (None, Some(source)) => format!("bind {} on {}{options}", source.display(), destination.display()),
            (Some(kind), Some(source)) if source.is_absolute() => {
                format!("mount {kind} {} on {}{options}", source.display(), destination.display())
            }
            (kind, _) => {
                format!("mount {} on {}{options}", kind.as_deref().unwrap_or("nothing"), destination.display())
            }
        }
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        if let Some(prepared) = &self.prepared {
            return self.attach_prepared(prepared, cx);
        }
        let options = self.parsed()?;
        let root = Root::of(cx)?;
        let mount = match self.api {
            Api::Detached => self.detached(&root, &options),
            Api::Classic => self.classic(&root, &options),
        }?;
        if self.sealed_later {
            seal::remember(&mount, cx.fds)?;
        }
        if options.bind.is_none() {
            remember_own(mount, cx.fds)?;
        }
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl RootMount {
    fn parsed(&self) -> Result<Options, EffectError> {
        let mut options = Options::parse(&self.options).map_err(EffectError::new)?;
        let takes_context = !self.kind.as_deref().is_some_and(|kind| WITHOUT_CONTEXT.contains(&kind));
        // One that the mount asks for itself is the one that it gets.
        let has_own = options.data.iter().any(|option| option.starts_with("context="));
        options.context = self.label.clone().filter(|_| takes_context && !has_own && options.bind.is_none());
        if self.sealed_later {
            options.set &= !RDONLY;
        }
        Ok(options)
    }

    /// A file system that takes no `context=` and can be labelled afterwards.
    fn label_afterwards(&self, mount: impl AsFd) -> Result<(), EffectError> {
        match &self.label {
            Some(label) if self.kind.as_deref() == Some("mqueue") => {
                // A mount's descriptor is O_PATH, which takes no attribute.
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let top = openat(mount, c".", flags, Mode::empty())
                    .map_err(|errno| EffectError::call(format!("open(\"{}\")", self.destination.display()), errno))?;
                api::label_file(top, label, &self.destination)
            }
            _ => Ok(()),
        }
    }

    fn attach_prepared(&self, prepared: &Handle<DetachedMount>, cx: &mut Cx) -> Result<Applied, EffectError> {
        let name = cx.resolve(prepared)?.name;
        let mount = cx.fds.take(&handed(&name)).ok_or_else(|| {
            EffectError::new(format!(
                "the bind mount for {} was not handed to this process",
                self.destination.display()
            ))
            .help("give the `prepared` of rootfs.sources to process.clone too, as `mounts`")
        })?;
        let root = Root::of(cx)?;
        let destination = clean(&self.destination);
        let target = self.target(&root, self.way(&root, &destination)?, Some(&mount))?;
        api::attach(&mount, &target, &self.destination)?;
        Ok(Applied::done())
    }

    fn detached(&self, root: &Root, options: &Options) -> Result<OwnedFd, EffectError> {
        let destination = clean(&self.destination);
        let way = self.way(root, &destination)?;
        let (mount, target) = if let Some(bind) = options.bind {
            let mount = api::clone_tree(self.open_source(root)?, &self.destination, bind)?;
            let target = self.target(root, way, Some(&mount))?;
            (mount, target)
        } else {
            let options = self.like_what_is_below(&way, options)?;
            let mount = api::new_file_system(self.kind()?, self.source_name().as_deref(), &options)?;
            (mount, self.target(root, way, None)?)
        };
        if options.copy_up {
            copy::copy_tree(target.as_fd(), mount.as_fd())?;
        }
        self.label_afterwards(&mount)?;
        let map = self.user_namespace(options)?;
        api::configure(&mount, options, map.as_ref().map(AsFd::as_fd))?;
        api::attach(&mount, &target, &self.destination)?;
        Ok(mount)
    }

    fn classic(&self, root: &Root, options: &Options) -> Result<OwnedFd, EffectError> {
        if options.id_map.is_some() {
            return Err(EffectError::new(format!("the id-mapped mount on {}", self.destination.display()))
                .help("it needs mount_setattr, Linux 5.12"));
        }
        let destination = clean(&self.destination);
        let way = self.way(root, &destination)?;
        let target = if let Some(bind) = options.bind {
            let source = self.open_source(root)?;
            let target = self.target(root, way, Some(&source))?;
            api::classic_bind(&source, bind, &target, &self.destination)?;
            target
        } else {
            let options = self.like_what_is_below(&way, options)?;
            let (kind, source, target) = (self.kind()?, self.source_name(), self.target(root, way, None)?);
            api::classic_file_system(kind, source.as_deref(), &options, &target, &self.destination)?;
            target
        };
        let top = root.top(&destination, &target)?;
        if options.copy_up {
            copy::copy_tree(target.as_fd(), top.as_fd())?;
        }
        self.label_afterwards(&top)?;
        api::classic_configure(&top, options, &self.destination)?;
        Ok(top)
    }

    /// A tmpfs that covers a directory has that one's permissions where nobody says otherwise, as with runc; another one the kernel's: 1777.
    fn like_what_is_below(&self, way: &Way, options: &Options) -> Result<Options, EffectError> {
        let mut options = options.clone();
        let is_said = options.data.iter().any(|option| option.starts_with("mode="));
        if let Some(below) = way.end().filter(|_| self.kind.as_deref() == Some("tmpfs") && !is_said) {
            let mode = fstat(below).map_err(|errno| EffectError::call("fstat", errno))?.st_mode & 0o7777;
            options.data.push(format!("mode={mode:o}"));
        }
        Ok(options)
    }

    fn open_source(&self, root: &Root) -> Result<OwnedFd, EffectError> {
        let source = self.source.as_deref().ok_or_else(|| {
            EffectError::new(format!("the bind mount on {} has no source", self.destination.display()))
        })?;
        if !self.source_in_root {
            return api::open_source(source);
        }
        root.find(source)?.ok_or_else(|| {
            EffectError::call(format!("open(\"{}\") in the container's root", source.display()), Errno::NOENT)
                .help("the source of the bind mount is on a mount before it, and does not exist there")
        })
    }

    fn kind(&self) -> Result<&str, EffectError> {
        self.kind.as_deref().filter(|kind| *kind != "bind" && *kind != "none").ok_or_else(|| {
            EffectError::new(format!("the mount on {} has no type", self.destination.display()))
                .help("give it a `type`, or the option `bind` or `rbind`")
        })
    }

    fn source_name(&self) -> Option<String> {
        self.source.as_ref().map(|source| source.to_string_lossy().into_owned())
    }

    /// The way to the mountpoint, of which nothing is made yet.
    fn way<'p>(&self, root: &Root, destination: &'p Path) -> Result<Way<'p>, EffectError> {
        if destination == Path::new(PROC) || matches!(self.kind.as_deref(), Some("proc" | "sysfs")) {
            self.refuse_symlink(root, destination)?;
        }
        root.way(destination)
    }

    /// The mountpoint, made where it is missing: for the source of a bind, or for a file system.
    fn target(&self, root: &Root, way: Way, source: Option<&OwnedFd>) -> Result<OwnedFd, EffectError> {
        let directory = source.map_or(Ok(true), is_directory)?;
        let is_other = if directory { way.found.is_some() } else { way.end().is_some() };
        if is_other {
            return Err(self.of_another_kind(directory));
        }
        let target = way.mountpoint(directory)?;
        self.check_proc(&target, source)?;
        if root.is_itself(&target)? {
            return Err(EffectError::new(format!("{} leads to the root itself", self.destination.display()))
                .help("a symlink of the image leads there; nothing can be mounted on /"));
        }
        Ok(target)
    }

    /// The most common mistake with volumes. Docker gives advice of its own where it finds "not a directory" in the message.
    fn of_another_kind(&self, directory: bool) -> EffectError {
        let destination = self.destination.display();
        let what = match (&self.kind, &self.source) {
            (None, Some(source)) => format!("\"{}\"", source.display()),
            (kind, _) => kind.clone().unwrap_or_default(),
        };
        let how = if directory {
            format!("{what} is a directory, and \"{destination}\" in the container is a file, not a directory")
        } else {
            format!("{what} is a file, not a directory, and \"{destination}\" in the container is a directory")
        };
        EffectError::new(format!("{how}: one cannot be mounted on the other"))
            .help("a directory can only be mounted on a directory, and a file on a file; does the source exist as what it should be?")
    }

    /// On /proc itself nothing but a procfs, and in it nothing but what is known to be harmless.
    fn check_proc(&self, target: &OwnedFd, source: Option<&OwnedFd>) -> Result<(), EffectError> {
        let destination = clean(&self.destination);
        if destination == Path::new(PROC) {
            let is_procfs = source.map_or(Ok(self.kind.as_deref() == Some("proc")), is_procfs_itself)?;
            return if is_procfs { Ok(()) } else { Err(no_procfs()) };
        }
        let allowed = ALLOWED_IN_PROC.iter().any(|path| destination == Path::new(path));
        if allowed || !is_in_proc(target)? {
            return Ok(());
        }
        Err(EffectError::new(format!("{} leads into /proc", self.destination.display()))
            .help("nothing may be mounted there: it could hide what the runtime writes to /proc"))
    }

    /// The image's /proc must not lead elsewhere: what looks like /proc would then be the image's own files.
    fn refuse_symlink(&self, root: &Root, destination: &Path) -> Result<(), EffectError> {
        match root.find_nofollow(destination)? {
            Some(found) if !is_directory(&found)? => {
                Err(EffectError::new(format!("{} in the image is not a directory", self.destination.display()))
                    .help("the image may not replace it, not even by a symlink; remove it from the image"))
            }
            _ => Ok(()),
        }
    }

    fn user_namespace(&self, options: &Options) -> Result<Option<OwnedFd>, EffectError> {
        if options.id_map.is_none() {
            return Ok(None);
        }
        if !self.uid_mappings.is_empty() {
            return id_map::user_namespace(&self.uid_mappings, &self.gid_mappings).map(Some);
        }
        let own = "/proc/self/ns/user";
        std::fs::File::open(own)
            .map(|file| Some(file.into()))
            .map_err(|error| EffectError::call(format!("open(\"{own}\")"), error))
    }
}

const PROC: &str = "/proc";

fn no_procfs() -> EffectError {
    EffectError::new("what is to be mounted on /proc is no procfs")
        .help("mount one of type proc, or bind the host's /proc. Something else is refused: it could hide what the runtime writes to /proc")
}

/// For effects that bind one descriptor on another.
pub(super) fn bind_on(
    api: Api,
    source: &OwnedFd,
    bind: Bind,
    target: &OwnedFd,
    path: &Path,
) -> Result<(), EffectError> {
    match api {
        Api::Detached => api::attach(api::clone_tree(source, path, bind)?, target, path),
        Api::Classic => api::classic_bind(source, bind, target, path),
    }
}
