//! The exec FIFO: between `create` and `start` a container's init waits for a byte from it.
//!
//! It has a companion by which init tells of a failure from then on. Init has both open since before it was cut off from the host, and exec
//! closes them: so the companion's reader sees the end of file when the program has taken over, and bytes when it could not: the failure, as init
//! would have told the engine, which has gone by then.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::site::{REPORT, Report};
use lifecycle_engine::value::Later;
use rustix::fs::{AtFlags, CWD, FileType, Mode as Bits, OFlags, lstat, open, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wait::{resolve, watch};
use crate::made;
use crate::outcomes::{Fifo, Process};
use crate::process::{FIFO, FIFO_REPORT, Watched};

/// Makes a FIFO that the engine alone may open, in a directory that is the run's own. Undo removes it if it is still the one.
#[derive(Debug, Serialize, Deserialize)]
pub struct MakeFifo {
    /// Where.
    pub path: PathBuf,
}

/// Waits for a byte from the FIFO, and from then on reports failures to its companion.
#[derive(Debug, Serialize, Deserialize)]
pub struct AwaitStart {}

/// Writes a byte into the FIFO, which lets init go, and waits until its program has taken over. The FIFOs have done their work then, and are
/// removed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Release {
    /// The FIFO.
    pub path: PathBuf,
    /// Its companion. A container that an older program made has none.
    #[serde(default)]
    pub report: PathBuf,
    /// The process that waits at it.
    pub process: Later<Process>,
}

impl EffectDef for MakeFifo {
    const KIND: &'static str = "exec_fifo";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { path: scratch.join("exec.fifo") }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("mkfifo {} mode 0600", self.path.display())
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let path = self.path.display();
        let failed = |call: String| move |e: Errno| EffectError::call(call, e);
        made::node(CWD, &self.path, FileType::Fifo, 0, Bits::from_raw_mode(0o600), None)?;
        let stat = lstat(&self.path).map_err(failed(format!("lstat({path})")))?;
        Applied::outcome(&Fifo { path: self.path.clone(), device: stat.st_dev, inode: stat.st_ino })
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
        let report = cx.fds.take(FIFO_REPORT).ok_or_else(missing)?;
        // Init is a writer itself, so there is no end of file: who makes containers may come and go.
        rustix::io::retry_on_intr(|| rustix::io::read(&fifo, &mut [0; 1]))
            .map_err(|e| EffectError::call("read(the exec FIFO)", e))?;
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
        let (path, report) = (scratch.join("exec.fifo"), scratch.join("exec.report"));
        vec![Self { path, report, process: Later::Handle(super::example_process()) }]
    }

    fn class(&self) -> Class {
        Class::Commit
    }

    fn describe(&self) -> String {
        format!("write to {}: lets {} go on to its program", self.path.display(), self.process)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let init = resolve(&self.process, cx)?;
        let path = self.path.display();
        let gone = || {
            EffectError::new(format!("process {}, which waited to be started, has gone", init.pid))
                .help("it was killed, or could not go on under the container's seccomp filter; delete the container and create it again")
        };
        let watched = watch(&init)?.ok_or_else(gone)?;
        if watched.is_dead()? {
            return Err(gone());
        }
        let report = open_end(&self.report, OFlags::RDONLY)?;
        let fifo = match open_end(&self.path, OFlags::WRONLY) {
            // Nobody reads there any more: init has gone on, let go by a start that was cut off just then.
            Err(error) if error.errno == Some(Errno::NXIO.raw_os_error()) => {
                return Err(if watched.is_dead()? { gone() } else { self.started_before(init.pid)? });
            }
            answer => answer?,
        };
        rustix::io::write(&fifo, b"0").map_err(|e| EffectError::call(format!("write({path})"), e))?;
        // Nothing can hold init back from here on. It is not to be taken for one that has to be started, whatever becomes of this engine while
        // startContainer hooks run.
        self.remove()?;
        Ok(Applied::Pending(Box::new(Starting { init: watched, pid: init.pid, fifo, report, said: Vec::new() })))
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

impl Release {
    fn remove(&self) -> Result<(), EffectError> {
        remove(&self.path)?;
        remove(&self.report)
    }

    fn started_before(&self, pid: i32) -> Result<EffectError, EffectError> {
        self.remove()?;
        Ok(EffectError::new(format!("process {pid} does not wait to be started: it has been started already"))
            .help("an earlier start was cut off; `state` tells what has become of the container"))
    }
}

/// One end of a FIFO, opened without waiting for the other.
fn open_end(path: &Path, end: OFlags) -> Result<OwnedFd, EffectError> {
    let flags = end | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
    open(path, flags, Bits::empty()).map_err(|e| {
        let failed = EffectError::call(format!("open({})", path.display()), e);
        if e == Errno::NOENT {
            failed.help("the container has been started already, or an older version of this program has created it: delete it, and create it again")
        } else {
            failed
        }
    })
}

/// The longest message that is taken from a process of which nobody knows what it has become.
const LONGEST: usize = 64 << 10;

struct Starting {
    init: Watched,
    pid: i32,
    /// Held open, so that it tells whether init has taken its byte.
    fifo: OwnedFd,
    report: OwnedFd,
    said: Vec<u8>,
}

impl Pending for Starting {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(Interest::read(self.report.as_raw_fd()));
        wants.push(self.init.interest());
    }

    fn advance(&mut self, _: &mut Cx) -> Result<Option<Value>, EffectError> {
        // Asked before the FIFO is read: what a process wrote before it died is there to be read then.
        let dead = self.init.is_dead()?;
        if !self.read()? && !dead {
            return Ok(None);
        }
        if let Some(error) = self.failure() {
            return Err(error);
        }
        let left = rustix::io::ioctl_fionread(&self.fifo).map_err(|e| EffectError::call("ioctl(FIONREAD)", e))?;
        if left > 0 {
            return Err(EffectError::new(format!("process {} died before it could be started", self.pid)));
        }
        Ok(Some(Value::Null))
    }

    /// Init has its byte, and goes on without us.
    fn cancel(&mut self, _: &mut Cx) {}
}

impl Starting {
    /// Takes what is there; answers whether the writer has gone, or has said more than is taken.
    fn read(&mut self) -> Result<bool, EffectError> {
        let mut buffer = [0; 4096];
        while self.said.len() <= LONGEST {
            match rustix::io::read(&self.report, &mut buffer) {
                Ok(0) => return Ok(true),
                Ok(n) => self.said.extend_from_slice(&buffer[..n]),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(e) => return Err(EffectError::call("read(the exec FIFO's companion)", e)),
            }
        }
        Ok(true)
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
    use crate::effects::testing::Bench;
    use rustix::process::Pid;
    use std::process::{Child, Command, Stdio};

    /// A process that takes the place of init, both ends that it would hold, and what starts it.
    struct Created {
        init: Child,
        ends: Option<(OwnedFd, OwnedFd)>,
        release: Release,
        _dir: tempfile::TempDir,
    }

    fn created() -> Created {
        let dir = tempfile::tempdir().unwrap();
        let init = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = Process::of(Pid::from_raw(init.id().cast_signed()).unwrap()).unwrap();
        let (path, report) = (dir.path().join("exec.fifo"), dir.path().join("exec.report"));
        let open = |path: &Path, flags| open(path, flags | OFlags::CLOEXEC, Bits::empty()).unwrap();
        for path in [&path, &report] {
            rustix::fs::mkfifoat(CWD, path, Bits::from_raw_mode(0o600)).unwrap();
        }
        let reader = open(&report, OFlags::RDONLY | OFlags::NONBLOCK);
        let ends = Some((open(&path, OFlags::RDWR), open(&report, OFlags::WRONLY)));
        drop(reader);
        Created { init, ends, release: Release { path, report, process: Later::Now(process) }, _dir: dir }
    }

    impl Created {
        /// The answer of `start`, whose init does this meanwhile.
        fn started(mut self, init: impl FnOnce(&mut Child, (OwnedFd, OwnedFd)) + Send) -> Result<Value, EffectError> {
            let (ends, release) = (self.ends.take().unwrap(), &self.release);
            let child = &mut self.init;
            let answer = std::thread::scope(|scope| {
                let init = scope.spawn(move || init(child, ends));
                let answer = Bench::new(Path::new("/nowhere")).apply(release).1;
                init.join().unwrap();
                answer
            });
            let _ = self.init.kill();
            self.init.wait().unwrap();
            assert!(!release.path.exists() && !release.report.exists(), "a FIFO is left");
            answer
        }
    }

    fn take_byte(fifo: &OwnedFd) {
        assert_eq!(rustix::io::read(fifo, &mut [0; 2]), Ok(1));
    }

    #[test]
    fn the_end_of_file_says_that_the_program_has_taken_over() {
        created()
            .started(|_, (fifo, report)| {
                take_byte(&fifo);
                drop((fifo, report));
            })
            .unwrap();
    }

    #[test]
    fn the_fifos_go_before_init_has_gone_on() {
        let created = created();
        let path = created.release.path.clone();
        created
            .started(|_, (fifo, report)| {
                take_byte(&fifo);
                while path.exists() {
                    std::thread::yield_now();
                }
                drop(report);
            })
            .unwrap();
    }

    #[test]
    fn an_init_that_dies_without_having_taken_its_byte_was_not_started() {
        let error = created()
            .started(|init, ends| {
                while rustix::io::ioctl_fionread(&ends.0) == Ok(0) {
                    std::thread::yield_now();
                }
                init.kill().unwrap();
                drop(ends);
            })
            .unwrap_err();
        assert!(error.what.contains("died before it could be started"), "{error}");
    }

    #[test]
    fn what_init_says_is_the_failure_and_is_bounded() {
        let error = created().started(|_, (fifo, report)| {
            take_byte(&fifo);
            // The reader goes away from one who never ends.
            while rustix::io::write(&report, &[b'x'; 4096]).is_ok() {}
        });
        assert!(error.unwrap_err().what.contains("something else than an error"));
    }

    #[test]
    fn an_init_that_reads_no_more_was_let_go_before() {
        let mut created = created();
        created.ends = None;
        let error = Bench::new(Path::new("/nowhere")).apply(&created.release).1.unwrap_err();
        assert!(error.what.contains("has been started already"), "{error}");
        assert!(!created.release.path.exists());
        created.init.kill().unwrap();
        created.init.wait().unwrap();
    }
}
