//! setrlimit(2), for limits that rustix has no name for.

use super::check;
use nix::libc;
use std::io;

/// Sets a limit of a process, 0 for the caller; `u64::MAX` is "unlimited".
pub fn set_rlimit(pid: i32, resource: i32, soft: u64, hard: u64) -> io::Result<()> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `new` outlives the call; the old limit is not asked for.
    let answer = unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const new, std::ptr::null_mut::<libc::rlimit64>())
    };
    check(answer).map(drop)
}
