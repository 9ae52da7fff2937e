//! A small engine for the tests of effects: applies one, journals what it starts, waits for it, undoes it.

use std::sync::Arc;

use lifecycle_engine::effect::{Applied, Cx, Effect, Fds, Interest, Outcomes, Pending, Record, RunNames, Said, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Handle, HandleRef, Outcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::sys::child::borrow;

/// What an effect's `Cx` is made of.
pub struct Bench {
    pub run: RunNames,
    pub step: Arc<str>,
    pub outcomes: Outcomes,
    pub fds: Fds,
    pub lines: Vec<String>,
}

impl Bench {
    /// An empty one.
    pub fn new() -> Self {
        let run = RunNames { root: "/run/lifecycle-test".into(), id: "test".into() };
        Self { run, step: "step".into(), outcomes: Outcomes::default(), fds: Fds::default(), lines: Vec::new() }
    }

    /// Calls `f` with a context.
    pub fn with<R>(&mut self, f: impl FnOnce(&mut Cx) -> R) -> R {
        let Self { run, step, outcomes, fds, lines } = self;
        let mut output = |said: Said| {
            lines.push(match said {
                Said::Line(line) => line.to_owned(),
                Said::Warning(text) => format!("warning: {text}"),
            });
        };
        f(&mut Cx { run, step, effect: 0, outcomes, fds, site: None, output: &mut output })
    }

    /// Gives a handle an outcome.
    pub fn handle<T: Outcome>(&mut self, step: &str, outcome: &T) -> Handle<T> {
        let step: Arc<str> = step.into();
        self.outcomes.put(&step, 0, serde_json::to_value(outcome).unwrap());
        Handle::new(HandleRef { step, effect: 0, field: "".into() })
    }

    /// Applies the effect to its end; the record is what a journal would hold.
    pub fn apply(&mut self, effect: &dyn Effect) -> (Record, Result<Value, EffectError>) {
        let mut record = Record::default();
        let answer = self.with(|cx| {
            record.before = effect.before(cx)?;
            match effect.apply(&record.before, cx)? {
                Applied::Done(outcome) => Ok(outcome),
                Applied::Pending(pending) => {
                    record.started = Some(pending.started()).filter(|s| !s.is_null());
                    drive(pending, cx)
                }
                Applied::Site { .. } | Applied::UndoRun => panic!("not here"),
            }
        });
        record.outcome = answer.as_ref().ok().cloned();
        (record, answer)
    }

    /// Undoes it to its end.
    pub fn undo(&mut self, effect: &dyn Effect, record: &Record) -> Result<(), EffectError> {
        self.with(|cx| match effect.undo(record, cx)? {
            Undone::Done | Undone::Nothing | Undone::Kept => Ok(()),
            Undone::Pending(pending) => {
                pending.started();
                drive(pending, cx).map(drop)
            }
        })
    }
}

/// Releases and waits.
pub fn drive(mut pending: Box<dyn Pending>, cx: &mut Cx) -> Result<Value, EffectError> {
    pending.release(cx)?;
    loop {
        let mut wants: Vec<Interest> = Vec::new();
        pending.interest(&mut wants);
        let mut polled: Vec<_> = wants.iter().map(|w| PollFd::from_borrowed_fd(borrow(w.fd), PollFlags::IN)).collect();
        let left = pending.deadline().map(|at| at.saturating_duration_since(std::time::Instant::now()));
        let timeout = left.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: i64::from(l.subsec_nanos()) });
        poll(&mut polled, timeout.as_ref()).unwrap();
        if let Some(outcome) = pending.advance(cx)? {
            return Ok(outcome);
        }
    }
}
