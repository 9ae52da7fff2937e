//! A process that holds namespaces for as long as they are needed, and does nothing else.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

use crate::process::Watched;
use crate::sys::clone::Clone;

/// The process. Dropped, it is killed and reaped.
pub(super) struct Holder {
    /// Its id in the caller's pid namespace.
    pub(super) pid: Pid,
    process: Watched,
}

impl Holder {
    /// One in new namespaces, as their `CLONE_NEW*` flags say. The caller must have one thread.
    pub(super) fn of(namespaces: i32) -> io::Result<Self> {
        let maker = getpid();
        let child = Clone { namespaces: namespaces as u64, ..Clone::default() }.spawn(move || {
            while is_tied_to(maker) {
                nix::unistd::pause();
            }
            1
        })?;
        Ok(Self { pid: child.pid, process: Watched::new(child.pidfd) })
    }

    /// Its pidfd.
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It goes with its maker at the latest.
        let _ = self.process.end();
    }
}

/// Has the kernel kill the calling process when its maker ends. False if that has happened already.
pub(super) fn is_tied_to(maker: Pid) -> bool {
    set_parent_process_death_signal(Some(Signal::KILL)).is_ok() && getppid() == Some(maker)
}
