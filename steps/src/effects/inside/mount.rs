//! One mount in the container's root.

use super::root::{Root, clean, is_directory, is_in_proc, remember_own};
use crate::mounts::api::{self, Api};
use crate::mounts::{Bind, Options, copy, id_map};
use crate::outcomes::DetachedMount;
use crate::process::handed;
use crate::spec::IdMapping;
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use rustix::fs::{Mode, OFlags, openat};
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
        let options =
            if self.options.is_empty() { String::new() } else { format!(" ({})", self.options.join(",")) } + kept;
        match (&self.kind, &self.source) {
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
        let target = self.target(&root, is_directory(&mount)?)?;
        api::attach(&mount, &target, &self.destination)?;
        Ok(Applied::done())
    }

    fn detached(&self, root: &Root, options: &Options) -> Result<OwnedFd, EffectError> {
        let mount = match options.bind {
            Some(bind) => api::clone_tree(self.open_source()?, &self.destination, bind)?,
            None => api::new_file_system(self.kind()?, self.source_name().as_deref(), options)?,
        };
        let target = self.target(root, is_directory(&mount)?)?;
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
        let target = if let Some(bind) = options.bind {
            let source = self.open_source()?;
            let target = self.target(root, is_directory(&source)?)?;
            api::classic_bind(&source, bind, &target, &self.destination)?;
            target
        } else {
            let target = self.target(root, true)?;
            api::classic_file_system(self.kind()?, self.source_name().as_deref(), options, &target, &self.destination)?;
            target
        };
        let top = root.top(&clean(&self.destination), &target)?;
        if options.copy_up {
            copy::copy_tree(target.as_fd(), top.as_fd())?;
        }
        self.label_afterwards(&top)?;
        api::classic_configure(&top, options, &self.destination)?;
        Ok(top)
    }

    fn open_source(&self) -> Result<OwnedFd, EffectError> {
        let source = self.source.as_deref().ok_or_else(|| {
            EffectError::new(format!("the bind mount on {} has no source", self.destination.display()))
        })?;
        api::open_source(source)
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

    /// The mountpoint, resolved by descriptor from the root on.
    fn target(&self, root: &Root, directory: bool) -> Result<OwnedFd, EffectError> {
        let destination = clean(&self.destination);
        let is_pseudo = matches!(self.kind.as_deref(), Some("proc" | "sysfs"));
        if is_pseudo {
            self.refuse_symlink(root, &destination)?;
        }
        let target = root.mountpoint(&destination, directory)?;
        let is_proc_itself = self.kind.as_deref() == Some("proc") && destination == Path::new("/proc");
        let allowed = ALLOWED_IN_PROC.iter().any(|path| destination == Path::new(path));
        if !is_proc_itself && !allowed && is_in_proc(&target)? {
            return Err(EffectError::new(format!("{} leads into /proc", self.destination.display()))
                .help("nothing may be mounted there: it could hide what the runtime writes to /proc"));
        }
        Ok(target)
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
