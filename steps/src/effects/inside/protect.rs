//! What the container may not read or write.

use super::mount::bind_on;
use super::root::{Root, clean, is_directory, is_null_device};
use crate::mounts::api::{self, Api};
use crate::mounts::{Bind, Options};
use crate::sys::mount::{MountAttr, RDONLY, mount_setattr};
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes the root itself read-only; mounts in it stay as they are.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootReadonly {
    /// Which calls to use.
    #[serde(default, skip_serializing_if = "Api::is_default")]
    pub api: Api,
}

/// Covers a path, so that it cannot be read: a file by the null device, a directory by an empty one. What is not there needs no cover.
#[derive(Debug, Serialize, Deserialize)]
pub struct MaskPath {
    /// Where the container sees it.
    pub path: PathBuf,
    /// The SELinux context of what covers a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Which calls to use.
    #[serde(default, skip_serializing_if = "Api::is_default")]
    pub api: Api,
}

/// Makes a path and what is below it read-only. What is not there needs nothing.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReadonlyPath {
    /// Where the container sees it.
    pub path: PathBuf,
    /// Which calls to use.
    #[serde(default, skip_serializing_if = "Api::is_default")]
    pub api: Api,
}

impl EffectDef for RootReadonly {
    const KIND: &'static str = "root.readonly";

    fn examples(_scratch: &Path) -> Vec<Self> {
        [Api::Detached, Api::Classic].map(|api| Self { api }).into()
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        "make the root read-only".to_owned()
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        read_only(self.api, Root::of(cx)?.fd(), false, Path::new("/"))?;
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl EffectDef for MaskPath {
    const KIND: &'static str = "root.mask";

    fn examples(_scratch: &Path) -> Vec<Self> {
        [Api::Detached, Api::Classic].map(|api| Self { path: "/masked".into(), label: None, api }).into()
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("mask {}", clean(&self.path).display())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let root = Root::of(cx)?;
        let path = clean(&self.path);
        let Some(target) = root.find(&path)? else { return Ok(Applied::done()) };
        if is_directory(&target)? {
            self.cover_directory(&target, &path)?;
        } else {
            bind_on(self.api, &null_device(&root)?, Bind::One, &target, &path)?;
        }
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl MaskPath {
    fn cover_directory(&self, target: &OwnedFd, path: &Path) -> Result<(), EffectError> {
        let options = Options {
            set: RDONLY,
            data: vec!["mode=555".into(), "nr_inodes=2".into()],
            context: self.label.clone(),
            ..Options::default()
        };
        match self.api {
            Api::Detached => api::attach(api::new_file_system("tmpfs", Some("mask"), &options)?, target, path),
            Api::Classic => api::classic_file_system("tmpfs", Some("mask"), &options, target, path),
        }
    }
}

/// The container's null device. It was made or bound by us, but a symlink of the image may lead elsewhere (CVE-2025-31133).
fn null_device(root: &Root) -> Result<OwnedFd, EffectError> {
    let path = Path::new("/dev/null");
    let found = root.find(path)?;
    match found {
        Some(node) if is_null_device(&node)? => Ok(node),
        _ => Err(EffectError::new("/dev/null in the container is not the null device")
            .help("masked files are covered by it; mount a tmpfs on /dev, or remove the file from the image")),
    }
}

impl EffectDef for ReadonlyPath {
    const KIND: &'static str = "root.readonly_path";

    fn examples(_scratch: &Path) -> Vec<Self> {
        [Api::Detached, Api::Classic].map(|api| Self { path: "/readonly".into(), api }).into()
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("make {} read-only", clean(&self.path).display())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let root = Root::of(cx)?;
        let path = clean(&self.path);
        let Some(target) = root.find(&path)? else { return Ok(Applied::done()) };
        match self.api {
            Api::Detached => {
                let mount = api::clone_tree(&target, &path, Bind::Recursive)?;
                read_only(self.api, mount.as_fd(), true, &path)?;
                api::attach(mount, &target, &path)?;
            }
            Api::Classic => {
                api::classic_bind(&target, Bind::Recursive, &target, &path)?;
                read_only(self.api, root.top(&path, &target)?.as_fd(), true, &path)?;
            }
        }
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

/// Makes a mount read-only, and with `recursive` those below it.
pub(super) fn read_only(api: Api, mount: impl AsFd, recursive: bool, path: &Path) -> Result<(), EffectError> {
    match api {
        Api::Detached => {
            mount_setattr(mount, recursive, &MountAttr { set: RDONLY, ..MountAttr::default() }).map_err(|error| {
                EffectError::call(format!("mount_setattr(\"{}\", MOUNT_ATTR_RDONLY)", path.display()), error)
                    .help("it needs CAP_SYS_ADMIN in the mount namespace's user namespace")
            })
        }
        Api::Classic => {
            let recursive_set = if recursive { RDONLY } else { 0 };
            api::classic_configure(mount, &Options { set: RDONLY, recursive_set, ..Options::default() }, path)
        }
    }
}
