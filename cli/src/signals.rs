//! SIGINT, SIGTERM and SIGHUP as a descriptor: they cancel a run, and can arrive at any time and any number of times.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Blocks the signals and makes them readable. Processes that the engine makes unblock them.
///
/// # Errors
///
/// What signalfd(2) says.
pub fn cancel() -> std::io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}
