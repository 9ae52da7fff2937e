//! Where the mounts of an image hang.

use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effects::inside::root::{Root, open_host};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mountpoint {
    /// The directory of the host that has it: the root file system, or what is bound around it.
    pub within: PathBuf,
    /// Its path in there, where `within` is the root of all paths.
    pub at: PathBuf,
    /// What is bound there: a file on a file. Absent: a file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
}

/// Makes the mountpoints that a fresh root file system lacks: criu mounts, and makes nothing to mount on. They stay, as those of a container that
/// is created.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeMountpoints {
    /// In the order of the mounts.
    pub points: Vec<Mountpoint>,
}

impl EffectDef for MakeMountpoints {
    const KIND: &'static str = "criu.mountpoints";

    fn examples(scratch: &Path) -> Vec<Self> {
        let point = |at: &str, source: Option<&str>| Mountpoint {
            within: scratch.to_owned(),
            at: at.into(),
            source: source.map(PathBuf::from),
        };
        vec![Self { points: vec![point("/proc", None), point("/etc/hosts", Some("/proc/version"))] }]
    }

    fn class(&self) -> Class {
        Class::Kept
    }

    fn describe(&self) -> String {
        let paths: Vec<String> =
            self.points.iter().map(|point| point.within.join(relative(&point.at)).display().to_string()).collect();
        format!("make the mountpoints {}; those that have to be made stay", paths.join(", "))
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        self.points.iter().try_for_each(make)?;
        Ok(Applied::done())
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn make(point: &Mountpoint) -> Result<(), EffectError> {
    let directory = match &point.source {
        None => true,
        Some(source) => {
            std::fs::metadata(source).map_err(|e| EffectError::call(format!("stat({})", source.display()), e))?.is_dir()
        }
    };
    let within = open_host(&point.within)?;
    Root::at(&within).mountpoint(&point.at, directory).map(drop)
}
