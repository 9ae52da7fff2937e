//! The engine's one place for unsafe code.
#![expect(unsafe_code, reason = "a raw descriptor has to be turned into a borrowed one to poll it")]

use std::os::fd::{BorrowedFd, RawFd};

/// Borrows a descriptor that its owner keeps open for as long as the poll lasts (see `effect::Interest`).
pub(crate) fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: `Interest::fd` is open while the `Pending` that named it lives, and the caller holds that across the poll.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
