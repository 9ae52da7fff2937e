//! keyctl(2).

use super::check;
use nix::libc;
use std::ffi::CStr;
use std::io;

/// keyctl(2)'s operations, linux/keyctl.h.
const JOIN_SESSION_KEYRING: libc::c_int = 1;
const SETPERM: libc::c_int = 5;

/// Everything, to whoever possesses it (linux/keyctl.h, KEY_POS_ALL).
pub const POSSESSOR_ALL: u32 = 0x3f00_0000;
/// To be found and joined by its name, to its owner's other processes (KEY_USR_SEARCH).
pub const OWNER_SEARCH: u32 = 0x0008_0000;

/// Makes a keyring of this name the process's session keyring: one that is there, if the process may search it, or a new one. Answers with its
/// serial number.
pub fn join_session_keyring(name: &CStr) -> io::Result<i32> {
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) }).map(|serial| serial as i32)
}

/// Gives the process a new session keyring that nobody can find by a name.
pub fn new_session_keyring() -> io::Result<i32> {
    let unnamed = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name the kernel reads nothing.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, unnamed) }).map(|serial| serial as i32)
}

/// What a key's possessor, its owner, its group and others may do with it.
pub fn set_permissions(serial: i32, permissions: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, serial, permissions) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_keyring_is_a_new_one() {
        // Threads have keyrings of their own, so that this one's is nobody else's.
        let joined =
            || [join_session_keyring(c"lifecycle-a"), join_session_keyring(c"lifecycle-b"), new_session_keyring()];
        match std::thread::spawn(joined).join().unwrap() {
            [Ok(a), Ok(b), Ok(c)] => assert!(a != b && b != c && a != c),
            // A kernel without CONFIG_KEYS, or a filter around the test.
            [Err(a), Err(_), Err(_)] => assert!(matches!(a.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)), "{a}"),
            other => panic!("one worked and one did not: {other:?}"),
        }
    }
}
