//! Asks the kernel whether it knows a system call, in ways that do nothing.

use nix::libc::{self, c_long};
use rustix::io::Errno;

/// The error of a raw call that is meant to fail.
fn refusal(result: c_long) -> Option<Errno> {
    (result == -1).then(|| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOSYS))
}

/// Whether clone3(2) is there: no arguments at all are EINVAL, an unknown call is ENOSYS, a seccomp filter says EPERM or ENOSYS.
pub fn clone3() -> bool {
    // SAFETY: a null pointer of size 0 is refused before it is read; no process is made.
    let result = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::null::<u8>(), 0_usize) };
    refusal(result) == Some(Errno::INVAL)
}

/// Whether clone3(2) can start a process in a cgroup: a kernel before 5.7 does not know the field and answers E2BIG; a newer one looks for a
/// descriptor that is not there.
pub fn clone_into_cgroup() -> bool {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // struct clone_args of version 2: flags first, exit signal fifth, cgroup last.
    let mut arguments = [0_u64; 11];
    arguments[0] = CLONE_INTO_CGROUP;
    arguments[4] = libc::SIGCHLD as u64;
    arguments[10] = i32::MAX as u64;
    // SAFETY: the pointer is to 88 readable bytes. The descriptor can not be open, so the call fails and no process is made: the highest
    // number that a process may open is far below i32::MAX (fs.nr_open's own maximum is 0x3fffffc0).
    let result = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) };
    refusal(result) == Some(Errno::BADF)
}

/// Whether open_tree(2) and its family are there and not filtered: unknown flags are EINVAL before any privilege is asked for.
pub fn mount_api() -> bool {
    // SAFETY: the flags are refused before the path is read.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, -1, std::ptr::null::<u8>(), u32::MAX) };
    refusal(result) == Some(Errno::INVAL)
}

/// Whether mount_setattr(2) is there: a structure of size 0 is EINVAL.
pub fn mount_setattr() -> bool {
    let null = std::ptr::null::<u8>();
    // SAFETY: the size is refused before any pointer is read.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, -1, null, 0, null, 0_usize) };
    refusal(result) == Some(Errno::INVAL)
}

/// Whether close_range(2) is there with its close-on-exec flag: a range in which nothing can be open is a success.
pub fn close_range() -> bool {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: nothing is open at that number (see `clone_into_cgroup`), and with this flag nothing is closed either.
    let result = unsafe { libc::syscall(libc::SYS_close_range, i32::MAX, i32::MAX, CLOSE_RANGE_CLOEXEC) };
    result == 0
}

/// Whether seccomp(2) knows the flag: with one that it knows it goes on to the program, which is not there. Those that say how notified calls
/// wait are known only together with the one that asks for a listener.
pub fn seccomp_flag(flag: u64) -> bool {
    let ask = |flags: u64| {
        // SAFETY: the null pointer is refused before anything happens.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::null::<libc::sock_fprog>())
        };
        refusal(result) == Some(Errno::FAULT)
    };
    ask(flag) || ask(flag | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)
}

/// Whether the caller may make a user namespace and map its own id to root in it. Tried in a child, which ends at once.
pub fn user_namespace() -> bool {
    let map = format!("0 {} 1\n", rustix::process::geteuid().as_raw());
    let Ok(child) = super::clone::fork(|| i32::from(!become_root(map.as_bytes()))) else { return false };
    loop {
        match rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            Ok(Some((_, status))) => return status.exit_status() == Some(0),
            Ok(None) | Err(_) => return false,
        }
    }
}

/// In the child of [`user_namespace`].
fn become_root(map: &[u8]) -> bool {
    use rustix::fs::{Mode, OFlags, open};
    if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).is_err() {
        return false;
    }
    let file = open(c"/proc/self/uid_map", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    file.is_ok_and(|file| rustix::io::write(&file, map) == Ok(map.len()))
}

/// Gives the calling thread a table of descriptors of its own, so that a test can count them.
#[cfg(test)]
pub fn own_descriptors() -> nix::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES)
}
