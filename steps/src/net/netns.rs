//! A process's network namespace, to be joined by a worker or to make a link in.

use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use lifecycle_engine::error::EffectError;
use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags, openat};

use crate::outcomes::Process;

/// The network namespace of a process, and the user namespace of that process.
#[derive(Debug)]
pub struct Netns {
    net: OwnedFd,
    user: OwnedFd,
}

impl Netns {
    /// That of a process which still runs.
    pub fn of(process: &Process) -> Result<Self, EffectError> {
        let gone = || EffectError::new(format!("{process} has ended, and its network namespace with it"));
        let directory =
            process.directory().map_err(|e| EffectError::call(format!("open(/proc/{})", process.pid), e))?;
        let directory = directory.ok_or_else(gone)?;
        let namespace = |name: &str| {
            openat(&directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| EffectError::call(format!("open(/proc/{}/{name})", process.pid), e))
        };
        Ok(Self { net: namespace("ns/net")?, user: namespace("ns/user")? })
    }

    /// The descriptors that a worker needs to join it.
    pub fn fds(&self) -> [RawFd; 2] {
        [self.net.as_raw_fd(), self.user.as_raw_fd()]
    }

    /// The namespace's descriptor.
    pub fn net(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }

    /// Moves the calling process there. For a worker: there is no way back for an ordinary user.
    pub fn join(&self) -> Result<(), EffectError> {
        match setns(&self.net, CloneFlags::CLONE_NEWNET) {
            Err(nix::errno::Errno::EPERM) => {
                // An ordinary user may join what belongs to a user namespace of its own, from within that.
                let user = setns(&self.user, CloneFlags::CLONE_NEWUSER);
                user.map_err(|e| EffectError::call("setns(CLONE_NEWUSER)", e))?;
                setns(&self.net, CloneFlags::CLONE_NEWNET).map_err(|e| EffectError::call("setns(CLONE_NEWNET)", e))
            }
            answer => answer.map_err(|e| EffectError::call("setns(CLONE_NEWNET)", e)),
        }
    }
}
