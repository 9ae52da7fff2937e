//! The calls that have no safe wrapper.

#![expect(
    unsafe_code,
    reason = "ptrace's start and its union, bpf(2), keyctl(2), a child's seccomp(2) and inherited descriptors have no safe form"
)]

pub mod keyring;
pub mod seccomp;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::ptrace;
use nix::unistd::Pid;

/// Makes the program stop at its exec, traced by the thread that starts it.
pub(crate) fn trace_from_exec(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and makes one system call, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| ptrace::traceme().map_err(io::Error::from));
    }
}

/// Makes the program, and all that it starts, see these calls as a kernel that lacks them: ENOSYS. Needs CAP_SYS_ADMIN, and changes nothing else
/// of the process, such as no_new_privs.
pub(crate) fn hide(command: &mut Command, calls: &[i64]) {
    // linux/filter.h, linux/seccomp.h: struct seccomp_data begins with the call's number.
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let op = |code, jump, k| libc::sock_filter { code, jt: jump, jf: 0, k };
    let allow = op(RETURN, 0, libc::SECCOMP_RET_ALLOW);
    let absent = op(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    let mut filter = vec![op(LOAD_WORD, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        // Over the other calls and `allow`.
        filter.push(op(JUMP_IF_EQUAL, (calls.len() - index) as u8, *call as u32));
    }
    filter.extend([allow, absent]);
    // SAFETY: the closure runs between fork and exec, makes one system call and allocates nothing; the filter that it points to is its own.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            match libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

/// How many programs of a cgroup itself decide about devices.
pub(crate) fn device_programs(cgroup: BorrowedFd) -> io::Result<u32> {
    // linux/bpf.h
    const BPF_PROG_QUERY: i32 = 16;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const COUNT: usize = 6;
    // target_fd, attach_type, query_flags, attach_flags, prog_ids (64 bits), prog_cnt, …
    let mut words = [0_u32; 16];
    words[0] = cgroup.as_raw_fd() as u32;
    words[1] = BPF_CGROUP_DEVICE;
    let size = size_of_val(&words);
    // SAFETY: the words are writable and of the size given; without an array for the ids the kernel only counts.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, words.as_mut_ptr(), size) };
    if answer == 0 { Ok(words[COUNT]) } else { Err(io::Error::last_os_error()) }
}

/// Why a traced thread stopped at a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// It is about to make the call.
    Entry { number: u64, arguments: [u64; 6] },
    /// The call has returned.
    Exit,
    /// It stopped for another reason.
    Neither,
}

/// Where a thread in a syscall stop is.
pub(crate) fn syscall_at(thread: Pid) -> nix::Result<At> {
    let info = ptrace::syscall_info(thread)?;
    Ok(match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: `op` says that the kernel filled the `entry` member of the union.
            let entry = unsafe { info.u.entry };
            At::Entry { number: entry.nr, arguments: entry.args }
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => At::Exit,
        _ => At::Neither,
    })
}

/// A descriptor that the program was started with. EBADF if it is not open.
pub(crate) fn inherited(fd: std::os::fd::RawFd) -> io::Result<BorrowedFd<'static>> {
    // SAFETY: nothing in the program closes what it was started with, and one that is not open is only asked for its flags.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::io::fcntl_getfd(fd)?;
    Ok(fd)
}
