//! keyctl(2).

use super::check;
use nix::libc;
use std::ffi::CStr;
use std::io;

/// keyctl(2)'s KEYCTL_JOIN_SESSION_KEYRING, linux/keyctl.h.
const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Gives the process a new session keyring of this name, so that it does not share its maker's keys.
pub fn join_session_keyring(name: &CStr) -> io::Result<i32> {
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) }).map(|serial| serial as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_session_keyring_is_a_new_one() {
        // Threads have keyrings of their own, so that this one's is nobody else's.
        let both = std::thread::spawn(|| [join_session_keyring(c"lifecycle-a"), join_session_keyring(c"lifecycle-b")])
            .join()
            .unwrap();
        match both {
            [Ok(a), Ok(b)] => assert_ne!(a, b),
            // A kernel without CONFIG_KEYS, or a filter around the test.
            [Err(a), Err(_)] => assert!(matches!(a.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)), "{a}"),
            other => panic!("one worked and one did not: {other:?}"),
        }
    }
}
