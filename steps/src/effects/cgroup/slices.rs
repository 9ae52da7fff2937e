//! The slices that systemd starts on the way to a scope, and never stops.
//!
//! Whoever is last in a slice that came with a container takes it away. Who that is only systemd can tell, and it has no way to stop a slice
//! on the condition that it is empty (`StopWhenUnneeded` needs a unit file). So a slice is looked at, stopped by itself, with nothing that may
//! be in it by then, and looked at again: if somebody came in between, it is started again under him.
//!
//! A mark on the slice's cgroup tells other runs that it came with one of ours. It is set before the slice is looked at, and read after the
//! reader's own scope is gone: of two runs that leave at once, at least one sees the slice empty and its own.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lifecycle_engine::error::EffectError;
use rustix::fs::CWD;
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tree::children;
use super::{mark, open_directory, read};
use crate::systemd::{Job, Manager};

/// The mark's key on a slice's cgroups. One of its own: who makes cgroups without systemd marks parents that he may remove himself.
const MARK: &str = "lifecycle.slice";

/// How often one slice is stopped or started before it is left to those who come and go in it.
const TRIES: usize = 16;

/// The slices on the way to a scope, and where their cgroups are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slices {
    /// From the outermost in, without the topmost, which is always there.
    pub names: Vec<String>,
    /// Where the hierarchies are mounted in which systemd makes cgroups.
    pub mounts: Vec<PathBuf>,
}

/// Invocations by a slice's name.
pub(super) type Invocations = BTreeMap<String, String>;

impl Slices {
    /// None of them is known: an older journal's.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Those that run now.
    pub(super) fn running(&self, manager: &mut Manager) -> Result<Invocations, EffectError> {
        let mut running = Invocations::new();
        for name in &self.names {
            if let Some(slice) = manager.slice(name)?.filter(|slice| slice.runs) {
                running.insert(name.clone(), slice.invocation);
            }
        }
        Ok(running)
    }

    /// From the innermost out; `scope` is its cgroup below the top of each hierarchy.
    fn ways(&self, scope: &str) -> VecDeque<Way> {
        let above = Path::new(scope.trim_start_matches('/')).ancestors().skip(1);
        let way = |(name, path): (&String, &Path)| Way {
            name: name.clone(),
            directories: self.mounts.iter().map(|mount| mount.join(path)).collect(),
            came: false,
            tries: 0,
        };
        self.names.iter().rev().zip(above).map(way).collect()
    }
}

/// Which slices came with a scope.
pub(super) enum Came {
    /// Those that were new when the scope had been made.
    With(Invocations),
    /// Nobody got to look at them then: those that did not run before.
    Since(Invocations),
}

impl Came {
    /// Whether the question is worth asking.
    fn may_have(&self, name: &str) -> bool {
        match self {
            Self::With(made) => made.contains_key(name),
            Self::Since(_) => true,
        }
    }

    fn has(&self, name: &str, invocation: &str) -> bool {
        match self {
            Self::With(made) => made.get(name).is_some_and(|known| known == invocation),
            Self::Since(before) => before.get(name).is_none_or(|known| known != invocation),
        }
    }
}

/// One slice.
struct Way {
    name: String,
    /// Its cgroups; not all of them need be there.
    directories: Vec<PathBuf>,
    /// By our own journal's word.
    came: bool,
    tries: usize,
}

impl Way {
    fn is_marked(&self) -> bool {
        self.directories.iter().any(|at| open_directory(CWD, at).is_ok_and(|fd| mark::get(&fd, MARK).is_some()))
    }

    /// Lets other runs know that it came with one of ours.
    fn mark(&self) -> Result<(), EffectError> {
        for at in &self.directories {
            match open_directory(CWD, at).and_then(|fd| mark::set(&fd, MARK, "")) {
                Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) => return Err(EffectError::call(format!("mark {}", at.display()), errno)),
            }
        }
        Ok(())
    }

    /// Whether somebody runs in it, by a unit or without one.
    fn is_used(&self, users: &[String], manager: &mut Manager) -> Result<bool, EffectError> {
        for user in users {
            if manager.runs(user)? {
                return Ok(true);
            }
        }
        for at in &self.directories {
            if has_any(at).map_err(|e| EffectError::call(format!("look into {}", at.display()), e))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether there is a cgroup or a process in this one.
fn has_any(at: &Path) -> std::io::Result<bool> {
    let directory = match open_directory(CWD, at) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    if !children(&directory)?.is_empty() {
        return Ok(true);
    }
    match read(&directory, "cgroup.procs") {
        Ok(text) => Ok(!text.trim().is_empty()),
        Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ENODEV)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// systemd, or what it works on.
enum Asked {
    Idle(Manager),
    Working(Job),
}

/// Slices that are being left behind by the scope that was in them.
pub(super) struct Leaving {
    /// `None` only while it is passed on.
    asked: Option<Asked>,
    /// From the innermost out.
    left: VecDeque<Way>,
}

impl Leaving {
    /// Begins once the scope is gone.
    pub(super) fn new(mut manager: Manager, slices: &Slices, scope: &str, came: &Came) -> Result<Self, EffectError> {
        let mut left = slices.ways(scope);
        for way in left.iter_mut().filter(|way| came.may_have(&way.name)) {
            way.came = manager.slice(&way.name)?.is_some_and(|slice| came.has(&way.name, &slice.invocation));
            if way.came {
                way.mark()?;
            }
        }
        Ok(Self { asked: Some(Asked::Idle(manager)), left })
    }

    /// The descriptor that becomes readable when systemd says something.
    pub(super) fn fd(&self) -> Option<RawFd> {
        match &self.asked {
            Some(Asked::Working(job)) => Some(job.fd()),
            _ => None,
        }
    }

    /// When to give up.
    pub(super) fn until(&self) -> Option<Instant> {
        match &self.asked {
            Some(Asked::Working(job)) => Some(job.until),
            _ => None,
        }
    }

    /// Goes on as far as it can without waiting. `true`: whatever is left is somebody else's.
    pub(super) fn advance(&mut self) -> Result<bool, EffectError> {
        loop {
            let manager = match self.asked.take() {
                Some(Asked::Idle(manager)) => manager,
                Some(Asked::Working(mut job)) => {
                    if job.advance()?.is_none() {
                        self.asked = Some(Asked::Working(job));
                        return Ok(false);
                    }
                    job.manager
                }
                None => return Ok(true),
            };
            match self.next(manager)? {
                Some(asked) => self.asked = Some(asked),
                None => return Ok(true),
            }
        }
    }

    /// Looks at the innermost slice that is left. `None`: that is all.
    fn next(&mut self, mut manager: Manager) -> Result<Option<Asked>, EffectError> {
        let Some(way) = self.left.front_mut() else { return Ok(None) };
        if !way.came && !way.is_marked() {
            if way.directories.iter().any(|at| at.exists()) {
                return Ok(None);
            }
            // Another run has taken it away, and may not get to those above.
            self.left.pop_front();
            return Ok(Some(Asked::Idle(manager)));
        }
        if way.came {
            // It may have been started anew meanwhile, by us too.
            way.mark()?;
        }
        let slice = manager.slice(&way.name)?;
        let (known, runs) = (slice.is_some() || way.tries > 0, slice.as_ref().is_some_and(|slice| slice.runs));
        let used = way.is_used(slice.as_ref().map_or(&[], |slice| &slice.users), &mut manager)?;
        way.tries += 1;
        match (runs, used) {
            (true, true) => Ok(None),
            _ if way.tries > TRIES => Ok(None),
            (true, false) => manager.stop_slice(&way.name).map(Asked::Working).map(Some),
            // Somebody came while it was being stopped, by us or by a run of ours that was killed at that.
            (false, true) if known => {
                way.came = true;
                manager.start_slice(&way.name).map(Asked::Working).map(Some)
            }
            (false, _) => {
                self.left.pop_front();
                Ok(Some(Asked::Idle(manager)))
            }
        }
    }
}
