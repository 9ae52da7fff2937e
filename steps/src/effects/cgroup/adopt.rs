//! Takes over the cgroup that systemd has made for a scope.

use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Handle, HandleRef};
use rustix::fs::CWD;
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::members::{Emptying, processes};
use super::{Cgroup, Version, open_directory, remove, thaw_all};
use crate::effects::example_process;
use crate::outcomes::Process;

/// Sees that a process is in the cgroup that systemd made for it, and records which one that is: limits are written into it from then on, and
/// what is left in it is ours to kill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptCgroup {
    /// The cgroup's directory.
    pub at: PathBuf,
    /// The hierarchy's version.
    pub version: Version,
    /// The process that the scope was made around.
    pub process: Handle<Process>,
    /// The container's cgroup in version 1's freezer: it is thawed before anything is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freezer: Option<Freezer>,
}

/// A cgroup of version 1's freezer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Freezer {
    /// Its directory.
    pub at: PathBuf,
    /// The cgroup as it was made.
    pub cgroup: Handle<Cgroup>,
}

impl AdoptCgroup {
    fn failed(&self, what: &str, errno: impl Into<std::io::Error>) -> EffectError {
        EffectError::call(format!("{what} {}", self.at.display()), errno)
    }

    fn thaw(&self, cx: &Cx) -> Result<(), EffectError> {
        let Some(freezer) = &self.freezer else { return Ok(()) };
        // Without an outcome it was never made, and froze nothing.
        let Ok(cgroup) = cx.resolve(&freezer.cgroup) else { return Ok(()) };
        let failed = |errno: Errno| EffectError::call(format!("thaw {}", freezer.at.display()), errno);
        let Some(directory) = cgroup.open(&freezer.at).map_err(failed)? else { return Ok(()) };
        thaw_all(directory).map_err(failed)
    }
}

impl EffectDef for AdoptCgroup {
    const KIND: &'static str = "cgroup.adopt";

    fn examples(scratch: &Path) -> Vec<Self> {
        let (at, version) = super::example(scratch);
        let cgroup = HandleRef { step: "cgroup".into(), effect: 0, field: "".into() };
        let freezer = Some(Freezer { at: at.clone(), cgroup: Handle::new(cgroup) });
        vec![Self { at, version, process: example_process(), freezer }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("find {} in the cgroup {}", self.process, self.at.display())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = cx.resolve(&self.process)?;
        let directory = open_directory(CWD, &self.at).map_err(|e| {
            self.failed("open the cgroup", e)
                .help("systemd did not make it; is the controller one that it manages here?")
        })?;
        let members = processes(&directory).map_err(|e| self.failed("list the processes of", e))?;
        if !members.contains(&process.pid) {
            return Err(EffectError::new(format!(
                "systemd did not put {process} into the cgroup {}",
                self.at.display()
            ))
            .help("another program may have moved it; `systemctl status` shows where it is"));
        }
        let cgroup = Cgroup::of(&directory, true).map_err(|e| self.failed("fstat", e))?;
        Applied::outcome(&cgroup)
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        let Some(cgroup) = record.outcome::<Cgroup>() else { return Ok(Undone::Done) };
        let failed = |e: Errno| self.failed("open the cgroup", e);
        let Some(leaf) = cgroup.open(&self.at).map_err(failed)? else { return Ok(Undone::Done) };
        let (Some(above), Some(name)) = (self.at.parent(), self.at.file_name()) else { return Ok(Undone::Done) };
        self.thaw(cx)?;
        let parent = match open_directory(CWD, above) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(Undone::Done),
            Err(errno) => return Err(failed(errno)),
        };
        if remove(&parent, name).map_err(|e| self.failed("rmdir", e))? {
            return Ok(Undone::Done);
        }
        Emptying::new(parent, leaf, self.at.clone(), Box::new(|| Ok(()))).begin()
    }
}
