//! Telling a process from a later one with the same pid, and ending it.

use lifecycle_engine::proc;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Cx, Interest, Pending, Undone};
use lifecycle_engine::error::EffectError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid,
};
use serde_json::Value;

use super::holding::undying;
use crate::outcomes::Process;

/// How long a killed process may take to die. It can hang in the kernel (a dead NFS server), and is then reported instead of waited for.
const DEATH: Duration = Duration::from_secs(10);

impl Process {
    /// The identity of a process that is there now.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let dir = proc_dir(pid)?;
        Ok(Self { pid: pid.as_raw_nonzero().get(), start: start_of(&dir)?, boot: boot()?.to_owned() })
    }

    /// Its directory in /proc; `None` if it is gone, or if the pid is another's by now.
    ///
    /// The directory stands for the process itself: files in it that are opened after the pid was used again give ESRCH.
    pub fn directory(&self) -> io::Result<Option<OwnedFd>> {
        if self.boot != boot()? {
            return Ok(None);
        }
        let found = self.raw()?;
        match proc_dir(found).and_then(|dir| Ok((start_of(&dir)?, dir))) {
            Ok((start, dir)) if start == self.start => Ok(Some(dir)),
            Ok(_) => Ok(None),
            Err(error) if gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A descriptor that stands for it; `None` if it is gone, or if the pid is another's by now. A zombie is still there.
    pub fn watch(&self) -> io::Result<Option<Watched>> {
        let pidfd = match pidfd_open(self.raw()?, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // In this order: a pid that was used again between the two has another start time.
        Ok(self.directory()?.map(|_| Watched { pidfd }))
    }

    /// Kills it and waits until it is dead; one that is gone, or was never ours, is done.
    pub(crate) fn kill(&self) -> Result<Undone, EffectError> {
        let watched = self.watch().map_err(|e| EffectError::call(format!("pidfd_open({})", self.pid), e))?;
        let Some(watched) = watched else { return Ok(Undone::Done) };
        watched.signal(Signal::KILL).map_err(|e| EffectError::call(format!("kill({}, SIGKILL)", self.pid), e))?;
        if watched.is_dead()? {
            watched.reap()?;
            return Ok(Undone::Done);
        }
        Ok(Undone::Pending(Box::new(Dying { pid: self.pid, watched, deadline: Instant::now() + DEATH })))
    }

    fn raw(&self) -> io::Result<Pid> {
        Pid::from_raw(self.pid.max(0)).ok_or_else(|| io::Error::from(Errno::INVAL))
    }
}

/// The errors by which the kernel says that a process is not there.
fn gone(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::SRCH].iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

fn proc_dir(pid: Pid) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(open(format!("/proc/{}", pid.as_raw_nonzero()), flags, Mode::empty())?)
}

/// Field 22 of `stat`; the name in field 2 may hold spaces and parentheses, so fields are counted from its last one.
fn start_of(dir: &OwnedFd) -> io::Result<u64> {
    let stat = openat(dir, "stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // The kernel gives the whole line to one read, which has less than this.
    let mut line = [0; 1024];
    let length = rustix::io::read(&stat, &mut line)?;
    start_time(&line[..length])
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has no start time"))
}

/// From the line of /proc/PID/stat.
pub fn start_time(stat: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(stat);
    text.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok())
}

fn boot() -> io::Result<&'static str> {
    match crate::facts::boot_id() {
        "" => Err(io::Error::new(io::ErrorKind::NotFound, "/proc/sys/kernel/random/boot_id cannot be read")),
        id => Ok(id),
    }
}

/// Whether a process is the first of its pid namespace, which ends with it: pid_namespaces(7). The last field of `NSpid` in /proc/PID/status is its
/// id there.
#[must_use]
pub fn ends_its_namespace(pid: i32) -> bool {
    let status = proc::text(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    ids.split_whitespace().next_back() == Some("1")
}

/// A process that cannot be taken for another.
#[derive(Debug)]
pub struct Watched {
    pidfd: OwnedFd,
}

/// What became of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has ended with an exit code.
    Code(i32),
    /// A signal has killed it.
    Signal(i32),
    /// It has ended, and its parent is who was told how.
    Unknown,
}

impl Fate {
    /// The exit code, or 128 + the signal that killed it.
    pub(crate) fn exit(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(signal) => Some(128 + signal),
            Self::Unknown => None,
        }
    }
}

impl Watched {
    /// Watches a process by a descriptor that the kernel made with it.
    pub(crate) fn new(pidfd: OwnedFd) -> Self {
        Self { pidfd }
    }

    /// The pidfd.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Readable once it is dead.
    pub(crate) fn interest(&self) -> Interest {
        Interest::read(self.pidfd.as_raw_fd())
    }

    /// Sends a signal; one to a process that is dead is lost.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether it is dead (a zombie is).
    pub(crate) fn is_dead(&self) -> Result<bool, EffectError> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&now)));
        ready.map(|n| n > 0).map_err(|e| EffectError::call("poll(pidfd)", e))
    }

    /// Takes the dead process's exit code, if it is a child of ours. Never waits.
    ///
    /// Whoever traces it is told first, ptrace(2), and may be a process of the container's that never listens: until then it is dead and yet not to
    /// be had. It is left to whoever gets it then, and its code is read.
    pub(crate) fn reap(&self) -> Result<Fate, EffectError> {
        let wait = || waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        match rustix::io::retry_on_intr(wait) {
            Ok(Some(status)) => Ok(fate(&status)),
            Ok(None) => Ok(self.fate_of_held().unwrap_or(Fate::Unknown)),
            Err(Errno::CHILD) => Ok(Fate::Unknown),
            Err(e) => Err(EffectError::call("waitid(P_PIDFD, WEXITED|WNOHANG)", e)),
        }
    }

    /// How a zombie ended that somebody else holds: field 52 of /proc/PID/stat, proc_pid_stat(5), in the form of waitpid(2). The zombie keeps
    /// its pid.
    fn fate_of_held(&self) -> Option<Fate> {
        let info = proc::text(format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd())).ok()?;
        let pid: i32 = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
        let stat = proc::text(format!("/proc/{pid}/stat")).ok()?;
        let status: i32 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(52 - 3)?.parse().ok()?;
        match status & 0x7f {
            0 => Some(Fate::Code(status >> 8 & 0xff)),
            signal => Some(Fate::Signal(signal)),
        }
    }

    /// Kills it, waits for its end and reaps it. For a child that has not begun to do anything.
    pub(crate) fn end(&self) -> Result<(), EffectError> {
        self.signal(Signal::KILL).map_err(|e| EffectError::call("pidfd_send_signal(SIGKILL)", e))?;
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut polled, None)).map_err(|e| EffectError::call("poll(pidfd)", e))?;
        self.reap().map(drop)
    }
}

fn fate(status: &WaitIdStatus) -> Fate {
    let killed = status.terminating_signal().map(Fate::Signal);
    status.exit_status().map(Fate::Code).or(killed).unwrap_or(Fate::Code(128))
}

/// A killed process that is not dead yet.
struct Dying {
    pid: i32,
    watched: Watched,
    deadline: Instant,
}

impl Pending for Dying {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(self.watched.interest());
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.deadline)
    }

    fn advance(&mut self, _: &mut Cx) -> Result<Option<Value>, EffectError> {
        if self.watched.is_dead()? {
            return self.watched.reap().map(|_| Some(Value::Null));
        }
        if Instant::now() < self.deadline {
            return Ok(None);
        }
        Err(undying(self.pid))
    }

    fn late(&self) -> Option<EffectError> {
        Some(undying(self.pid))
    }

    fn cancel(&mut self, _: &mut Cx) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn sleeper() -> std::process::Child {
        Command::new("/bin/sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep")
    }

    fn pid(child: &std::process::Child) -> Pid {
        Pid::from_raw(child.id() as i32).expect("pid")
    }

    #[test]
    fn a_process_is_known_again_and_another_with_its_pid_is_not() {
        let mut child = sleeper();
        let process = Process::of(pid(&child)).expect("identity");
        assert!(process.watch().expect("watch").is_some());
        let later = Process { start: process.start + 1, ..process.clone() };
        assert!(later.watch().expect("watch").is_none());
        assert!(matches!(later.kill(), Ok(Undone::Done)));
        let rebooted = Process { boot: "another".into(), ..process.clone() };
        assert!(rebooted.watch().expect("watch").is_none());
        assert!(child.try_wait().expect("wait").is_none(), "the wrong process was killed");
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(process.watch().expect("watch").is_none());
        assert!(matches!(process.kill(), Ok(Undone::Done)));
    }

    #[expect(clippy::zombie_processes, reason = "what is tested is what reaps it")]
    #[test]
    fn a_killed_child_is_waited_for_and_reaped() {
        let child = sleeper();
        let process = Process::of(pid(&child)).expect("identity");
        let watched = process.watch().expect("watch").expect("there");
        watched.end().expect("end");
        assert!(process.directory().expect("read").is_none(), "a zombie is left");
    }

    #[expect(clippy::zombie_processes, reason = "what is tested is what reaps it")]
    #[test]
    fn an_exit_code_is_the_code_or_128_and_the_signal() {
        for (script, want) in [("exit 3", Fate::Code(3)), ("kill -9 $$", Fate::Signal(9))] {
            let child = Command::new("/bin/sh").args(["-c", script]).spawn().expect("sh");
            let watched = Process::of(pid(&child)).expect("identity").watch().expect("watch").expect("there");
            while !watched.is_dead().expect("poll") {
                std::thread::yield_now();
            }
            assert_eq!(watched.reap().expect("reap"), want);
        }
    }

    /// Killed under a tracer, it is dead for poll(2) before its parent may have its exit code.
    #[test]
    fn what_is_traced_is_reaped_once_its_tracer_lets_it_go() {
        use crate::sys::clone::fork;
        use nix::sys::ptrace;
        let traced = fork(|| {
            // Where Yama keeps siblings from tracing each other; elsewhere there is nothing to allow.
            let _ = rustix::process::set_ptracer(rustix::process::PTracer::Any);
            std::thread::sleep(Duration::from_secs(60));
            0
        })
        .expect("fork");
        let watched = Process::of(traced).expect("identity").watch().expect("watch").expect("there");
        let (mut seized, told) = io::pipe().expect("pipe");
        let (mut held, mut release) = io::pipe().expect("pipe");
        let tracer = fork(|| {
            let seize = || ptrace::seize(nix::unistd::Pid::from_raw(traced.as_raw_pid()), ptrace::Options::empty());
            // The one that is traced may not have allowed it yet.
            let allowed = (0..1000).any(|_| {
                std::thread::sleep(Duration::from_millis(1));
                seize().is_ok()
            });
            if !allowed {
                return 1;
            }
            drop(told);
            while !watched.is_dead().is_ok_and(|dead| dead) {
                std::thread::sleep(Duration::from_millis(1));
            }
            // It never waits for what it traces.
            i32::from(io::Read::read(&mut held, &mut [0]).is_err())
        })
        .expect("fork");
        assert_eq!(io::Read::read(&mut seized, &mut [0]).expect("read"), 0);
        watched.signal(Signal::KILL).expect("kill");
        while !watched.is_dead().expect("poll") {
            std::thread::yield_now();
        }
        assert_eq!(watched.reap().expect("reap"), Fate::Signal(9));
        io::Write::write_all(&mut release, b"g").expect("write");
        let waited = rustix::process::waitpid(Some(tracer), rustix::process::WaitOptions::empty()).expect("wait");
        assert!(waited.is_some_and(|(_, status)| status.exit_status() == Some(0)), "it was not traced");
    }
}
