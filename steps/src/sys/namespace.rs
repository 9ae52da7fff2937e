//! ioctl_nsfs(2).

use super::check;
use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// linux/magic.h: nsfs, where the kernel keeps the files of namespaces.
pub const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// linux/nsfs.h: `_IO(0xb7, 0x1)`.
const NS_GET_USERNS: libc::Ioctl = 0xb701;

/// linux/nsfs.h: `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// The user namespace that owns a namespace. EPERM: it is outside the caller's own.
pub fn owner(namespace: BorrowedFd) -> io::Result<OwnedFd> {
    // SAFETY: the request takes no argument and touches no memory.
    let fd = check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) }.into())?;
    // SAFETY: the answer is a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The type of a namespace, as its flag for setns(2).
pub fn kind(namespace: BorrowedFd) -> io::Result<i32> {
    // SAFETY: the request takes no argument and touches no memory.
    check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) }.into()).map(|flag| flag as i32)
}
