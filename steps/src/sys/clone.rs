//! clone3(2), with clone(2) where a seccomp filter around us hides clone3, and fork(2).

use super::check;
use nix::libc;
use rustix::process::Pid;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What the new process does not share with its maker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clone<'a> {
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
    /// The new process becomes the caller's sibling, and so the caller's parent is who waits for it.
    pub sibling: bool,
    /// The directory of a v2 cgroup that it starts in (Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A process that has just been made.
#[derive(Debug)]
pub struct Child {
    /// Its id in the caller's pid namespace.
    pub pid: Pid,
    /// A descriptor that stands for it, even when its id has been used again.
    pub pidfd: OwnedFd,
}

/// The exit code of a child whose body panicked: Rust's own.
const PANICKED: i32 = 101;

/// The kernel's struct clone_args, to the field that Linux 5.7 has.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// The struct's length in Linux 5.3. An older kernel refuses a longer one with E2BIG if the rest is not zero, so no more is passed than is needed.
const SIZE_OF_FIRST_VERSION: usize = 64;

impl Clone<'_> {
    /// Makes the process. `body` runs in it, on a copy of the caller's memory, and its answer is the exit code.
    ///
    /// The caller must have one thread: a lock that another thread holds (the allocator's, say) stays locked in the copy for ever. The call
    /// fails with EBUSY where there are more.
    pub fn spawn(&self, body: impl FnOnce() -> i32) -> io::Result<Child> {
        if !has_one_thread()? {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let mut pidfd: libc::c_int = -1;
        let pid = match self.clone3(&mut pidfd) {
            // clone(2) has no room for CLONE_NEWTIME, whose bit is part of its exit signal, nor for a cgroup.
            Err(error)
                if error.raw_os_error() == Some(libc::ENOSYS)
                    && self.cgroup.is_none()
                    && self.namespaces & libc::CLONE_NEWTIME as u64 == 0 =>
            {
                self.clone(&mut pidfd)?
            }
            answer => answer?,
        };
        match Pid::from_raw(pid) {
            // SAFETY: CLONE_PIDFD made the kernel put a new descriptor there, which nobody else owns.
            Some(pid) => Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
            None => run_and_exit(body),
        }
    }

    fn flags(&self) -> u64 {
        let parent = if self.sibling { libc::CLONE_PARENT as u64 } else { 0 };
        self.namespaces | libc::CLONE_PIDFD as u64 | parent
    }

    /// The new process's id, or 0 in it.
    fn clone3(&self, pidfd: &mut libc::c_int) -> io::Result<i32> {
        let mut args = CloneArgs {
            flags: self.flags(),
            pidfd: std::ptr::from_mut(pidfd) as u64,
            // A sibling's signal is that of the caller's own, and another is refused.
            exit_signal: if self.sibling { 0 } else { libc::SIGCHLD as u64 },
            ..CloneArgs::default()
        };
        let mut size = SIZE_OF_FIRST_VERSION;
        if let Some(cgroup) = self.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
            size = size_of::<CloneArgs>();
        }
        // SAFETY: `args` outlives the call and has `size` bytes; without CLONE_VM and with no stack of its own the child goes on here with a
        // copy of all memory, as after fork(2). The caller has one thread, so no lock is held by somebody who is not there.
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) }).map(|pid| pid as i32)
    }

    /// The same by clone(2).
    fn clone(&self, pidfd: &mut libc::c_int) -> io::Result<i32> {
        let flags = self.flags() | if self.sibling { 0 } else { libc::SIGCHLD as u64 };
        let no_stack = 0usize;
        // SAFETY: as above. clone(2) puts the descriptor where it would put the parent's thread id. The order of the last two arguments
        // differs between architectures, and both are zero; s390x alone swaps the first two.
        let answer = unsafe {
            if cfg!(target_arch = "s390x") {
                libc::syscall(libc::SYS_clone, no_stack, flags, std::ptr::from_mut(pidfd), 0usize, 0usize)
            } else {
                libc::syscall(libc::SYS_clone, flags, no_stack, std::ptr::from_mut(pidfd), 0usize, 0usize)
            }
        };
        check(answer).map(|pid| pid as i32)
    }
}

/// linux/sched.h; libc has it as a signed constant on some targets and not at all on others.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A child by fork(2), which also works in a process with several threads: the C library brings the allocator's locks into order. The body
/// must take no lock of the program's own that another thread may hold.
pub fn fork(body: impl FnOnce() -> i32) -> io::Result<Pid> {
    // SAFETY: the C library's fork keeps its own state sound; see above for the program's.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(check(pid.into())? as i32) {
        Some(pid) => Ok(pid),
        None => run_and_exit(body),
    }
}

/// Ends the process without the C library's exit handlers: they and their buffers belong to the process that this one is a copy of.
fn run_and_exit(body: impl FnOnce() -> i32) -> ! {
    super::limits::give_back();
    // An unwinding panic would go on into the frames of the caller, which exist in the parent too.
    let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED);
    // SAFETY: neither call touches memory. Not _exit, which tries for ever where a filter of system calls refuses both.
    unsafe {
        libc::syscall(libc::SYS_exit_group, code);
        libc::syscall(libc::SYS_exit, code);
    }
    std::process::abort()
}

/// Whether the process has one thread.
fn has_one_thread() -> io::Result<bool> {
    // The task directory's link count is that of its entries, `.` and `..`.
    match rustix::fs::stat("/proc/self/task") {
        Ok(stat) => Ok(stat.st_nlink == 3),
        // No procfs to ask: it is the caller's word that counts.
        Err(rustix::io::Errno::NOENT) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};
    use std::os::fd::AsFd;

    /// Runs the test's body in a child with one thread, as the engine is; the test's own process has several.
    fn alone(body: impl FnOnce() -> bool) {
        let pid = fork(|| i32::from(!body())).unwrap();
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
    }

    fn exit_code(child: &Child) -> Option<i32> {
        waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap().exit_status()
    }

    #[test]
    fn a_body_runs_in_new_namespaces_and_its_answer_is_the_exit_code() {
        alone(|| {
            let namespaces = (libc::CLONE_NEWUTS | libc::CLONE_NEWPID) as u64;
            let child = Clone { namespaces, ..Clone::default() }.spawn(|| {
                rustix::system::sethostname(b"inside").unwrap();
                rustix::process::getpid().as_raw_nonzero().get() + 6
            });
            exit_code(&child.unwrap()) == Some(7)
        });
        assert_ne!(rustix::system::uname().nodename().to_bytes(), b"inside");
    }

    #[test]
    fn the_older_call_does_the_same() {
        alone(|| {
            let mut pidfd = -1;
            let clone = Clone { namespaces: libc::CLONE_NEWUTS as u64, ..Clone::default() };
            if clone.clone(&mut pidfd).unwrap() == 0 {
                run_and_exit(|| 7);
            }
            // SAFETY: the kernel has just made it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let child = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
            child.exit_status() == Some(7)
        });
    }

    #[test]
    fn a_panic_does_not_leave_the_child() {
        alone(|| {
            std::panic::set_hook(Box::new(|_| {}));
            exit_code(&Clone::default().spawn(|| panic!("on purpose")).unwrap()) == Some(PANICKED)
        });
    }

    #[test]
    fn a_process_with_more_threads_is_refused() {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || told.recv());
        let error = Clone::default().spawn(|| 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        drop(tell);
        other.join().unwrap().unwrap_err();
    }
}
