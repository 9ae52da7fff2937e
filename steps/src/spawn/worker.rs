//! A forked copy of ourselves that may block: the engine waits for its report, and can kill or abandon it.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use lifecycle_engine::effect::{Cx, Interest, Pending, Said};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::lines::turn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Exit;
use super::child::{Child, Session};

/// The largest report, in bytes.
const LARGEST: usize = 1 << 20;

/// The exit code of a worker that could not leave the engine's session or descriptors behind.
const NOT_READY: i32 = 124;

/// What the worker tells the engine, a JSON line each.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    /// A line to show under the step's name.
    Said(String),
    /// The effect's outcome: the last report.
    Done(Value),
    /// Its failure: the last report.
    Failed(EffectError),
}

/// What ties a worker to its engine.
pub struct Leash {
    gate: OwnedFd,
    tell: OwnedFd,
}

impl Leash {
    /// Shows a line under the step's name.
    pub fn say(&self, line: impl Into<String>) {
        self.report(&Report::Said(line.into()));
    }

    /// Waits until one of the descriptors can be read or the time has come. Where the engine has gone, the worker has nobody to work for: it
    /// ends here, with all that it started.
    pub fn wait(&self, readable: &[RawFd], until: Option<Instant>) -> Result<(), EffectError> {
        let mut polled = vec![PollFd::new(&self.gate, PollFlags::IN)];
        polled
            .extend(readable.iter().map(|fd| PollFd::from_borrowed_fd(crate::sys::child::borrow(*fd), PollFlags::IN)));
        loop {
            let left = until.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = left.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: i64::from(l.subsec_nanos()) });
            match poll(&mut polled, timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(EffectError::call("poll", errno)),
                Ok(_) => break,
            }
        }
        if polled.first().is_some_and(|gate| !gate.revents().is_empty()) {
            // The group is the worker's own, so this ends the worker too.
            let own = rustix::process::getpid();
            let killed = rustix::process::kill_process_group(own, rustix::process::Signal::KILL);
            return killed.map_err(|e| EffectError::call("kill(own process group, SIGKILL)", e));
        }
        Ok(())
    }

    fn report(&self, report: &Report) {
        let Ok(mut line) = serde_json::to_vec(report) else { return };
        line.push(b'\n');
        let mut rest = line.as_slice();
        // An engine that has gone reads no reports.
        while let Ok(n @ 1..) = rustix::io::retry_on_intr(|| rustix::io::write(&self.tell, rest)) {
            rest = &rest[n..];
        }
    }
}

/// Makes a worker, inert until its release. `body` runs in it; it may block, and it has those descriptors of the engine's that are in `keep`.
pub fn worker(
    what: impl Into<String>,
    keep: &[RawFd],
    body: impl FnOnce(&Leash) -> Result<Value, EffectError>,
) -> Result<Working, EffectError> {
    let (hear, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| EffectError::call("pipe2(reports)", e))?;
    let flags = fcntl_getfl(&hear).map_err(|e| EffectError::call("fcntl(F_GETFL)", e))?;
    fcntl_setfl(&hear, flags | OFlags::NONBLOCK).map_err(|e| EffectError::call("fcntl(F_SETFL, O_NONBLOCK)", e))?;
    let mut kept = keep.to_vec();
    kept.push(tell.as_raw_fd());
    let child = Child::fork(Session::Own, &kept, |ready| {
        let Ok(gate) = ready else {
            // It holds descriptors that are not its own: it must not do a thing. The exit code tells.
            return NOT_READY;
        };
        let leash = Leash { gate, tell };
        leash.report(&body(&leash).map_or_else(Report::Failed, Report::Done));
        0
    })?;
    Ok(Working { what: what.into(), child, hear: Some(hear), heard: Vec::new(), answer: None })
}

/// A worker at work, or before its release.
pub struct Working {
    what: String,
    child: Child,
    hear: Option<OwnedFd>,
    heard: Vec<u8>,
    answer: Option<Result<Value, EffectError>>,
}

impl Working {
    fn listen(&mut self, cx: &mut Cx) -> Result<(), EffectError> {
        let mut buffer = [0u8; 4096];
        let mut left = self.hear.as_ref().map_or(0, turn);
        while let Some(hear) = self.hear.as_ref().filter(|_| left > 0) {
            match rustix::io::read(hear, &mut buffer) {
                Ok(0) => self.hear = None,
                Ok(n) => {
                    left = left.saturating_sub(n);
                    self.take(&buffer[..n], cx)?;
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(EffectError::call(format!("read(report of {})", self.what), errno)),
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], cx: &mut Cx) -> Result<(), EffectError> {
        self.heard.extend_from_slice(bytes);
        if self.heard.len() > LARGEST {
            return Err(EffectError::new(format!("{} reports more than {LARGEST} bytes", self.what)));
        }
        while let Some(end) = self.heard.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            let report = serde_json::from_slice(&line)
                .map_err(|e| EffectError::new(format!("{} reports what is no JSON: {e}", self.what)))?;
            match report {
                Report::Said(line) => (cx.output)(Said::Line(&line)),
                Report::Done(outcome) => self.answer = Some(Ok(outcome)),
                Report::Failed(error) => self.answer = Some(Err(error)),
            }
        }
        Ok(())
    }
}

impl Pending for Working {
    fn started(&self) -> Value {
        self.child.identity().ok().and_then(|p| serde_json::to_value(p).ok()).unwrap_or_default()
    }

    fn release(&mut self, _cx: &mut Cx) -> Result<(), EffectError> {
        self.child.release()
    }

    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(Interest::read(self.child.pidfd().as_raw_fd()));
        wants.extend(self.hear.iter().map(|fd| Interest::read(fd.as_raw_fd())));
    }

    fn advance(&mut self, cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        self.listen(cx)?;
        let Some(exit) = self.child.exit()? else { return Ok(None) };
        // Between the two the worker may have written its last report.
        self.listen(cx)?;
        match (self.answer.take(), exit) {
            (Some(answer), Exit::Code(0)) => answer.map(Some),
            (_, exit) => Err(EffectError::new(format!("{}: its worker {exit} without a report", self.what))),
        }
    }

    fn cancel(&mut self, _cx: &mut Cx) {
        // What cannot be killed now is found by its identity in undo, which reports it.
        let _ = self.child.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, drive};
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn a_worker_reports_what_it_found_and_what_it_said() {
        let mut bench = Bench::new();
        let working = worker("a sum", &[], |leash| {
            leash.say("counting");
            leash.wait(&[], Some(Instant::now() + Duration::from_millis(10)))?;
            Ok(json!({ "sum": 3 }))
        });
        assert_eq!(bench.with(|cx| drive(Box::new(working.unwrap()), cx)).unwrap(), json!({ "sum": 3 }));
        assert_eq!(bench.lines, ["counting"]);
    }

    #[test]
    fn a_worker_that_fails_or_dies_is_an_error() {
        let mut bench = Bench::new();
        let failed = worker("a test", &[], |_| Err(EffectError::new("on purpose"))).unwrap();
        assert_eq!(bench.with(|cx| drive(Box::new(failed), cx)).unwrap_err().what, "on purpose");
        let died = worker("a test", &[], |_| {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
            Ok(Value::Null)
        });
        let error = bench.with(|cx| drive(Box::new(died.unwrap()), cx)).unwrap_err();
        assert_eq!(error.what, "a test: its worker was killed by SIGKILL without a report");
    }
}
