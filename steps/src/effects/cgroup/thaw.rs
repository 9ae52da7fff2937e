//! Lets killed processes go on that the freezer of version 1 holds: they see no signal before. Version 2's lets them die.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Cx, Interest, Pending};
use lifecycle_engine::error::EffectError;
use rustix::fs::CWD;
use rustix::io::Errno;
use serde_json::Value;

use super::{directory, machine, open_directory, tree, write};
use crate::facts::cgroup_of;

/// How often what is to die is thawed: a container may freeze its own as long as one of its processes lives.
const AGAIN: Duration = Duration::from_millis(50);

/// What may keep a process frozen that is to die.
pub(crate) struct Frozen {
    /// From the topmost cgroup that is the run's down to the process's own.
    chain: Vec<PathBuf>,
    /// All that is below the topmost dies with it.
    whole: bool,
}

impl Frozen {
    /// The cgroup of a process, and what is between it and the cgroup that the run made. One that is nobody's of ours is left as it is: others may
    /// stand still in it on purpose. `whole`: the process is the container's first.
    pub(crate) fn of(pid: i32, whole: bool, cx: &Cx) -> Self {
        let none = Self { chain: Vec::new(), whole };
        let Some(freezer) = machine().v1_of("freezer").map(|hierarchy| hierarchy.mount.clone()) else { return none };
        // One that has gone needs nothing any more.
        let Ok(text) = std::fs::read(format!("/proc/{pid}/cgroup")) else { return none };
        let Some(path) = path_of(&text) else { return none };
        // A process that was executed in a container is in the cgroup of the run around its own.
        let tags: Vec<String> = std::iter::once(cx.run.tag()).chain(cx.run.around().map(|run| run.tag())).collect();
        let chain = ours(&freezer, path, &|at| tags.iter().any(|tag| directory::is_marked(at, tag)));
        Self { chain, whole }
    }

    pub(crate) fn thaw(&self) -> Result<(), EffectError> {
        let gone = |errno| matches!(errno, Errno::NOENT | Errno::NODEV);
        for (index, at) in self.chain.iter().enumerate() {
            let opened = open_directory(CWD, at);
            let thawed =
                opened.and_then(|cgroup| if self.whole && index == 0 { thaw_all(cgroup) } else { thaw(cgroup) });
            match thawed {
                Err(errno) if !gone(errno) => {
                    return Err(EffectError::call(format!("thaw {}", at.display()), errno));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Thaws this cgroup, if it is one of version 1's freezer.
pub(super) fn thaw(cgroup: impl AsFd) -> Result<(), Errno> {
    match write(cgroup, "freezer.state", "THAWED") {
        Err(Errno::NOENT | Errno::NODEV) => Ok(()),
        answer => answer,
    }
}

/// Thaws it and every one below: each may have been frozen by itself.
pub(crate) fn thaw_all(cgroup: OwnedFd) -> Result<(), Errno> {
    match write(&cgroup, "freezer.state", "THAWED") {
        Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
        answer => answer?,
    }
    tree::each(cgroup.as_fd(), &mut |below| Ok(thaw(below)?)).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

/// Waits for the end of what was killed, and thaws it again and again.
pub(crate) struct Thawing {
    pub(crate) dying: Box<dyn Pending>,
    pub(crate) frozen: Frozen,
    next: Instant,
}

impl Thawing {
    pub(crate) fn new(dying: Box<dyn Pending>, frozen: Frozen) -> Self {
        Self { dying, frozen, next: Instant::now() }
    }
}

impl Pending for Thawing {
    fn started(&self) -> Value {
        self.dying.started()
    }

    fn release(&mut self, cx: &mut Cx) -> Result<(), EffectError> {
        self.dying.release(cx)
    }

    fn interest(&self, wants: &mut Vec<Interest>) {
        self.dying.interest(wants);
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.dying.deadline().map_or(self.next, |until| until.min(self.next)))
    }

    fn advance(&mut self, cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        if Instant::now() >= self.next {
            self.frozen.thaw()?;
            self.next = Instant::now() + AGAIN;
        }
        self.dying.advance(cx)
    }

    fn late(&self) -> Option<EffectError> {
        self.dying.late()
    }

    fn cancel(&mut self, cx: &mut Cx) {
        self.dying.cancel(cx);
    }
}

/// The path of its cgroup below the freezer's top.
fn path_of(text: &[u8]) -> Option<&Path> {
    let freezer = |controllers: &str| controllers.split(',').any(|name| name == "freezer");
    let path = cgroup_of(text, freezer)?;
    Some(path.strip_prefix("/").unwrap_or(path))
}

/// From the topmost cgroup that is the run's down to the process's own; none if none is.
fn ours(top: &Path, path: &Path, is_ours: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let at = top.join(path);
    let mut chain: Vec<PathBuf> = at.ancestors().take_while(|above| *above != top).map(Path::to_owned).collect();
    match chain.iter().rposition(|at| is_ours(at)) {
        Some(last) => {
            chain.truncate(last + 1);
            chain.reverse();
            chain
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn only_what_is_below_the_runs_own_cgroup_is_thawed() {
        let text = b"5:pids:/a\n4:cpu,freezer:/lifecycle/web/inner\n0::/\n";
        assert_eq!(path_of(text), Some(Path::new("lifecycle/web/inner")));
        assert_eq!(path_of(b"4:freezer:/web/\xff\n"), Some(Path::new(OsStr::from_bytes(b"web/\xff"))));
        assert_eq!(path_of(b"0::/x\n"), None);
        let of = |own: &str| ours(Path::new("/cg"), Path::new("lifecycle/web/inner"), &|at| at.ends_with(own));
        let all = ["/cg/lifecycle/web", "/cg/lifecycle/web/inner"].map(PathBuf::from);
        assert_eq!(of("web"), all);
        assert_eq!(of("inner"), all[1..]);
        assert!(of("other").is_empty());
    }
}
