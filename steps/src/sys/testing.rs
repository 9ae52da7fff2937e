//! Calls with arguments that safe wrappers would not pass on.

use nix::libc;

/// umask(2), whose answer rustix takes for a mode.
pub fn umask(mask: u32) -> libc::c_long {
    // SAFETY: the call touches no memory.
    unsafe { libc::syscall(libc::SYS_umask, mask) }
}

/// dup(2) of a number that need not be open.
pub fn dup(fd: i32) -> libc::c_long {
    // SAFETY: the call touches no memory; the copy is nobody's.
    unsafe { libc::syscall(libc::SYS_dup, fd) }
}
