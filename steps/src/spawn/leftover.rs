//! What is left of a process that an effect started, when the effect is undone: maybe by another engine, maybe in the middle of its work.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use lifecycle_engine::effect::{Cx, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use serde::Deserialize;
use serde_json::Value;

use super::identity;
use crate::outcomes::Process;

/// Kills what an effect and an earlier undo of it left running, and waits for their end.
pub fn kill(record: &Record) -> Result<Vec<OwnedFd>, EffectError> {
    // An effect with an outcome has ended, and so has its process; the kernel may have given the pid to another.
    let applied = record.started.as_ref().filter(|_| record.outcome.is_none());
    let mut gone = Vec::new();
    for started in [applied, record.undoing.as_ref()].into_iter().flatten().filter(|v| !v.is_null()) {
        let process = Process::deserialize(started)
            .map_err(|e| EffectError::new(format!("the journal names no process that could be killed: {e}")))?;
        gone.extend(identity::kill(&process)?);
    }
    Ok(gone)
}

/// Whether the process was ever let go. Where the journal does not even hold its identity it never did a thing.
pub fn may_have_run(record: &Record) -> bool {
    record.started.is_some() || record.outcome.is_some()
}

/// The undo of an effect whose process needs nothing but an end.
pub fn end(record: &Record) -> Result<Undone, EffectError> {
    let gone = kill(record)?;
    if gone.is_empty() { Ok(Undone::Done) } else { Ok(Undone::Pending(Box::new(After { gone, then: None }))) }
}

/// The counterpart, started inert, let go once nothing is left of the process that it takes back.
pub fn then(gone: Vec<OwnedFd>, counterpart: impl Pending + 'static) -> Undone {
    Undone::Pending(Box::new(After { gone, then: Some(Box::new(counterpart)) }))
}

struct After {
    gone: Vec<OwnedFd>,
    then: Option<Box<dyn Pending>>,
}

impl After {
    fn drop_ended(&mut self) -> Result<(), EffectError> {
        let mut still = Vec::new();
        for pidfd in self.gone.drain(..) {
            if ended(&pidfd)? {
                identity::reap(&pidfd);
            } else {
                still.push(pidfd);
            }
        }
        self.gone = still;
        Ok(())
    }
}

/// Readable means ended: pidfd_open(2).
fn ended(pidfd: &OwnedFd) -> Result<bool, EffectError> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut polled, Some(&now)))
        .map(|n| n > 0)
        .map_err(|e| EffectError::call("poll(pidfd)", e))
}

impl Pending for After {
    fn started(&self) -> Value {
        self.then.as_ref().map_or(Value::Null, |then| then.started())
    }

    fn release(&mut self, cx: &mut Cx) -> Result<(), EffectError> {
        self.drop_ended()?;
        match &mut self.then {
            Some(then) if self.gone.is_empty() => then.release(cx),
            _ => Ok(()),
        }
    }

    fn interest(&self, wants: &mut Vec<Interest>) {
        match &self.then {
            Some(then) if self.gone.is_empty() => then.interest(wants),
            _ => wants.extend(self.gone.iter().map(|fd| Interest::read(fd.as_raw_fd()))),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.then.as_ref().filter(|_| self.gone.is_empty()).and_then(|then| then.deadline())
    }

    fn advance(&mut self, cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        let waited = !self.gone.is_empty();
        self.drop_ended()?;
        match &mut self.then {
            _ if !self.gone.is_empty() => Ok(None),
            None => Ok(Some(Value::Null)),
            Some(then) => {
                if waited {
                    then.release(cx)?;
                }
                then.advance(cx)
            }
        }
    }

    fn cancel(&mut self, cx: &mut Cx) {
        if let Some(then) = &mut self.then {
            then.cancel(cx);
        }
    }
}
