//! What is left of a process that an effect started, when the effect is undone: maybe by another engine, maybe in the middle of its work.

use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Cx, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use serde::Deserialize;
use serde_json::Value;

use super::identity;
use crate::outcomes::Process;
use crate::process::Watched;

/// Kills what an effect and an earlier undo of it left running, and waits for their end.
pub(crate) fn kill(record: &Record) -> Result<Vec<Watched>, EffectError> {
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
    kill(record).map(gone)
}

/// Waits for the end of what was killed.
pub(crate) fn gone(gone: Vec<Watched>) -> Undone {
    if gone.is_empty() { Undone::Done } else { Undone::Pending(Box::new(After { gone, then: None })) }
}

/// The undo of an effect that has no counterpart: only a process that still runs is taken back.
pub(crate) fn or_nothing(undone: Undone) -> Undone {
    match undone {
        Undone::Done => Undone::Nothing,
        other => other,
    }
}

/// The counterpart, started inert, let go once nothing is left of the process that it takes back.
pub(crate) fn then(gone: Vec<Watched>, counterpart: impl Pending + 'static) -> Undone {
    Undone::Pending(Box::new(After { gone, then: Some(Box::new(counterpart)) }))
}

struct After {
    gone: Vec<Watched>,
    then: Option<Box<dyn Pending>>,
}

impl After {
    fn drop_ended(&mut self) -> Result<(), EffectError> {
        let mut still = Vec::new();
        for watched in self.gone.drain(..) {
            if watched.is_dead()? {
                watched.reap()?;
            } else {
                still.push(watched);
            }
        }
        self.gone = still;
        Ok(())
    }
}

impl Pending for After {
    fn started(&self) -> Value {
        self.then.as_ref().map_or(Value::Null, |then| then.started())
    }

    fn release(&mut self, cx: &mut Cx) -> Result<(), EffectError> {
        // What has died meanwhile stays in `gone` until `advance` sees it: without it there would be nothing to poll.
        match &mut self.then {
            Some(then) if self.gone.is_empty() => then.release(cx),
            _ => Ok(()),
        }
    }

    fn interest(&self, wants: &mut Vec<Interest>) {
        match &self.then {
            Some(then) if self.gone.is_empty() => then.interest(wants),
            _ => wants.extend(self.gone.iter().map(Watched::interest)),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.then.as_ref().filter(|_| self.gone.is_empty()).and_then(|then| then.deadline())
    }

    fn time(&self) -> Option<Duration> {
        self.then.as_ref().and_then(|then| then.time())
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
