//! Which system calls can change the machine.

/// Names the calls of a list, and answers for the rest of them with the number.
macro_rules! calls {
    ($function:ident: $($name:ident)*) => {
        fn $function(number: u64) -> Option<&'static str> {
            $(
                if number == libc::$name as u64 {
                    return Some(stringify!($name).split_at(4).1);
                }
            )*
            None
        }
    };
}

// Calls that read, wait, map memory, or change nothing but the process that makes them: a kill before or after one of them is the same as
// a kill at the next call that does matter.
calls! { harmless:
    SYS_read SYS_pread64 SYS_readv SYS_preadv SYS_preadv2 SYS_readlinkat SYS_getdents64 SYS_lseek SYS_close SYS_close_range
    SYS_fstat SYS_newfstatat SYS_statx SYS_statfs SYS_fstatfs SYS_faccessat SYS_faccessat2 SYS_getcwd SYS_name_to_handle_at
    SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr
    SYS_mmap SYS_munmap SYS_mprotect SYS_mremap SYS_madvise SYS_brk SYS_mlock SYS_munlock SYS_mincore SYS_rseq SYS_membarrier
    SYS_futex SYS_set_robust_list SYS_get_robust_list SYS_set_tid_address SYS_sched_yield SYS_sched_getaffinity
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_sigpending SYS_sigaltstack
    SYS_signalfd4 SYS_restart_syscall
    SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2
    SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_nanosleep SYS_clock_nanosleep SYS_clock_gettime SYS_clock_getres
    SYS_gettimeofday SYS_times SYS_getitimer SYS_setitimer
    SYS_pipe2 SYS_dup SYS_dup3 SYS_fcntl SYS_memfd_create SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch
    SYS_socket SYS_socketpair SYS_connect SYS_getsockname SYS_getpeername SYS_getsockopt SYS_setsockopt SYS_shutdown
    SYS_recvfrom SYS_recvmsg SYS_recvmmsg SYS_accept SYS_accept4
    SYS_wait4 SYS_waitid SYS_pidfd_open SYS_exit SYS_exit_group SYS_getpid SYS_getppid SYS_gettid SYS_getuid SYS_geteuid SYS_getgid
    SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups SYS_getpgid SYS_getsid SYS_setsid SYS_setpgid SYS_uname SYS_sysinfo
    SYS_getrandom SYS_getrlimit SYS_getrusage SYS_prlimit64 SYS_getpriority SYS_getcpu SYS_prctl SYS_capget SYS_capset
    SYS_setuid SYS_setgid SYS_setresuid SYS_setresgid SYS_setgroups SYS_setfsuid SYS_setfsgid SYS_umask SYS_chdir SYS_fchdir
    SYS_personality SYS_seccomp SYS_fsync SYS_fdatasync SYS_flock SYS_fadvise64 SYS_readahead
}

#[cfg(target_arch = "x86_64")]
calls! { harmless_and_old:
    SYS_stat SYS_lstat SYS_access SYS_readlink SYS_getdents SYS_poll SYS_select SYS_epoll_create SYS_epoll_wait SYS_eventfd SYS_signalfd
    SYS_pipe SYS_dup2 SYS_inotify_init SYS_arch_prctl SYS_getpgrp SYS_time SYS_alarm SYS_pause
}

#[cfg(not(target_arch = "x86_64"))]
fn harmless_and_old(_: u64) -> Option<&'static str> {
    None
}

// Names for reading; a call that is in no list counts, under its number.
calls! { changing:
    SYS_write SYS_pwrite64 SYS_writev SYS_pwritev SYS_pwritev2 SYS_sendto SYS_sendmsg SYS_sendmmsg SYS_sendfile SYS_splice SYS_tee
    SYS_copy_file_range SYS_openat SYS_openat2 SYS_mkdirat SYS_mknodat SYS_unlinkat SYS_symlinkat SYS_linkat SYS_renameat
    SYS_renameat2 SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_utimensat SYS_truncate SYS_ftruncate SYS_fallocate
    SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr
    SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_fsopen SYS_fspick SYS_fsconfig SYS_fsmount SYS_open_tree SYS_move_mount
    SYS_mount_setattr SYS_clone SYS_clone3 SYS_execve SYS_execveat SYS_unshare SYS_setns SYS_kill SYS_tkill SYS_tgkill
    SYS_pidfd_send_signal SYS_pidfd_getfd SYS_sethostname SYS_setdomainname SYS_bind SYS_listen SYS_ioctl SYS_keyctl SYS_add_key
    SYS_request_key SYS_bpf SYS_ptrace SYS_setpriority SYS_ioprio_set SYS_sched_setattr SYS_sched_setscheduler SYS_sched_setaffinity
    SYS_setrlimit SYS_quotactl SYS_swapon SYS_swapoff SYS_reboot
}

#[cfg(target_arch = "x86_64")]
calls! { changing_and_old:
    SYS_open SYS_creat SYS_mkdir SYS_rmdir SYS_mknod SYS_unlink SYS_symlink SYS_link SYS_rename SYS_chmod SYS_chown SYS_lchown SYS_fork
    SYS_vfork SYS_utime SYS_utimes
}

#[cfg(not(target_arch = "x86_64"))]
fn changing_and_old(_: u64) -> Option<&'static str> {
    None
}

/// statmount(2) and listmount(2), newer than the C library's list, and numbered alike on every architecture.
const READ_MOUNTS: [u64; 2] = [457, 458];

/// The name of a call that can change the machine; none for one that cannot.
pub(super) fn changes_machine(number: u64, arguments: &[u64; 6]) -> Option<&'static str> {
    if harmless(number).or_else(|| harmless_and_old(number)).is_some() || READ_MOUNTS.contains(&number) {
        return None;
    }
    let name = changing(number).or_else(|| changing_and_old(number)).unwrap_or("a call without a name here");
    let flags = match name {
        "open" => arguments[1],
        "openat" => arguments[2],
        // openat2's flags are in the caller's memory: it counts always.
        _ => return Some(name),
    };
    // Opening makes something only when it may create or truncate.
    (flags & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_does_not_count_and_making_does() {
        let none = [0; 6];
        assert_eq!(changes_machine(libc::SYS_read as u64, &none), None);
        assert_eq!(changes_machine(libc::SYS_mkdirat as u64, &none), Some("mkdirat"));
        assert_eq!(changes_machine(libc::SYS_openat as u64, &none), None);
        let create = [0, 0, libc::O_CREAT as u64, 0, 0, 0];
        assert_eq!(changes_machine(libc::SYS_openat as u64, &create), Some("openat"));
        assert_eq!(changes_machine(100_000, &none), Some("a call without a name here"));
    }
}
