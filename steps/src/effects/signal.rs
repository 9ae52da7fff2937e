//! Signals to a container.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cgroup::members_of;
use super::wait::{resolve, watch};
use super::{example_process, wait};
use crate::outcomes::Process;
use crate::process::SignalName;

/// Sends a signal to a process, or to all in its cgroups. What is gone is an error for the one, and nothing for the others.
#[derive(Debug, Serialize, Deserialize)]
pub struct SendSignal {
    /// The container's first process.
    pub process: Later<Process>,
    /// The signal.
    pub signal: SignalName,
    /// To every process in these directories instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<PathBuf>,
}

impl EffectDef for SendSignal {
    const KIND: &'static str = "signal";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { process: Later::Handle(example_process()), signal: SignalName::TERM, cgroups: Vec::new() }]
    }

    fn class(&self) -> Class {
        Class::Commit
    }

    fn describe(&self) -> String {
        if self.cgroups.is_empty() {
            return format!("send {} to {}", self.signal, self.process);
        }
        let dirs: Vec<String> = self.cgroups.iter().map(|dir| dir.display().to_string()).collect();
        format!("send {} to every process in {}", self.signal, dirs.join(", "))
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        if !self.cgroups.is_empty() {
            return self.to_all().map(|()| Applied::done());
        }
        let process = resolve(&self.process, cx)?;
        let watched = watch(&process)?.filter(|w| !w.is_dead().unwrap_or(false));
        let watched = watched.ok_or_else(|| EffectError::new("container not running"))?;
        watched.signal(self.signal.0).map_err(|e| wait::refused(self.signal, process.pid, e))?;
        Ok(Applied::done())
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl SendSignal {
    /// Processes that fork meanwhile are found in the next round; one that has been signalled is not signalled again.
    fn to_all(&self) -> Result<(), EffectError> {
        let mut told = BTreeSet::new();
        loop {
            let mut fresh = false;
            for dir in &self.cgroups {
                let listed = members_of(dir)
                    .map_err(|e| EffectError::call(format!("list the processes of {}", dir.display()), e))?;
                for pid in listed.into_iter().filter(|pid| told.insert(*pid)) {
                    fresh |= self.tell(pid, dir)?;
                }
            }
            if !fresh {
                return Ok(());
            }
        }
    }

    fn tell(&self, pid: i32, dir: &Path) -> Result<bool, EffectError> {
        let Some(found) = Pid::from_raw(pid).filter(|pid| *pid != getpid()) else { return Ok(false) };
        let Ok(pidfd) = pidfd_open(found, PidfdFlags::empty()) else { return Ok(false) };
        // The pid may have passed to another process before it was opened: only one that is still in the cgroup is meant.
        let still =
            members_of(dir).map_err(|e| EffectError::call(format!("list the processes of {}", dir.display()), e))?;
        if !still.contains(&pid) {
            return Ok(false);
        }
        match pidfd_send_signal(&pidfd, self.signal.0) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(e) => Err(wait::refused(self.signal, pid, e.into())),
        }
    }
}
