//! Following a run that another process works on, without polling it: inotify says when its files change, a pidfd when its engine ends.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::journal;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::place;
use crate::print::{Failure, failed};

/// A run that is being followed.
pub struct Follow {
    names: RunNames,
    changes: Inotify,
    engine: Option<OwnedFd>,
}

impl Follow {
    /// Begins to watch; changes from now on are not missed.
    pub fn new(names: &RunNames) -> Result<Self, Failure> {
        let watch = || -> nix::Result<Inotify> {
            let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            let what = AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_DELETE_SELF;
            changes.add_watch(&names.dir(), what)?;
            Ok(changes)
        };
        let changes = watch().map_err(|e| failed(format!("cannot watch {}", names.dir().display()), &e))?;
        let engine = place::working_engine(names)
            .and_then(Pid::from_raw)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self { names: names.clone(), changes, engine })
    }

    /// Waits for the next change, or that long. False once nobody works on the run any more.
    pub fn wait(&mut self, longest: Option<Duration>) -> Result<bool, Failure> {
        let Some(engine) = &self.engine else { return Ok(false) };
        let longest = longest.and_then(|longest| Timespec::try_from(longest).ok());
        let mut fds = [PollFd::new(&self.changes, PollFlags::IN), PollFd::new(engine, PollFlags::IN)];
        loop {
            match poll(&mut fds, longest.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(failed("cannot wait for the run", &e)),
                Ok(_) => break,
            }
        }
        let ended = !fds[1].revents().is_empty();
        // Only that something changed matters, not what.
        while self.changes.read_events().is_ok_and(|events| !events.is_empty()) {}
        let settled = journal::read(&self.names).map_or(true, |state| state.is_settled());
        if settled && !ended {
            // Its last word comes after that, and with it why a run was taken back.
            while poll(&mut [PollFd::new(engine, PollFlags::IN)], None) == Err(rustix::io::Errno::INTR) {}
        }
        Ok(!ended && !settled)
    }
}

impl AsFd for Follow {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.changes.as_fd()
    }
}
