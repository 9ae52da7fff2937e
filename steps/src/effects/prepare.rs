//! Bind mounts that are made on the host's side for a container in a user namespace.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::mounts::{Options, Propagation, id_map, locked};
use crate::outcomes::DetachedMount;
use crate::process::ENGINE_ONLY;
use crate::spec::IdMapping;

/// Where the ids of an id-mapped mount come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdMap {
    /// From these ranges.
    Ranges {
        /// User ids.
        uid: Vec<IdMapping>,
        /// Group ids.
        gid: Vec<IdMapping>,
    },
    /// From a user namespace that is there.
    Namespace(PathBuf),
}

/// Makes a bind mount that hangs nowhere, with all its attributes; the container's init takes it over and attaches it.
///
/// In a user namespace init may not map ids of the host's file systems (mount_setattr(2), `MOUNT_ATTR_IDMAP`), nor enter directories that are
/// closed to its ids. What the mount forbids is locked for it: see [`locked`]. The mount goes with the last descriptor for it.
#[derive(Debug, Serialize, Deserialize)]
pub struct PrepareMount {
    /// The host's path. Absolute.
    pub source: PathBuf,
    /// Where the container will see it; for messages.
    pub destination: PathBuf,
    /// Options, as the runtime-spec writes them.
    pub options: Vec<String>,
    /// How mounts travel between it and the host's, unless the options say so.
    pub propagation: Propagation,
    /// The ids of an id-mapped mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_map: Option<IdMap>,
}

impl EffectDef for PrepareMount {
    const KIND: &'static str = "prepare_mount";

    fn examples(scratch: &Path) -> Vec<Self> {
        let example = |options: &[&str], id_map| Self {
            source: scratch.to_owned(),
            destination: "/data".into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            propagation: Propagation::Slave,
            id_map,
        };
        let map = vec![IdMapping { container_id: 0, host_id: 100_000, size: 65536 }];
        let ranges = IdMap::Ranges { uid: map.clone(), gid: map };
        vec![example(&["rbind", "ro"], None), example(&["bind", "idmap"], Some(ranges))]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        let ids = match &self.id_map {
            None => String::new(),
            Some(IdMap::Ranges { .. }) => "; ids mapped".into(),
            Some(IdMap::Namespace(path)) => format!("; ids mapped as in {}", path.display()),
        };
        let (source, destination) = (self.source.display(), self.destination.display());
        format!("bind {source} for {destination} ({}), locked and attached nowhere yet{ids}", self.options.join(","))
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let mut options = Options::parse(&self.options).map_err(EffectError::new)?;
        let map = self.id_map.as_ref().map(IdMap::open).transpose()?;
        // First of all: until it is done, whatever is mounted below the source on the host is mounted here too.
        options.propagation.insert(0, (self.propagation, true));
        let mount = locked::bind(&self.source, &options, map.as_ref().map(AsFd::as_fd)).map_err(|mut error| {
            error.what = format!("the bind mount for {}: {}", self.destination.display(), error.what);
            error
        })?;
        let name = kept_as(cx);
        cx.fds.put(&name, mount);
        Applied::outcome(&DetachedMount { name })
    }

    fn undo(&self, _: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        // Another process's descriptors have gone with it.
        let name = kept_as(cx);
        cx.fds.take(&name);
        Ok(Undone::Done)
    }
}

/// The name under which the engine keeps it for init.
fn kept_as(cx: &Cx) -> String {
    format!("{ENGINE_ONLY}mount:{}:{}", cx.step, cx.effect)
}

impl IdMap {
    fn open(&self) -> Result<std::os::fd::OwnedFd, EffectError> {
        match self {
            Self::Ranges { uid, gid } => id_map::user_namespace(uid, gid),
            Self::Namespace(path) => std::fs::File::open(path)
                .map(Into::into)
                .map_err(|error| EffectError::call(format!("open(\"{}\")", path.display()), error)),
        }
    }
}
