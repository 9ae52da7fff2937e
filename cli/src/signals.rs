//! SIGINT, SIGTERM and SIGHUP as a descriptor: they cancel a run, and can arrive at any time and any number of times.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::print::{Failure, failed};

/// Blocks the signals and makes them readable. Processes that the engine makes unblock them.
pub fn cancel() -> Result<SignalFd, Failure> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    let blocked =
        set.thread_block().and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK));
    blocked.map_err(|e| failed("cannot take signals", &e))
}
