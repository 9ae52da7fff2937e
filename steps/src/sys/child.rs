//! What a forked copy of the engine does before it becomes something else.

use super::check;
use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// Closes every descriptor of the calling process but standard input, output and error and those in `keep`.
///
/// A copy of the engine holds all that the engine has open: locks on journals, other children's release pipes, sockets of sites. As long as the
/// copy has them, nobody sees the end of file that the engine's death must give.
///
/// The caller must be a fresh copy that ends by `_exit`: whoever owned the descriptors in it never runs again.
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        if fd > first {
            close(first, fd as u32 - 1)?;
        }
        first = first.max(fd + 1);
    }
    close(first, u32::MAX)
}

/// Closes the descriptors from `first` to `last`, both included.
fn close(first: RawFd, last: u32) -> io::Result<()> {
    // SAFETY: the call touches no memory; see above for whose descriptors these are.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    match check(answer) {
        Ok(_) => Ok(()),
        // Before Linux 5.9 there is no such call, and a filter that does not know it may give any answer.
        Err(_) => close_each(first, last),
    }
}

fn close_each(first: RawFd, last: u32) -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for fd in open.into_iter().filter(|fd| *fd >= first && *fd as u32 <= last) {
        // SAFETY: as above; the directory's own descriptor is closed by now, and closing it again gives EBADF.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Takes signals as a new program expects them: nothing blocked, and the default for what the engine or Rust's runtime handle or ignore.
pub fn default_signals() -> io::Result<()> {
    for signal in [libc::SIGPIPE, libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGCHLD] {
        // SAFETY: SIG_DFL names no code of ours.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    nix::sys::signal::SigSet::empty().thread_set_mask().map_err(io::Error::from)
}

/// Ignores SIGPIPE, and so does the program that the process becomes.
pub fn ignore_pipe() -> io::Result<()> {
    // SAFETY: SIG_IGN names no code of ours.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Borrows a descriptor of a `Pending`, which keeps it open while it is polled (see `Interest::fd`).
pub fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: whoever names a descriptor to wait for holds it across the wait.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// linux/pidfd.h, since Linux 6.9.
const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;

/// Sends SIGKILL to the process group that the process leads. `pid` is the process's id, which the caller knows to be still its own.
///
/// Nobody left to kill is success.
pub fn kill_group(pidfd: BorrowedFd, pid: rustix::process::Pid) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the call reads no memory, since there is no siginfo.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            no_info,
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    };
    let answer = match check(answer) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).map_err(io::Error::from)
        }
        answer => answer.map(drop),
    };
    match answer {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::fork;
    use rustix::process::{WaitOptions, waitpid};
    use std::fs::File;

    #[test]
    fn all_descriptors_but_the_kept_ones_are_closed_by_either_way() {
        for close_rest in [close_all_but, |keep: &[RawFd]| {
            close_each(3, keep[0] as u32 - 1)?;
            close_each(keep[0] + 1, u32::MAX)
        }] {
            let low = File::open("/dev/null").unwrap();
            let kept = rustix::io::fcntl_dupfd_cloexec(&low, 300).unwrap();
            let high = rustix::io::fcntl_dupfd_cloexec(&low, 400).unwrap();
            let pid = fork(|| {
                if close_rest(&[kept.as_raw_fd()]).is_err() {
                    return 1;
                }
                let open = |fd: RawFd| rustix::io::fcntl_getfd(borrow(fd)).is_ok();
                let right = open(kept.as_raw_fd()) && !open(low.as_raw_fd()) && !open(high.as_raw_fd());
                if right { 0 } else { 2 }
            });
            let (_, status) = waitpid(Some(pid.unwrap()), WaitOptions::empty()).unwrap().unwrap();
            assert_eq!(status.exit_status(), Some(0));
        }
    }
}
