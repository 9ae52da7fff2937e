//! File systems that are read-only once they are filled.

use super::protect::read_only;
use crate::mounts::Api;
use crate::mounts::table;
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Fds, Record, Undone};
use lifecycle_engine::error::EffectError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// With a mount's number after it: a file system that is to be read-only.
const UNSEALED: &str = "unsealed:";

/// Makes the file systems read-only that are meant to be, and were made writable so that devices, links and mountpoints could be made in them. They
/// are known by descriptor: another one may lie on them.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootSeal {
    /// Where the container sees them.
    pub destinations: Vec<PathBuf>,
    /// Which calls to use.
    #[serde(default, skip_serializing_if = "Api::is_default")]
    pub api: Api,
}

impl EffectDef for RootSeal {
    const KIND: &'static str = "root.seal";

    fn examples(_scratch: &Path) -> Vec<Self> {
        [Api::Detached, Api::Classic].map(|api| Self { destinations: vec!["/dev".into()], api }).into()
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        let paths: Vec<String> = self.destinations.iter().map(|path| path.display().to_string()).collect();
        format!("make what was mounted on {} read-only, now that it is filled", paths.join(", "))
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        for (_, mount) in take(cx.fds) {
            read_only(self.api, &mount, false, Path::new("a mount that was filled"))?;
        }
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

/// Remembers a mount of the container's own that is to be sealed.
pub(super) fn remember(mount: &OwnedFd, fds: &mut Fds) -> Result<(), EffectError> {
    let copy = mount.try_clone().map_err(|error| EffectError::call("fcntl(F_DUPFD_CLOEXEC)", error))?;
    fds.put(format!("{UNSEALED}{}", table::number(mount)?), copy);
    Ok(())
}

/// What is to be sealed still, no longer remembered. The descriptors lead to mounts in the container's root, and no way out of it.
pub(crate) fn take(fds: &mut Fds) -> Vec<(String, OwnedFd)> {
    let names: Vec<String> =
        fds.iter().map(|(name, _)| name).filter(|name| name.starts_with(UNSEALED)).map(str::to_owned).collect();
    names.into_iter().filter_map(|name| fds.take(&name).map(|fd| (name, fd))).collect()
}
