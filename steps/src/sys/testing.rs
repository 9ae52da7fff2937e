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

/// The errno of a call by its number, with zeros for arguments.
pub fn raw_call(number: libc::c_long) -> i32 {
    // SAFETY: for calls that a filter refuses before the kernel looks at the arguments.
    let answer = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
    if answer == -1 { std::io::Error::last_os_error().raw_os_error().unwrap_or_default() } else { 0 }
}
