//! Directories, files, symlinks and devices in the container's root.

use super::mount::bind_on;
use super::root::{Root, clean, is_device};
use crate::effects::file::write_new;
use crate::made;
use crate::mounts::Bind;
use crate::mounts::api::{Api, open_source};
use crate::spec::DeviceType;
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::Mode;
use lifecycle_engine::value::Text;
use rustix::fs::{AtFlags, FileType, OFlags, openat, readlinkat, symlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes a directory in the root, and those on the way; one that is there stays as it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootDirectory {
    /// Where the container sees it.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: Mode,
    /// It lies in a mount of the container's own, or in a throw-away root, and goes with that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
}

/// Writes a file in the root. One that is there is replaced, not followed.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootFile {
    /// Where the container sees it.
    pub path: PathBuf,
    /// What is in it.
    pub content: Text,
    /// Its permissions.
    pub mode: Mode,
    /// It lies in a mount of the container's own, or in a throw-away root, and goes with that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
}

/// Makes a symlink in the root; what is there stays as it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootSymlink {
    /// Where the container sees it.
    pub path: PathBuf,
    /// What it says.
    pub target: PathBuf,
    /// It lies in a mount of the container's own, or in a throw-away root, and goes with that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// Whether it may come to lie in a directory of the host's.
    #[serde(default, skip_serializing_if = "InVolume::is_default")]
    pub in_volume: InVolume,
}

/// Makes a device node in the root, symlinks followed: what one that leads to nothing names is made. A user namespace forbids device nodes: there
/// the host's node is bound.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootDevice {
    /// Where the container sees it.
    pub path: PathBuf,
    /// Its kind.
    pub kind: DeviceType,
    /// Its major number.
    #[serde(default)]
    pub major: u32,
    /// Its minor number.
    #[serde(default)]
    pub minor: u32,
    /// Its permissions.
    pub mode: Mode,
    /// Its owner and group in the container.
    #[serde(default)]
    pub owner: (u32, u32),
    /// The host's own node of the device, which is bound where one cannot be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<PathBuf>,
    /// Which calls to use for that.
    #[serde(default, skip_serializing_if = "Api::is_default")]
    pub api: Api,
    /// It lies in a mount of the container's own, or in a throw-away root, and goes with that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// Whether it may come to lie in a directory of the host's.
    #[serde(default, skip_serializing_if = "InVolume::is_default")]
    pub in_volume: InVolume,
}

/// What to do where a path leads into a directory of the host's that is bound in the container: by the image's symlinks, that can be any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InVolume {
    /// It is made there: the config says so.
    #[default]
    Make,
    /// Nothing is made.
    Leave,
    /// It is an error.
    Refuse,
}

impl InVolume {
    /// Whether it is the usual one; effects leave it out of their JSON then.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether to make something in this directory.
    fn allows(self, root: &Root, directory: &OwnedFd, path: &Path) -> Result<bool, EffectError> {
        if self == Self::Make || root.is_own(directory)? {
            return Ok(true);
        }
        if self == Self::Leave {
            return Ok(false);
        }
        Err(EffectError::new(format!("{} leads into a directory of the host that is bound there", path.display()))
            .help("a symlink in the image puts one on the other; take it away, or mount the directory elsewhere"))
    }
}

impl EffectDef for RootDirectory {
    const KIND: &'static str = "root.directory";

    fn examples(_scratch: &Path) -> Vec<Self> {
        vec![Self { path: "/with/parents/made".into(), mode: Mode(0o755), own: false }]
    }

    fn class(&self) -> Class {
        if self.own { Class::Scoped } else { Class::Kept }
    }

    fn describe(&self) -> String {
        format!(
            "make directory {} in the root with mode {}, kept if it is there",
            clean(&self.path).display(),
            self.mode
        )
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        Root::of(cx)?.directory(&clean(&self.path), self.mode.0)?;
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl EffectDef for RootFile {
    const KIND: &'static str = "root.file";

    fn examples(_scratch: &Path) -> Vec<Self> {
        vec![Self { path: "/etc/hosts".into(), content: "127.0.0.1 localhost\n".into(), mode: Mode(0o644), own: false }]
    }

    fn class(&self) -> Class {
        if self.own { Class::Scoped } else { Class::Kept }
    }

    fn describe(&self) -> String {
        let size = self.content.to_string().len();
        format!("write {size} bytes to {} in the root with mode {}", clean(&self.path).display(), self.mode)
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let content = cx.text(&self.content)?;
        let path = clean(&self.path);
        let (parent, name) = Root::of(cx)?.parent(&path)?;
        // The name is taken away first: to write through it could be to write through the image's symlink or hard link.
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => {
                return Err(EffectError::call(format!("unlinkat(\"{}\") in the root", path.display()), errno));
            }
        }
        write_new(parent.as_fd(), name, content.as_bytes(), rustix::fs::Mode::from_raw_mode(self.mode.0), None)?;
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl EffectDef for RootSymlink {
    const KIND: &'static str = "root.symlink";

    fn examples(_scratch: &Path) -> Vec<Self> {
        let (path, target) = ("/dev/fd".into(), "/proc/self/fd".into());
        vec![Self { path, target, own: false, in_volume: InVolume::Leave }]
    }

    fn class(&self) -> Class {
        if self.own { Class::Scoped } else { Class::Kept }
    }

    fn describe(&self) -> String {
        format!(
            "make symlink {} -> {} in the root, kept if it is there",
            clean(&self.path).display(),
            self.target.display()
        )
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let path = clean(&self.path);
        let root = Root::of(cx)?;
        let (parent, name) = root.parent(&path)?;
        if !self.in_volume.allows(&root, &parent, &path)? {
            return Ok(Applied::done());
        }
        match symlinkat(&self.target, &parent, name) {
            Ok(()) | Err(Errno::EXIST) => Ok(Applied::done()),
            Err(errno) => Err(EffectError::call(format!("symlinkat(\"{}\") in the root", path.display()), errno)
                .help("a read-only root needs it in the image")),
        }
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl EffectDef for RootDevice {
    const KIND: &'static str = "root.device";

    fn examples(_scratch: &Path) -> Vec<Self> {
        let null = |path: &str, api| Self {
            path: path.into(),
            kind: DeviceType::C,
            major: 1,
            minor: 3,
            mode: Mode(0o666),
            owner: (0, 0),
            host: Some("/dev/null".into()),
            api,
            own: false,
            in_volume: InVolume::Leave,
        };
        vec![null("/dev/null", Api::Detached), null("/dev/null-too", Api::Classic)]
    }

    fn class(&self) -> Class {
        if self.own { Class::Scoped } else { Class::Kept }
    }

    fn describe(&self) -> String {
        let path = clean(&self.path);
        let (major, minor, mode) = (self.major, self.minor, self.mode);
        match self.kind {
            DeviceType::P => format!("make FIFO {} with mode {mode}", path.display()),
            DeviceType::B => format!("make block device {} {major}:{minor} with mode {mode}", path.display()),
            _ => format!("make device {} {major}:{minor} with mode {mode}", path.display()),
        }
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let root = Root::of(cx)?;
        let path = clean(&self.path);
        let way = root.way(&path)?;
        if !self.in_volume.allows(&root, &way.directory, &path)? {
            return Ok(Applied::done());
        }
        let name = way.name().ok_or_else(|| self.is_another(&path))?;
        let parent = way.make_around(0o755)?;
        match (self.make(&parent, &name, &path), &self.host) {
            (Err(error), Some(host)) if error.errno == Some(Errno::PERM.raw_os_error()) => {
                self.bind(&root, &path, host)?;
            }
            (answer, _) => answer?,
        }
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl RootDevice {
    fn file_type(&self) -> FileType {
        match self.kind {
            DeviceType::B => FileType::BlockDevice,
            DeviceType::P => FileType::Fifo,
            DeviceType::A | DeviceType::C | DeviceType::U => FileType::CharacterDevice,
        }
    }

    fn make(&self, parent: &OwnedFd, name: &Path, path: &Path) -> Result<(), EffectError> {
        let (number, mode) =
            (rustix::fs::makedev(self.major, self.minor), rustix::fs::Mode::from_raw_mode(self.mode.0));
        match made::node(parent.as_fd(), name, self.file_type(), number, mode, Some(self.owner)) {
            Err(error) if error.errno == Some(Errno::EXIST.raw_os_error()) => {
                self.check(&open_node(parent, name, path)?, path)
            }
            answer => answer,
        }
    }

    fn bind(&self, root: &Root, path: &Path, host: &Path) -> Result<(), EffectError> {
        let source = open_source(host)?;
        self.check(&source, host)?;
        let target = root.mountpoint(path, false)?;
        bind_on(self.api, &source, Bind::One, &target, path)
    }

    /// A node of the image's under this name must be the device, not something else that looks like it.
    fn check(&self, node: &OwnedFd, path: &Path) -> Result<(), EffectError> {
        if is_device(node, self.file_type(), self.major, self.minor)? { Ok(()) } else { Err(self.is_another(path)) }
    }

    fn is_another(&self, path: &Path) -> EffectError {
        let (path, major, minor) = (path.display(), self.major, self.minor);
        EffectError::new(format!("{path} is there and is not the device {major}:{minor}"))
            .help("mount a tmpfs on /dev, or remove the file from the image")
    }
}

fn open_node(parent: &OwnedFd, name: &Path, path: &Path) -> Result<OwnedFd, EffectError> {
    openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, rustix::fs::Mode::empty()).map_err(
        |errno| {
            let target = readlinkat(parent, name, Vec::new()).ok();
            EffectError::call(format!("open(\"{}\", O_PATH, {target:?})", path.display()), errno)
        },
    )
}
