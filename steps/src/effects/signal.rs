//! Signals to a container.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cgroup::{Frozen, members_of, open_directory, thaw_all};
use super::wait::{resolve, watch};
use super::{example_process, wait};
use crate::outcomes::Process;
use crate::process::SignalName;

/// Sends a signal to a process, or to all in its cgroups; where the freezer would keep it from what is killed, that is thawed. What is gone is an error for the one, and nothing for the others.
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

/// How many processes are held on to at once.
const HELD: usize = 64;

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
            self.to_all(cx)?;
            self.thaw_killed()?;
            return Ok(Applied::done());
        }
        let process = resolve(&self.process, cx)?;
        let watched = watch(&process)?.filter(|w| !w.is_dead().unwrap_or(false));
        let watched = watched.ok_or_else(|| EffectError::new("container not running"))?;
        let frozen = Frozen::of(process.pid, true, cx);
        watched.signal(self.signal.0).map_err(|e| wait::refused(self.signal, process.pid, e))?;
        if self.signal.0 == Signal::KILL {
            frozen.thaw()?;
        }
        Ok(Applied::done())
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl SendSignal {
    /// What is killed may have been frozen by the container itself, in a cgroup below its own.
    fn thaw_killed(&self) -> Result<(), EffectError> {
        if self.signal.0 != Signal::KILL {
            return Ok(());
        }
        self.cgroups.iter().try_for_each(|dir| match open_directory(CWD, dir).and_then(thaw_all) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(errno) => Err(EffectError::call(format!("thaw {}", dir.display()), errno)),
        })
    }

    /// Processes that fork meanwhile are found in the next round; one that has been signalled is not signalled again. The first is meant wherever it
    /// is.
    fn to_all(&self, cx: &Cx) -> Result<(), EffectError> {
        let mut told = BTreeSet::new();
        let first = resolve(&self.process, cx)?;
        if let Some(watched) = watch(&first)?.filter(|watched| !watched.is_dead().unwrap_or(false)) {
            watched.signal(self.signal.0).map_err(|e| wait::refused(self.signal, first.pid, e))?;
            told.insert(first.pid);
        }
        loop {
            let mut fresh = false;
            for dir in &self.cgroups {
                let new: Vec<i32> = list(dir)?.into_iter().filter(|pid| told.insert(*pid)).collect();
                for pids in new.chunks(HELD) {
                    fresh |= self.tell(pids, dir)?;
                }
            }
            if !fresh {
                return Ok(());
            }
        }
    }

    /// Answers whether there was one of them.
    fn tell(&self, pids: &[i32], dir: &Path) -> Result<bool, EffectError> {
        let open = |pid: &i32| {
            let found = Pid::from_raw(*pid).filter(|pid| *pid != getpid())?;
            Some((*pid, pidfd_open(found, PidfdFlags::empty()).ok()?))
        };
        let opened: Vec<(i32, OwnedFd)> = pids.iter().filter_map(open).collect();
        // A pid may have passed to another process before it was opened: only one that is still in the cgroup is meant.
        let still: BTreeSet<i32> = list(dir)?.into_iter().collect();
        let mut fresh = false;
        for (pid, pidfd) in opened.into_iter().filter(|(pid, _)| still.contains(pid)) {
            match pidfd_send_signal(&pidfd, self.signal.0) {
                Ok(()) => fresh = true,
                Err(Errno::SRCH) => {}
                Err(e) => return Err(wait::refused(self.signal, pid, e.into())),
            }
        }
        Ok(fresh)
    }
}

fn list(dir: &Path) -> Result<Vec<i32>, EffectError> {
    members_of(dir).map_err(|e| EffectError::call(format!("list the processes of {}", dir.display()), e))
}
