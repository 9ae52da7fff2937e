//! An older kernel: the calls that came after Linux 5.4, and clone3(2), which a container engine's filter may hide, answer ENOSYS.
//!
//! `--mask` makes a plan avoid what a fact offers. Some calls are made without asking the facts and fall back when the kernel refuses them; only a
//! kernel that does refuse them tests that.

use std::process::Command;

use crate::sys;

/// The facts that a plan for such a kernel does without.
pub const FACTS: [&str; 9] = [
    "kernel.mount_api",
    "kernel.mount_setattr",
    "kernel.unique_mount_ids",
    "kernel.openat2",
    "kernel.clone3",
    "kernel.close_range",
    "kernel.pidfd",
    "kernel.clone_into_cgroup",
    "kernel.time_namespace",
];

/// The facts that are found absent once [`kernel`] has hidden the calls.
pub const HIDDEN: [&str; 5] =
    ["kernel.mount_setattr", "kernel.openat2", "kernel.clone3", "kernel.close_range", "kernel.clone_into_cgroup"];

/// All of [`FACTS`] as the argument of one `--mask`.
pub fn all() -> String {
    FACTS.join(",")
}

/// Lets the command, and all that it starts, run as on such a kernel. The caller must be root.
pub fn kernel(command: &mut Command) -> &mut Command {
    const CALLS: [i64; 7] = [
        libc::SYS_clone3,
        libc::SYS_openat2,
        libc::SYS_close_range,
        libc::SYS_mount_setattr,
        libc::SYS_faccessat2,
        libc::SYS_pidfd_getfd,
        libc::SYS_epoll_pwait2,
    ];
    sys::hide(command, &CALLS);
    command
}
