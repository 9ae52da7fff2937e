//! setrlimit(2), for limits that rustix has no name for.

use super::check;
use nix::libc;
use std::io;

/// Sets one of the caller's limits; `u64::MAX` is "unlimited".
pub fn set_rlimit(resource: i32, soft: u64, hard: u64) -> io::Result<()> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `new` outlives the call; process 0 is the caller; the old limit is not asked for.
    let answer = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const new, std::ptr::null_mut::<libc::rlimit64>())
    };
    check(answer).map(drop)
}
