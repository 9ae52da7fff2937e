//! Makes a cgroup in one hierarchy.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, UndoTurn, Undone};
use lifecycle_engine::error::EffectError;
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::members::{Emptying, processes};
use super::realtime::{self, Realtime};
use super::{Cgroup, TOP, Version, mark, open_directory, read, remove, write};
use crate::process::holding::listed;

/// The mark's key. On a container's cgroup its value is the run's tag, on a parent that runs may share it is [`SHARED`].
const MARK: &str = "lifecycle";
const SHARED: &str = "shared";
/// The key of the mark on a cgroup that was there, and empty, before the run put its container into it; its value is the run's tag. Whoever takes
/// the cgroup next takes the mark.
const TENANT: &str = "lifecycle.tenant";

/// How often the way down is taken again when another run removes a parent meanwhile.
const TRIES: usize = 64;

/// Why a parent cannot have more real time.
pub(super) const NO_REALTIME: &str =
    "the cgroups above have less left to give than realtimeRuntime asks for; see their cpu.rt_runtime_us";

/// The files that a new cgroup of version 1's cpuset has empty, and without which no process may join it.
const PLACES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Makes a cgroup and the parents that it lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeCgroup {
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The cgroup's path below it, without a leading slash: one or more plain names.
    pub path: String,
    /// The hierarchy's version.
    pub version: Version,
    /// The hierarchy's controllers (version 1).
    #[serde(default)]
    pub controllers: Vec<String>,
    /// The real time that it will ask for (version 1's cpu): parents that runs made have none unless they are given some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realtime: Option<Realtime>,
}

/// Whether runs of ours made the directory, and share it.
pub(super) fn is_shared(at: &Path) -> bool {
    open_directory(CWD, at).is_ok_and(|fd| mark::get(&fd, MARK).as_deref() == Some(SHARED))
}

/// Whether this directory above a cgroup of that path is one that runs of ours make.
pub(super) fn is_parent_of_runs(directory: impl AsFd, path: &str) -> bool {
    path.split('/').next() == Some(TOP) || mark::get(directory.as_fd(), MARK).as_deref() == Some(SHARED)
}

/// Whether the run with that tag made the directory for its processes.
pub(super) fn is_marked(at: &Path, tag: &str) -> bool {
    open_directory(CWD, at).is_ok_and(|fd| mark::get(&fd, MARK).as_deref() == Some(tag))
}

/// What was there before.
#[derive(Clone, Serialize, Deserialize)]
struct Before {
    /// How many of the path's names existed, from the top.
    existing: usize,
    /// Which of those had no CPUs or memory nodes, counted from the top.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unplaced: Vec<usize>,
}

impl MakeCgroup {
    /// The cgroup's directory.
    pub fn at(&self) -> PathBuf {
        self.mount.join(&self.path)
    }

    fn names(&self) -> Vec<&str> {
        self.path.split('/').collect()
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// Whether what it has of it comes from its parents: it may have asked for some after it was made, too.
    fn divides_realtime(&self) -> bool {
        self.version == Version::V1 && self.has("cpu")
    }

    fn failed(&self, what: &str, depth: usize, errno: impl Into<std::io::Error>) -> EffectError {
        let at = self.names().iter().take(depth).fold(self.mount.clone(), |at, name| at.join(name));
        let error = EffectError::call(format!("{what} {}", at.display()), errno);
        match error.errno.map(Errno::from_raw_os_error) {
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                error.help("making a cgroup here needs root, or a cgroup that was delegated to the caller")
            }
            _ => error,
        }
    }

    /// The directories from the mount point down, as far as they exist.
    fn chain(&self) -> Result<Vec<OwnedFd>, EffectError> {
        let top = match open_directory(CWD, &self.mount) {
            Ok(top) => top,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(self.failed("open", 0, errno)),
        };
        let mut chain = vec![top];
        for name in self.names() {
            let Some(parent) = chain.last() else { break };
            match open_directory(parent, name) {
                Ok(directory) => chain.push(directory),
                Err(Errno::NOENT) => break,
                Err(errno) => return Err(self.failed("open", chain.len(), errno)),
            }
        }
        Ok(chain)
    }

    /// A cgroup that a process could join only to be killed, frozen or counted with others is refused.
    fn check_free(&self, leaf: &OwnedFd) -> Result<(), EffectError> {
        let at = self.at();
        let members = processes(leaf).map_err(|e| self.failed("list the processes of", usize::MAX, e))?;
        if !members.is_empty() {
            let what = format!("the cgroup {} is not empty; in it: {}", at.display(), listed(&members));
            return Err(EffectError::new(what)
                .help("another container may use it; give each container a cgroupsPath of its own"));
        }
        self.check_thawed(leaf)
    }

    /// A process in a frozen cgroup would stop at its first step.
    fn check_thawed(&self, leaf: &OwnedFd) -> Result<(), EffectError> {
        let frozen = match self.version {
            Version::V2 => read(leaf, "cgroup.events").is_ok_and(|text| text.lines().any(|line| line == "frozen 1")),
            Version::V1 => self.has("freezer") && read(leaf, "freezer.state").is_ok_and(|text| text.trim() != "THAWED"),
        };
        if !frozen {
            return Ok(());
        }
        Err(EffectError::new(format!("the cgroup {} is frozen", self.at().display()))
            .help("thaw it, or the parent that was frozen, first"))
    }

    /// Takes the way down once, making what is missing. `None`: another run removed a parent meanwhile.
    fn make(&self, cx: &Cx, existing: usize) -> Result<Option<(OwnedFd, bool)>, EffectError> {
        let names = self.names();
        let mut parent = open_directory(CWD, &self.mount).map_err(|e| self.failed("open", 0, e))?;
        let mut made = false;
        for (depth, name) in (1..).zip(&names) {
            let leaf = depth == names.len();
            made = match mkdirat(&parent, *name, Mode::from_raw_mode(0o755)) {
                Ok(()) => true,
                Err(Errno::EXIST) if leaf && existing < names.len() => {
                    return Err(self.failed("mkdir", depth, Errno::EXIST).help("somebody made it at the same moment"));
                }
                Err(Errno::EXIST) => false,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(self.failed("mkdir", depth, errno)),
            };
            let directory = match open_directory(&parent, *name) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(self.failed("open", depth, errno)),
            };
            if made {
                let value = if leaf { cx.run.tag() } else { SHARED.to_owned() };
                match mark::set(&directory, MARK, &value) {
                    Err(e) if is_gone(e) => return Ok(None),
                    marked => marked.map_err(|e| self.failed("mark", depth, e))?,
                };
            }
            if let Some(realtime) =
                self.realtime.filter(|_| !leaf && self.is_parent_of_ours(&directory, depth, existing))
            {
                match realtime::give(&directory, &self.path, realtime, &cx.run.tag()) {
                    Err(errno) if is_gone(errno) => return Ok(None),
                    given => given.map_err(|e| self.failed("give real time to", depth, e).help(NO_REALTIME))?,
                }
            }
            if self.has("cpuset") {
                match self.place(&parent, &directory, depth) {
                    Err(error) if error.errno.map(Errno::from_raw_os_error).is_some_and(is_gone) => {
                        if leaf && made {
                            remove(&parent, *name).map_err(|e| self.failed("rmdir", depth, e))?;
                        }
                        return Ok(None);
                    }
                    placed => placed?,
                }
            }
            parent = directory;
        }
        Ok(Some((parent, made)))
    }

    /// Gives a cgroup of version 1's cpuset its parent's CPUs and memory nodes, if it has none.
    fn place(&self, parent: &OwnedFd, directory: &OwnedFd, depth: usize) -> Result<(), EffectError> {
        for file in PLACES {
            let text = |of: &OwnedFd| read(of, file).map_err(|e| self.failed("read the CPUs of", depth, e));
            if text(directory)?.trim().is_empty() {
                let value = text(parent)?;
                if value.trim().is_empty() {
                    // They were given, and another run took them back since: as if it had removed the parent.
                    return Err(self.failed("read the CPUs of", depth - 1, Errno::NOENT));
                }
                write(directory, file, value.trim()).map_err(|e| self.failed("give CPUs to", depth, e))?;
            }
        }
        Ok(())
    }

    /// Whether runs of ours made that parent, whichever did.
    fn is_parent_of_ours(&self, directory: &OwnedFd, depth: usize, existing: usize) -> bool {
        depth > existing || is_parent_of_runs(directory, &self.path)
    }

    /// Takes back what the parents have for this cgroup, which is gone, and removes those that nobody else needs.
    fn leave_parents(&self, before: &Before, tag: &str) -> Result<(), EffectError> {
        if self.divides_realtime() {
            let (chain, parents) = (self.chain()?, self.names().len());
            for (depth, parent) in chain.iter().enumerate().take(parents).skip(1).rev() {
                match realtime::take_back(parent, &self.path, tag) {
                    Err(errno) if is_gone(errno) => {}
                    taken => taken.map_err(|e| self.failed("take the real time of", depth, e))?,
                }
            }
        }
        self.remove_parents(before)
    }

    /// Removes the parents that are provably ours, from the bottom up, until one is in use.
    fn remove_parents(&self, before: &Before) -> Result<(), EffectError> {
        let names = self.names();
        let chain = self.chain()?;
        for depth in (1..names.len()).rev() {
            let Some(directory) = chain.get(depth) else { continue };
            if !self.is_parent_of_ours(directory, depth, before.existing) {
                break;
            }
            if !remove(&chain[depth - 1], names[depth - 1]).map_err(|e| self.failed("rmdir", depth, e))? {
                // Another run is in it. A run of ours that was killed before it could mark the directory has to do so now.
                mark::set(directory, MARK, SHARED).map_err(|e| self.failed("mark", depth, e))?;
                break;
            }
        }
        self.unplace(before)
    }

    /// Takes back the CPUs that cgroups which were there before got from us. One that is in use keeps them: that is somebody else's use.
    fn unplace(&self, before: &Before) -> Result<(), EffectError> {
        let chain = self.chain()?;
        for depth in before.unplaced.iter().rev() {
            let Some(directory) = chain.get(*depth) else { continue };
            // Another run had made it and was about to give it some: they are for all that are to be in it.
            if self.is_parent_of_ours(directory, *depth, before.existing) {
                continue;
            }
            for file in PLACES {
                match write(directory, file, "\n") {
                    Ok(()) | Err(Errno::BUSY | Errno::NOSPC | Errno::NOENT) => {}
                    Err(errno) => return Err(self.failed("take the CPUs of", *depth, errno)),
                }
            }
        }
        Ok(())
    }

    /// Ends what the container has left in a cgroup that was there before it and was empty then. What is in it is the container's as long as the
    /// mark says that nobody has taken the cgroup since.
    fn leave(
        &self,
        (parent, leaf): (OwnedFd, OwnedFd),
        record: &Record,
        before: &Before,
        tag: &str,
    ) -> Result<Option<Undone>, EffectError> {
        if mark::get(&leaf, TENANT).as_deref() != Some(tag) {
            return Ok(None);
        }
        let found = Cgroup::of(&leaf, false).map_err(|e| self.failed("fstat", usize::MAX, e))?;
        let is_same = record.outcome::<Cgroup>().is_some_and(|cgroup| cgroup == found);
        let members = processes(&leaf).map_err(|e| self.failed("list the processes of", usize::MAX, e))?;
        if is_same && !members.is_empty() {
            let open = leaf.try_clone().map_err(|e| self.failed("dup the descriptor of", usize::MAX, e))?;
            let (rest, before, tag) = (self.clone(), before.clone(), tag.to_owned());
            let then = Box::new(move || {
                mark::clear(&open, TENANT).map_err(|e| rest.failed("unmark", usize::MAX, e))?;
                rest.leave_parents(&before, &tag)
            });
            return Emptying::new(parent, leaf, self.at(), then).staying().begin().map(Some);
        }
        mark::clear(&leaf, TENANT).map_err(|e| self.failed("unmark", usize::MAX, e))?;
        Ok(None)
    }

    /// Whether the leaf may be removed: by its recorded identity, or because it was not there before and nobody else has marked it.
    fn is_ours(&self, leaf: &OwnedFd, record: &Record, before: &Before, tag: &str) -> Result<bool, EffectError> {
        match record.outcome::<Cgroup>() {
            Some(cgroup) if !cgroup.made => Ok(false),
            Some(cgroup) => {
                let now = Cgroup::of(leaf, true).map_err(|e| self.failed("fstat", usize::MAX, e))?;
                Ok(now == cgroup)
            }
            None => Ok(before.existing < self.names().len() && mark::get(leaf, MARK).is_none_or(|whose| whose == tag)),
        }
    }
}

/// What the kernel says of a cgroup, and of its files, that somebody has removed since it was opened.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NODEV)
}

impl EffectDef for MakeCgroup {
    const KIND: &'static str = "cgroup.directory";

    /// Each is in a hierarchy of its own.
    const TURN: UndoTurn = UndoTurn::SideBySide;

    fn examples(scratch: &Path) -> Vec<Self> {
        // Below the mounted hierarchies, since cgroups live nowhere else.
        let layout = super::machine();
        let v1 = layout.v1.into_iter().map(|h| (h.mount, Version::V1, h.controllers));
        let v2 = layout.v2.into_iter().map(|unified| (unified.mount, Version::V2, Vec::new()));
        let make = |(mount, version, controllers): (PathBuf, Version, Vec<String>)| {
            let realtime = controllers.iter().any(|name| name == "cpu") && mount.join("cpu.rt_runtime_us").exists();
            let realtime = Some(Realtime { runtime: 1000, period: None }).filter(|_| realtime);
            Self { mount, path: super::example_path(scratch), version, controllers, realtime }
        };
        v1.chain(v2).map(make).collect()
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let inherits = if self.has("cpuset") { ", with its parent's CPUs and memory nodes" } else { "" };
        let realtime = self.realtime.filter(|_| self.path.contains('/'));
        let realtime = realtime.map(|r| format!(", its parents with {} µs of real time for it", r.runtime));
        format!("make the cgroup {}{inherits}{}", self.at().display(), realtime.unwrap_or_default())
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        let chain = self.chain()?;
        let mut before = Before { existing: chain.len().saturating_sub(1), unplaced: Vec::new() };
        if self.has("cpuset") {
            let empty = |fd: &OwnedFd| PLACES.iter().any(|f| read(fd, f).is_ok_and(|text| text.trim().is_empty()));
            before.unplaced = (1..chain.len()).filter(|depth| empty(&chain[*depth])).collect();
        }
        serde_json::to_value(before).map_err(|e| EffectError::new(e.to_string()))
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let existing = Before::deserialize(before).map_or(0, |before| before.existing);
        for _ in 0..TRIES {
            let Some((leaf, made)) = self.make(cx, existing)? else { continue };
            let check = if made { Self::check_thawed } else { Self::check_free };
            check(self, &leaf)?;
            if !made {
                mark::set(&leaf, TENANT, &cx.run.tag()).map_err(|e| self.failed("mark", usize::MAX, e))?;
            }
            let cgroup = Cgroup::of(&leaf, made).map_err(|e| self.failed("fstat", usize::MAX, e))?;
            return Applied::outcome(&cgroup);
        }
        Err(self.failed("mkdir", usize::MAX, Errno::NOENT).help("other runs keep removing its parents; try again"))
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        // What was there before is recorded before anything is made: without it nothing was.
        if record.before.is_null() {
            return Ok(Undone::Done);
        }
        let names = self.names();
        let before = Before::deserialize(&record.before).map_err(|e| {
            EffectError::new(format!("what was there before {} is unreadable: {e}", self.at().display()))
        })?;
        let mut chain = self.chain()?;
        if chain.len() > names.len()
            && let Some(leaf) = chain.pop()
            && let Some(parent) = chain.pop()
        {
            if !self.is_ours(&leaf, record, &before, &cx.run.tag())? {
                if let Some(emptying) = self.leave((parent, leaf), record, &before, &cx.run.tag())? {
                    return Ok(emptying);
                }
                self.leave_parents(&before, &cx.run.tag())?;
                return Ok(Undone::Done);
            }
            let name = names[names.len() - 1];
            let realtime = self.divides_realtime();
            if realtime {
                realtime::let_go(&leaf);
            }
            let gone = remove(&parent, name).map_err(|e| self.failed("rmdir", usize::MAX, e))?;
            // Without an outcome no process of ours can be in it yet: whoever is came by himself.
            if !gone && record.outcome.is_some() {
                let (rest, tag) = (self.clone(), cx.run.tag());
                let then = Box::new(move || rest.leave_parents(&before, &tag));
                return Emptying::new(parent, leaf, self.at(), then).with_realtime(realtime).begin();
            }
        }
        self.leave_parents(&before, &cx.run.tag())?;
        Ok(Undone::Done)
    }
}
