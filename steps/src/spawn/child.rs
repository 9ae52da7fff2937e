//! A forked copy of the engine that does nothing before its release.

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use lifecycle_engine::error::EffectError;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, setsid, waitid};

use super::{Exit, identity};
use crate::outcomes::Process;
use crate::sys::child::{close_all_but, default_signals, kill_group};
use crate::sys::clone;

/// The exit code of a copy whose engine went away before its release. Nobody is left to see it.
const FORSAKEN: i32 = 125;

/// Whose session and process group a new process is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Session {
    /// Its own.
    #[default]
    Own,
    /// Its maker's: a worker's children end with the worker.
    Maker,
}

/// A process that we made, in a session and a process group of its own. Until [`Child::release`] it is inert: the engine's death, which closes
/// the pipe that it waits on, ends it. Dropped before its end, it is killed with its group.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    gate: Option<OwnedFd>,
    identity: OnceCell<Result<Process, EffectError>>,
    ended: bool,
}

impl Child {
    /// Makes the process. After its release `body` runs in it, and its answer is the exit code; it gets the pipe's read end, whose end of file
    /// says that the engine is gone, or the error that kept it from getting ready. Of the engine's descriptors it has those in `keep`.
    pub fn fork(
        session: Session,
        keep: &[RawFd],
        body: impl FnOnce(io::Result<OwnedFd>) -> i32,
    ) -> Result<Self, EffectError> {
        let (wait, gate) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| EffectError::call("pipe2(O_CLOEXEC)", e))?;
        let mut kept = keep.to_vec();
        kept.push(wait.as_raw_fd());
        let pid = clone::fork(|| match (get_ready(session, &kept), released(&wait)) {
            (_, false) => FORSAKEN,
            (Ok(()), true) => body(Ok(wait)),
            (Err(error), true) => body(Err(error)),
        });
        let pid = pid.map_err(|e| EffectError::call("fork", e))?;
        // The process waits for us and nobody else takes it out of the table, so the pid is still its own.
        let pidfd =
            pidfd_open(pid, PidfdFlags::empty()).map_err(|e| EffectError::call(format!("pidfd_open({pid})"), e))?;
        Ok(Self { pid, pidfd, gate: Some(gate), identity: OnceCell::new(), ended: false })
    }

    /// What the journal needs to find it again. Read at the first call: a process in a container's site, where nobody journals it, needs no
    /// procfs.
    pub fn identity(&self) -> Result<&Process, EffectError> {
        self.identity.get_or_init(|| identity::identify(self.pid)).as_ref().map_err(Clone::clone)
    }

    /// Lets it go on. Where it was asked for its identity and there was none, it is killed: an unknown process must not run.
    pub fn release(&mut self) -> Result<(), EffectError> {
        if let Some(Err(error)) = self.identity.get() {
            return Err(error.clone());
        }
        let Some(gate) = &self.gate else { return Ok(()) };
        match rustix::io::retry_on_intr(|| rustix::io::write(gate, b"g")) {
            // It has been killed meanwhile, which its end will tell.
            Ok(_) | Err(rustix::io::Errno::PIPE) => Ok(()),
            Err(errno) => Err(EffectError::call(format!("write(release of process {})", self.pid), errno)),
        }
    }

    /// Closes the pipe, for a program that does not know of it.
    pub fn forget_gate(&mut self) {
        self.gate = None;
    }

    /// Readable once it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How it ended, if it has.
    pub fn exit(&mut self) -> Result<Option<Exit>, EffectError> {
        let exit = exit_of(self.pidfd())?;
        self.ended = exit.is_some();
        Ok(exit)
    }

    /// Its pidfd, for whoever waits for its end from now on: it is no longer killed when this goes.
    pub fn leave(&mut self) -> io::Result<OwnedFd> {
        let pidfd = self.pidfd.try_clone()?;
        self.ended = true;
        Ok(pidfd)
    }

    /// Kills it and its group. Does not wait.
    pub fn kill(&self) -> Result<(), EffectError> {
        if self.ended {
            return Ok(());
        }
        let refused = |e| EffectError::call(format!("kill(process group {}, SIGKILL)", self.pid), e);
        kill_group(self.pidfd(), self.pid).map_err(refused)?;
        // It may not have come to make its own group yet.
        match rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(refused(errno.into())),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Killing one's own child is refused only where it has changed its user ids; then the journal's identity is what undo goes by.
        if !self.ended && self.kill().is_ok() {
            let _ = self.exit();
        }
    }
}

/// How a child ended, if it has.
pub(crate) fn exit_of(pidfd: BorrowedFd<'_>) -> Result<Option<Exit>, EffectError> {
    let status = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
        .map_err(|e| EffectError::call("waitid(a child)", e))?;
    Ok(status.map(|s| match (s.exit_status(), s.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }))
}

/// Takes the copy out of the engine's session and away from its descriptors.
fn get_ready(session: Session, keep: &[RawFd]) -> io::Result<()> {
    if session == Session::Own {
        setsid()?;
    }
    close_all_but(keep)?;
    default_signals()
}

fn released(wait: &OwnedFd) -> bool {
    rustix::io::retry_on_intr(|| rustix::io::read(wait, &mut [0u8; 1])).is_ok_and(|n| n == 1)
}
