//! Keyrings as another process of the same user makes them, keyctl(2).

use std::ffi::CString;
use std::io;

/// Joins a session keyring of this name, which from then on every process of the same user may join by it. Answers with its serial number.
pub fn plant(name: &str) -> io::Result<i32> {
    // linux/keyctl.h
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    const SETPERM: libc::c_int = 5;
    const POSSESSOR_ALL: u32 = 0x3f00_0000;
    const OWNER_SEARCH: u32 = 0x0008_0000;
    let name = CString::new(name)?;
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    if serial < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call takes numbers only.
    match unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, serial, POSSESSOR_ALL | OWNER_SEARCH) } {
        0 => Ok(serial as i32),
        _ => Err(io::Error::last_os_error()),
    }
}
