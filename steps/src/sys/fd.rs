//! close_range(2), and descriptors that the program was started with.

use super::check;
use nix::libc;
use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Marks every descriptor from `first` on as one that exec closes (CVE-2024-21626: a leaked one is a way out of the container).
///
/// Kernels before 5.11 lack the call's flag, and a filter around us may not know the call and give any answer: then each descriptor in
/// /proc/self/fd is marked.
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: the call changes a flag of descriptors and touches no memory.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    match check(answer) {
        Ok(_) => Ok(()),
        Err(_) => mark_each(first),
    }
}

/// Borrows descriptor `fd`, which the caller of the program passed on. EBADF if it is not open.
pub fn inherited<'a>(fd: RawFd) -> io::Result<BorrowedFd<'a>> {
    // SAFETY: only its flags are read here; the descriptors that the program was started with stay open until it says otherwise.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_getfd(fd)?;
    Ok(fd)
}

/// The descriptor by which the program was executed, execveat(2), if it is still open. To be called once, before any other is opened.
pub fn executed_from() -> Option<OwnedFd> {
    // SAFETY: the call reads a table that does not change.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) };
    if name == 0 {
        return None;
    }
    // SAFETY: the kernel has put a string there that ends in NUL, above the stack, where it stays.
    let name = unsafe { CStr::from_ptr(name as *const libc::c_char) };
    let fd = name.to_str().ok()?.strip_prefix("/dev/fd/")?.parse().ok()?;
    inherited(fd).ok()?;
    // SAFETY: it is open, and the program has opened none yet that could be this one.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn mark_each(first: RawFd) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()).filter(|fd| *fd >= first) else {
            continue;
        };
        // SAFETY: it was open a moment ago, and a flag is all that is changed. That of a descriptor closed meanwhile (the directory's own
        // is still open here) gives EBADF.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        match rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC) {
            Ok(()) | Err(rustix::io::Errno::BADF) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
    use std::fs::File;
    use std::os::fd::AsRawFd;

    #[test]
    fn descriptors_from_the_first_on_are_marked_by_either_way() {
        for mark in [close_on_exec_from, mark_each] {
            let low = File::open("/dev/null").unwrap();
            let high = rustix::io::fcntl_dupfd_cloexec(&low, 500).unwrap();
            fcntl_setfd(&low, FdFlags::empty()).unwrap();
            fcntl_setfd(&high, FdFlags::empty()).unwrap();
            mark(high.as_raw_fd()).unwrap();
            assert_eq!(fcntl_getfd(&low).unwrap(), FdFlags::empty());
            assert_eq!(fcntl_getfd(&high).unwrap(), FdFlags::CLOEXEC);
        }
    }
}
