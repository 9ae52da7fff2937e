//! Signal dispositions.

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::process::Signal;
use std::io;
use std::mem::MaybeUninit;

/// Gives every signal its default disposition again and blocks none: what exec passes on is what a container's process starts with.
///
/// `keep` stays as it is.
pub fn reset(keep: Option<Signal>) -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP || keep.is_some_and(|k| k.as_raw() == signal) {
            continue;
        }
        // SAFETY: an all-zero sigaction is SIG_DFL with no flags and an empty mask.
        let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: the structure outlives the call. The C library refuses the two signals that it uses itself (EINVAL); it has no threads here.
        if unsafe { libc::sigaction(signal, &raw const default, std::ptr::null_mut()) } != 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}
