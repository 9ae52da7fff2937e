//! Looks where a container is in its life.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Status;
use super::wait::resolve;
use crate::outcomes::Process;

/// Fails unless the container has one of these statuses. Changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectStatus {
    /// The run's directory.
    pub directory: PathBuf,
    /// The container's first process.
    pub process: Later<Process>,
    /// What it may be.
    pub status: Vec<Status>,
    /// Its cgroups, to tell a paused one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cgroups: BTreeMap<String, PathBuf>,
}

/// Where a container is in its life, read from the machine and not from its state.json: a program ends without telling. The FIFO in the
/// container's directory goes when its program starts; a cgroup that is frozen tells that it is paused.
pub fn status_of(directory: &Path, process: &Process, cgroups: &BTreeMap<String, PathBuf>) -> std::io::Result<Status> {
    let alive = match process.watch()? {
        Some(watched) => !watched.is_dead().map_err(|e| std::io::Error::other(e.to_string()))?,
        None => false,
    };
    Ok(match alive {
        false => Status::Stopped,
        true if crate::cgroup::is_frozen(cgroups)? => Status::Paused,
        true if directory.join(crate::fifo::NAME).exists() => Status::Created,
        true => Status::Running,
    })
}

impl ExpectStatus {
    fn words(&self) -> String {
        self.status.iter().map(Status::to_string).collect::<Vec<_>>().join(" or ")
    }

    fn now(&self, process: &Process) -> Result<Status, EffectError> {
        status_of(&self.directory, process, &self.cgroups)
            .map_err(|e| EffectError::call(format!("look at {process}"), e))
    }
}

impl EffectDef for ExpectStatus {
    const KIND: &'static str = "state.expect";

    fn examples(scratch: &Path) -> Vec<Self> {
        let process = Process { pid: i32::MAX, start: 1, boot: "00000000-0000-0000-0000-000000000000".into() };
        vec![Self {
            directory: scratch.to_owned(),
            process: Later::Now(process),
            status: vec![Status::Stopped],
            cgroups: BTreeMap::new(),
        }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("see that {} is {}", self.process, self.words())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = resolve(&self.process, cx)?;
        let now = self.now(&process)?;
        if self.status.contains(&now) {
            return Ok(Applied::done());
        }
        let error = EffectError::new(format!("the container `{}` is {now}, not {}", cx.run.id, self.words()));
        Err(match now {
            Status::Running => error.help("stop it first, or force the deletion"),
            Status::Stopped => error.help("its program has ended; delete it"),
            Status::Paused => error.help("resume it first, or ask for it to be ignored (--ignore-paused)"),
            _ => error,
        })
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::testing::Bench;

    #[test]
    fn the_fifo_tells_created_from_running_and_the_process_running_from_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let me = Process::of(rustix::process::getpid()).unwrap();
        let see = |process: &Process, status| {
            let effect = ExpectStatus {
                directory: dir.path().to_owned(),
                process: Later::Now(process.clone()),
                status: vec![status],
                cgroups: BTreeMap::new(),
            };
            Bench::new(dir.path()).apply(&effect).1.map_err(|e| e.what)
        };
        assert!(see(&me, Status::Running).is_ok());
        assert_eq!(see(&me, Status::Created), Err("the container `test` is running, not created".into()));
        std::fs::write(dir.path().join(crate::fifo::NAME), "").unwrap();
        assert!(see(&me, Status::Created).is_ok());
        let earlier = Process { start: me.start + 1, ..me };
        assert!(see(&earlier, Status::Stopped).is_ok(), "another process has the pid");
    }
}
