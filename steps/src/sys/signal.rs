//! Signal dispositions.

use super::check;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::process::Signal;
use std::io;

/// The first and the last realtime signal that programs may use. The kernel's begin at 32, of which the C libraries keep two for themselves; this
/// is what a container's program means by SIGRTMIN, whatever this program was built with.
pub const REALTIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The realtime signal of that number.
pub fn realtime(number: i32) -> Option<Signal> {
    // SAFETY: the kernel has it, and no C library keeps it for itself.
    REALTIME.contains(&number).then(|| unsafe { Signal::from_raw_unchecked(number) })
}

/// The kernel's struct sigaction is a handler, flags, a restorer and a mask.
const WORDS_OF_SIGACTION: usize = 8;
/// The kernel's sigset_t: 64 signals, 128 on MIPS.
const SIZE_OF_SIGSET: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 16 } else { 8 };

/// Gives every signal its default disposition again and blocks none: what exec passes on is what a container's process starts with.
///
/// `keep` stays as it is. Not by the C library, which refuses to touch the two signals that its threads use: a caller that ignores all signals has
/// ignored them too.
pub fn reset(keep: Option<Signal>) -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP && keep.is_none_or(|k| k.as_raw() != signal) {
            default(signal)?;
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Gives the signal its default disposition again; all of them without one.
pub fn reset_to_default(signal: Option<Signal>) -> io::Result<()> {
    signal.map_or_else(|| reset(None), |signal| default(signal.as_raw()))
}

fn default(signal: i32) -> io::Result<()> {
    let default = [0u64; WORDS_OF_SIGACTION];
    // SAFETY: all zeros are SIG_DFL, no flags and an empty mask, in more bytes than the kernel's structure has on any machine.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, std::ptr::null_mut::<u64>(), SIZE_OF_SIGSET)
    })
    .map(drop)
}
