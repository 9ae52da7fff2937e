//! What the kernel says of a process's system call filters, and an agent's side of notified calls.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// A filter's instructions, as linux/filter.h has them.
pub type Program = Vec<[u8; 8]>;

fn check(answer: libc::c_long) -> io::Result<libc::c_long> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// The seccomp filters of a process, the latest first, each with the `SECCOMP_FILTER_FLAG_*` that it was loaded with as far as the kernel keeps
/// them (ptrace(2), PTRACE_SECCOMP_GET_FILTER). The process stops for a moment.
pub fn filters(pid: i32) -> io::Result<Vec<(Program, u64)>> {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, ptrace::Options::empty())?;
    let read = || {
        ptrace::interrupt(pid)?;
        waitpid(pid, Some(WaitPidFlag::__WALL))?;
        (0..).map_while(|index| filter(pid.as_raw(), index).transpose()).collect()
    };
    let filters = read();
    ptrace::detach(pid, None)?;
    filters
}

/// None: there are no more.
fn filter(pid: i32, index: usize) -> io::Result<Option<(Program, u64)>> {
    // linux/ptrace.h
    const GET_FILTER: libc::c_uint = 0x420c;
    const GET_METADATA: libc::c_uint = 0x420d;
    let nowhere = std::ptr::null_mut::<u8>();
    // SAFETY: with no place to put it, the kernel answers with the number of instructions.
    let length = unsafe { libc::ptrace(GET_FILTER, pid, index, nowhere) };
    if length == -1 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOENT) { Ok(None) } else { Err(error) };
    }
    let mut program = vec![[0_u8; 8]; length as usize];
    // SAFETY: there is room for as many instructions as the kernel has said, 8 bytes each.
    check(unsafe { libc::ptrace(GET_FILTER, pid, index, program.as_mut_ptr()) })?;
    let mut metadata = [index as u64, 0];
    // SAFETY: struct seccomp_metadata is two 64-bit numbers, whose size is passed.
    check(unsafe { libc::ptrace(GET_METADATA, pid, size_of_val(&metadata), metadata.as_mut_ptr()) })?;
    Ok(Some((program, metadata[1])))
}

/// A call that waits for an agent's answer (seccomp_unotify(2)).
#[derive(Debug, Clone, Copy)]
pub struct Notified {
    /// What the answer refers to.
    pub id: u64,
    /// The process, as the agent sees it.
    pub pid: u32,
    /// The call's number.
    pub call: i32,
}

/// Waits for a call.
pub fn receive(listener: BorrowedFd) -> io::Result<Notified> {
    // linux/seccomp.h: SECCOMP_IOCTL_NOTIF_RECV over struct seccomp_notif: id, pid, flags, and struct seccomp_data.
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    let mut notification = [0_u64; 10];
    // SAFETY: the structure has 80 bytes and must be zero.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, notification.as_mut_ptr()) }.into())?;
    Ok(Notified { id: notification[0], pid: notification[1] as u32, call: notification[2] as i32 })
}

/// Whether the call still waits.
pub fn waits(listener: BorrowedFd, id: u64) -> bool {
    const ID_VALID: libc::c_ulong = 0x4008_2102;
    // SAFETY: the call reads one 64-bit number.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const id) == 0 }
}

/// Answers a call with an errno, or lets it go on.
pub fn answer(listener: BorrowedFd, id: u64, errno: Option<i32>) -> io::Result<()> {
    const SEND: libc::c_ulong = 0xc018_2101;
    const CONTINUE: u64 = 1;
    // struct seccomp_notif_resp: id, value, error, flags.
    let (error, flags) = errno.map_or((0, CONTINUE), |errno| (-errno, 0));
    let mut answer = [id, 0, u64::from(error.cast_unsigned()) | flags << 32];
    // SAFETY: the structure has 24 bytes; the halves of its last word are in the order of a little-endian machine.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), SEND, answer.as_mut_ptr()) }.into()).map(drop)
}

/// A descriptor that came in a message, and that nobody else has.
pub fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made it for the receiver.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
