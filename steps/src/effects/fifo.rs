//! The exec FIFO: between `create` and `start` a container's init waits in open(2) for somebody to read from it.
//!
//! Init's end is closed by exec. So the reader sees the end of file when the program has taken over, and bytes when it could not: the failure, as
//! init would have told the engine, which has gone by then.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::site::{REPORT, Report};
use lifecycle_engine::types::Mode;
use lifecycle_engine::value::Later;
use rustix::fs::{AtFlags, CWD, FileType, Mode as Bits, OFlags, lstat, open, openat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wait::{resolve, watch};
use crate::made;
use crate::outcomes::{Fifo, Process};
use crate::process::{FIFO, SELF_FD, Watched};

/// Makes the FIFO, in a directory that is the run's own. Undo removes it if it is still the one.
#[derive(Debug, Serialize, Deserialize)]
pub struct MakeFifo {
    /// Where.
    pub path: PathBuf,
    /// Who may open it.
    pub mode: Mode,
    /// Its owner on the host: the container's root.
    pub uid: u32,
    /// Its group on the host.
    pub gid: u32,
}

/// Waits until the FIFO is opened for reading, and from then on reports failures there.
#[derive(Debug, Serialize, Deserialize)]
pub struct AwaitStart {}

/// Opens the FIFO for reading, which lets init go, and waits until its program has taken over. The FIFO has done its work then, and is removed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Release {
    /// The FIFO.
    pub path: PathBuf,
    /// The process that waits at it.
    pub process: Later<Process>,
}

impl EffectDef for MakeFifo {
    const KIND: &'static str = "exec_fifo";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { path: scratch.join("exec.fifo"), mode: Mode(0o622), uid: 0, gid: 0 }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("mkfifo {} mode {} owner {}:{}", self.path.display(), self.mode, self.uid, self.gid)
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let path = self.path.display();
        let failed = |call: String| move |e: Errno| EffectError::call(call, e);
        let (mode, owner) = (Bits::from_raw_mode(self.mode.0), (self.uid, self.gid));
        made::node(CWD, &self.path, FileType::Fifo, 0, mode, Some(owner))?;
        let stat = lstat(&self.path).map_err(failed(format!("lstat({path})")))?;
        Ok(Applied::outcome(&Fifo { path: self.path.clone(), device: stat.st_dev, inode: stat.st_ino }))
    }

    fn undo(&self, record: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        let stat = match lstat(&self.path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Undone::Done),
            Err(e) => return Err(EffectError::call(format!("lstat({})", self.path.display()), e)),
            Ok(stat) => stat,
        };
        let is_fifo = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
        // Without an outcome it was cut off in between; the name in the run's own directory proves it ours then.
        let ours = record.outcome::<Fifo>().is_none_or(|f| (f.device, f.inode) == (stat.st_dev, stat.st_ino));
        if !(is_fifo && ours) {
            return Err(EffectError::new(format!("{} is not the FIFO that this run made", self.path.display()))
                .help("look at what is there; remove it yourself if nothing needs it"));
        }
        remove(&self.path)?;
        Ok(Undone::Done)
    }
}

fn remove(path: &Path) -> Result<(), EffectError> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(EffectError::call(format!("unlink({})", path.display()), e)),
    }
}

impl EffectDef for AwaitStart {
    const KIND: &'static str = "await_start";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self {}]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        "wait at the exec FIFO until the container is started".into()
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let missing = || {
            EffectError::new("this process was given no FIFO to wait at")
                .help("give its process.clone the FIFO: with: { fifo: \"${FIFO-STEP.fifo}\" }")
        };
        let fifo = cx.fds.take(FIFO).ok_or_else(missing)?;
        let own_fds = cx.fds.get(SELF_FD).ok_or_else(missing)?;
        // By descriptor: the FIFO's path is not in the container, and a /proc that the container brought along is not to be trusted.
        let name = fifo.as_raw_fd().to_string();
        let opened = rustix::io::retry_on_intr(|| {
            openat(own_fds, &name, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Bits::empty())
        });
        let report = opened.map_err(|e| {
            EffectError::call("open(the exec FIFO, O_WRONLY)", e)
                .help("the container's user must be allowed to write to it: mode 0622 lets everybody")
        })?;
        cx.fds.put(REPORT, report);
        Ok(Applied::done())
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl EffectDef for Release {
    const KIND: &'static str = "release";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { path: scratch.join("exec.fifo"), process: Later::Handle(super::example_process()) }]
    }

    fn class(&self) -> Class {
        Class::Commit
    }

    fn describe(&self) -> String {
        format!("read from {}: lets {} go on to its program", self.path.display(), self.process)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let init = resolve(&self.process, cx)?;
        let path = self.path.display();
        let gone = || {
            EffectError::new(format!("process {}, which waited to be started, has gone", init.pid))
                .help("something killed it; delete the container and create it again")
        };
        let watched = watch(&init)?.ok_or_else(gone)?;
        if watched.is_dead()? {
            return Err(gone());
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
        let fifo = open(&self.path, flags, Bits::empty()).map_err(|e| {
            let failed = EffectError::call(format!("open({path}, O_RDONLY)"), e);
            if e == Errno::NOENT { failed.help("the container has been started already") } else { failed }
        })?;
        Ok(Applied::Pending(Box::new(Starting {
            path: self.path.clone(),
            init: watched,
            pid: init.pid,
            fifo,
            said: Vec::new(),
            released: false,
            until: Instant::now() + ARRIVAL,
        })))
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

/// How long init may take from its last step in `create` to the FIFO.
const ARRIVAL: Duration = Duration::from_secs(10);

/// The longest message that is taken from a process of which nobody knows what it has become.
const LONGEST: usize = 64 << 10;

struct Starting {
    path: PathBuf,
    init: Watched,
    pid: i32,
    fifo: OwnedFd,
    said: Vec<u8>,
    /// Init has gone on.
    released: bool,
    /// When it has come to the FIFO at the latest.
    until: Instant,
}

impl Pending for Starting {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(Interest::read(self.fifo.as_raw_fd()));
        wants.push(self.init.interest());
    }

    fn deadline(&self) -> Option<Instant> {
        (!self.released).then_some(self.until)
    }

    fn advance(&mut self, _: &mut Cx) -> Result<Option<Value>, EffectError> {
        self.see_release()?;
        // Asked before the FIFO is read: what a process wrote before it died is there to be read then.
        let dead = self.init.is_dead()?;
        let hung_up = self.read()?;
        if !hung_up && !dead {
            return if self.released || Instant::now() < self.until { Ok(None) } else { Err(self.started_before()?) };
        }
        if let Some(error) = self.failure() {
            return Err(error);
        }
        if !hung_up {
            return Err(EffectError::new(format!("process {} died before it could be started", self.pid)));
        }
        remove(&self.path)?;
        Ok(Some(Value::Null))
    }

    /// One that has just gone on is started all the same. Where that cannot be seen, the next start finds it out.
    fn cancel(&mut self, _: &mut Cx) {
        let _ = self.see_release();
    }
}

impl Starting {
    /// Takes the FIFO's name away as soon as init has gone on. Nothing can hold it back from then on, so the container is not to be taken for one that
    /// has to be started, whatever becomes of this engine while startContainer hooks run.
    fn see_release(&mut self) -> Result<(), EffectError> {
        if self.released {
            return Ok(());
        }
        let mut buffer = [0; 4096];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.fifo, &mut buffer)) {
            // Without a writer it is at its end: init has not come yet, or it has closed its end already, which poll(2) tells.
            Ok(0) => return Ok(()),
            Ok(n) => self.said.extend_from_slice(&buffer[..n]),
            // A writer, and open(2) has let it go since there is a reader: fifo(7).
            Err(Errno::AGAIN) => {}
            Err(e) => return Err(EffectError::call("read(the exec FIFO)", e)),
        }
        remove(&self.path)?;
        self.released = true;
        Ok(())
    }

    /// Init waits at the FIFO before `create` has ended. One that does not was let go by a start that was cut off just then.
    fn started_before(&self) -> Result<EffectError, EffectError> {
        remove(&self.path)?;
        Ok(EffectError::new(format!("process {} does not wait to be started: it has been started already", self.pid))
            .help("an earlier start was cut off; `state` tells what has become of the container"))
    }

    /// Takes what is there; answers whether the last writer has gone. Before the first one comes, the FIFO has no end of file in poll(2)'s
    /// eyes, but has one in read(2)'s.
    fn read(&mut self) -> Result<bool, EffectError> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut buffer = [0; 4096];
        loop {
            let mut polled = [PollFd::new(&self.fifo, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut polled, Some(&now)))
                .map_err(|e| EffectError::call("poll(the exec FIFO)", e))?;
            let ready = polled[0].revents();
            if !ready.intersects(PollFlags::IN | PollFlags::HUP) || self.said.len() > LONGEST {
                return Ok(self.said.len() > LONGEST);
            }
            match rustix::io::read(&self.fifo, &mut buffer) {
                Ok(0) => return Ok(true),
                Ok(n) => self.said.extend_from_slice(&buffer[..n]),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(e) => return Err(EffectError::call("read(the exec FIFO)", e)),
            }
        }
    }

    fn failure(&self) -> Option<EffectError> {
        if self.said.is_empty() {
            return None;
        }
        let said = String::from_utf8_lossy(&self.said);
        let reported = said.lines().find_map(|line| match serde_json::from_str(line) {
            Ok(Report::Failed { error, .. }) => Some(error),
            _ => None,
        });
        Some(reported.unwrap_or_else(|| {
            let mut error =
                EffectError::new("the container's init wrote something else than an error to the exec FIFO");
            error.output = said.lines().take(5).map(str::to_owned).collect();
            error
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that takes the place of init, and whom the FIFO's reader waits for.
    fn starting(path: &Path, until: Instant) -> (Child, Starting) {
        let init = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(init.id().cast_signed()).unwrap();
        rustix::fs::mkfifoat(CWD, path, Bits::from_raw_mode(0o600)).unwrap();
        let fifo = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Bits::empty()).unwrap();
        let watched = Process::of(pid).unwrap().watch().unwrap().unwrap();
        let (pid, said) = (pid.as_raw_nonzero().get(), Vec::new());
        (init, Starting { path: path.to_owned(), init: watched, pid, fifo, said, released: false, until })
    }

    #[test]
    fn the_fifo_goes_as_soon_as_init_has_gone_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exec.fifo");
        let (mut init, mut starting) = starting(&path, Instant::now() + ARRIVAL);
        starting.see_release().unwrap();
        assert!(path.exists() && !starting.released && starting.deadline().is_some());
        let report = open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Bits::empty()).unwrap();
        starting.see_release().unwrap();
        assert!(!path.exists() && starting.released && starting.deadline().is_none());
        assert!(!starting.read().unwrap());
        drop(report);
        assert!(starting.read().unwrap(), "the program has taken over");
        init.kill().unwrap();
        init.wait().unwrap();
    }

    #[test]
    fn an_init_that_does_not_come_was_let_go_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exec.fifo");
        let (mut init, starting) = starting(&path, Instant::now());
        let error = starting.started_before().unwrap();
        assert!(error.what.contains("has been started already"), "{error}");
        assert!(!path.exists());
        init.kill().unwrap();
        init.wait().unwrap();
    }
}
