//! Ends whatever is left in a cgroup that is ours, and removes it with all that was made below it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Cx, Interest, Pending, Undone};
use lifecycle_engine::error::EffectError;
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use super::{open_directory, read, realtime, thaw_all, tree, write};
use crate::process::holding::{cure, listed};

/// The longest that killed processes may take to be gone. One that hangs in the kernel (a dead network file system) never is.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most processes that are waited for at once; the rest follow in the next round.
const WATCHED: usize = 64;

/// Processes in the cgroup at that path and in those below it. A cgroup that is gone has none.
pub(crate) fn processes_below(at: &std::path::Path) -> std::io::Result<Vec<i32>> {
    match open_directory(rustix::fs::CWD, at) {
        Ok(directory) => processes(directory),
        Err(Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    }
}

/// Processes in the cgroup and those below it, by pid. 0 stands for one of another pid namespace.
pub(super) fn processes(directory: impl AsFd) -> std::io::Result<Vec<i32>> {
    let mut found = Vec::new();
    tree::each(directory.as_fd(), &mut |cgroup| {
        match read(cgroup, "cgroup.procs") {
            Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            // A threaded cgroup of version 2 lists no processes; their leader is listed above it. One that goes meanwhile has none.
            Err(e)
                if matches!(e.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::OPNOTSUPP | Errno::NODEV)) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        Ok(())
    })?;
    Ok(found)
}

/// A cgroup that is being emptied and removed.
pub(super) struct Emptying {
    parent: OwnedFd,
    directory: OwnedFd,
    name: OsString,
    /// For messages.
    at: PathBuf,
    /// Readable when `cgroup.events` changes (version 2).
    events: Option<OwnedFd>,
    /// Readable when the process has ended.
    dying: Vec<OwnedFd>,
    until: Instant,
    next: Instant,
    pause: Duration,
    /// It has real time of version 1, see [`realtime::let_go`].
    realtime: bool,
    /// It was there before, and stays.
    stays: bool,
    /// What is left to do once it is gone.
    then: Option<Box<dyn FnOnce() -> Result<(), EffectError>>>,
}

impl Emptying {
    /// Nothing has been done yet.
    pub(super) fn new(
        parent: OwnedFd,
        directory: OwnedFd,
        at: PathBuf,
        then: Box<dyn FnOnce() -> Result<(), EffectError>>,
    ) -> Self {
        let (now, pause) = (Instant::now(), Duration::from_millis(1));
        Self {
            name: at.file_name().map(OsStr::to_owned).unwrap_or_default(),
            events: watch(&at),
            dying: Vec::new(),
            until: now + PATIENCE,
            next: now + pause,
            pause,
            realtime: false,
            stays: false,
            then: Some(then),
            parent,
            directory,
            at,
        }
    }

    /// It may have real time.
    pub(super) fn with_realtime(self, realtime: bool) -> Self {
        Self { realtime, ..self }
    }

    /// It was there before, and stays: what is in it goes alone.
    pub(super) fn staying(self) -> Self {
        Self { stays: true, ..self }
    }

    /// Kills what is in it.
    pub(super) fn begin(mut self) -> Result<Undone, EffectError> {
        self.kill()?;
        Ok(Undone::Pending(Box::new(self)))
    }

    /// Kills all processes in it. Those that fork meanwhile are found in the next round.
    fn kill(&mut self) -> Result<(), EffectError> {
        let failed = |what: &str, e: std::io::Error| EffectError::call(format!("{what} {}", self.at.display()), e);
        // Some kernels (seen on 6.18) kill whoever is cloned into a cgroup in which all were killed so, from then on.
        if !self.stays && write(&self.directory, "cgroup.kill", "1").is_ok() {
            return Ok(());
        }
        let listed = processes(&self.directory).map_err(|e| failed("list the processes of", e))?;
        let open = |pid: i32| {
            let pid = Pid::from_raw(pid).filter(|pid| *pid != getpid())?;
            Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?))
        };
        let opened: Vec<(Pid, OwnedFd)> = listed.iter().take(WATCHED).filter_map(|pid| open(*pid)).collect();
        // A pid may have passed to another process before it was opened: only one that is still in the cgroup is ours.
        let still = processes(&self.directory).map_err(|e| failed("list the processes of", e))?;
        self.dying.clear();
        for (pid, fd) in opened {
            if !still.contains(&pid.as_raw_nonzero().get()) {
                continue;
            }
            match pidfd_send_signal(&fd, Signal::KILL) {
                Ok(()) => self.dying.push(fd),
                Err(Errno::SRCH) => {}
                Err(errno) => return Err(failed("kill the processes of", errno.into())),
            }
        }
        // A process that is frozen by version 1's freezer does not see the signal, and a container may freeze cgroups of its own.
        let directory = self.directory.try_clone().map_err(|e| failed("dup the descriptor of", e))?;
        thaw_all(directory).map_err(|errno| failed("thaw", errno.into()))
    }

    fn stuck(&self) -> EffectError {
        let left = processes(&self.directory).unwrap_or_default();
        let what = if left.is_empty() {
            "it holds no process that can be seen".to_owned()
        } else {
            format!("{} of its processes do not end: {}", left.len(), listed(&left))
        };
        let help = left.first().map_or_else(|| "undo again when what is in it has ended".to_owned(), |pid| cure(*pid));
        EffectError::call(format!("empty the cgroup {}: {what}", self.at.display()), Errno::BUSY).help(help)
    }
}

/// An inotify descriptor for the cgroup's events, where it has them.
pub(super) fn watch(at: &std::path::Path) -> Option<OwnedFd> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
    inotify::add_watch(&fd, at.join("cgroup.events"), inotify::WatchFlags::MODIFY).ok()?;
    Some(fd)
}

/// Takes what an inotify descriptor has to tell: that something has changed, which is known then.
pub(super) fn drain(events: Option<&OwnedFd>) {
    let mut buffer = [0_u8; 1024];
    while events.is_some_and(|fd| rustix::io::read(fd, &mut buffer).is_ok_and(|n| n > 0)) {}
}

impl Pending for Emptying {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.extend(self.events.iter().chain(&self.dying).map(|fd| Interest::read(fd.as_raw_fd())));
    }

    /// The kernel drops an ended process from its cgroup a moment after its pidfd tells of the end, without another sign on version 1.
    fn deadline(&self) -> Option<Instant> {
        Some(self.next.min(self.until))
    }

    fn advance(&mut self, _cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        drain(self.events.as_ref());
        if self.realtime {
            realtime::let_go(&self.directory);
        }
        let gone = if self.stays {
            processes(&self.directory).map(|left| left.is_empty())
        } else {
            tree::remove_all(&self.parent, &self.name)
        };
        let gone = gone.map_err(|e| EffectError::call(format!("empty the cgroup {}", self.at.display()), e))?;
        if gone {
            return self.then.take().map_or(Ok(()), |then| then()).map(|()| Some(Value::Null));
        }
        let now = Instant::now();
        if now >= self.until {
            return Err(self.stuck());
        }
        self.pause = (self.pause * 2).min(Duration::from_millis(100));
        self.next = now + self.pause;
        self.kill()?;
        Ok(None)
    }

    fn late(&self) -> Option<EffectError> {
        Some(self.stuck())
    }

    fn cancel(&mut self, _cx: &mut Cx) {}
}
