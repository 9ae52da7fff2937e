//! What a run waits for: effects that take their time, processes inside, signals, and steps that are to be tried again.

use std::cmp::Reverse;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::execute::{Execution, Progress};
use super::signals::signal;
use super::work::{Waiting, earliest, wait_any};
use crate::effect::Pending;
use crate::error::EffectError;
use crate::journal::{Entry, JournalError};
use crate::program::NodeId;

impl Execution<'_> {
    /// Journals what was started, then lets it go.
    pub(super) fn pend(
        &mut self,
        n: NodeId,
        e: u32,
        mut pending: Box<dyn Pending>,
    ) -> Result<Result<Option<Value>, EffectError>, JournalError> {
        let started = pending.started();
        if !started.is_null() {
            self.outcomes.put(&self.program.nodes[n as usize].address, e, started.clone());
            self.log.note(&Entry::Started { n: self.base + n, e, v: started })?;
            self.log.flush()?;
        }
        let first = self.with_cx(n, e, |cx| {
            pending.release(cx)?;
            pending.advance(cx)
        });
        if matches!(first, Ok(Some(_))) {
            self.hear_sites()?;
        }
        if matches!(first, Ok(None)) {
            let limit = self.step_options(n).and_then(|o| o.timeout).map(|t| Instant::now() + t);
            self.waiting.push(Waiting::new(n, e, pending, limit));
        }
        Ok(first)
    }

    pub(super) fn wait(&mut self) -> Result<(), JournalError> {
        let mut extra: Vec<RawFd> = self.cancelling().into_iter().collect();
        let cancel = extra.len();
        self.sites.iter().for_each(|site| site.poll_fds(&mut extra));
        let deadline = self.retries.iter().map(|(at, _)| Some(*at)).fold(self.site_deadline(), earliest);
        if extra.len() == cancel && self.waiting.is_empty() && self.taken_back.is_empty() && deadline.is_none() {
            return self.starved();
        }
        let tick = self.watch.pace().map(|pace| Instant::now() + pace);
        let work = self.waiting.iter().chain(self.taken_back.iter().flat_map(|back| &back.waiting));
        let ready = wait_any(work, &extra, earliest(deadline, tick));
        self.watch.tick();
        let ready = match ready {
            Ok(ready) => ready,
            Err(error) => return self.fail(self.waiting.first().map_or(0, |w| w.n), 0, error),
        };
        let signalled = cancel > 0 && ready.extra[0];
        if signalled && !self.may_be_a_programs() {
            self.cancelled = self.options.cancel.map(signal);
            return Ok(());
        }
        self.retry_due();
        // What a process inside has said is heard before its end is: whoever waits for that would take a failed step for the program's own end.
        if ready.extra[cancel..].contains(&true) || !ready.woken.is_empty() {
            self.hear_sites()?;
        }
        self.check_site_deadlines()?;
        // From the last to the first, so that taking one out does not move those still to come.
        let (woken, back): (Vec<usize>, Vec<usize>) =
            ready.woken.into_iter().rev().partition(|index| *index < self.waiting.len());
        let before = self.waiting.len();
        if !back.is_empty() {
            self.advance_back(&back.into_iter().map(|index| index - before).collect::<Vec<_>>())?;
        }
        for index in woken {
            if self.failure.is_none() {
                self.advance(index)?;
            }
        }
        // A program that had begun before the signal came has been heard of by now.
        if signalled && !self.is_over() {
            self.cancelled = self.cancelling().map(signal);
        }
        Ok(())
    }

    fn starved(&mut self) -> Result<(), JournalError> {
        let stuck = self.progress.iter().zip(&self.program.nodes).position(|(p, n)| *p != Progress::Over && !n.armed);
        let n = stuck.unwrap_or(0) as NodeId;
        self.fail(n, 0, EffectError::new("it waits for a step that this run cannot finish"))
    }

    fn retry_due(&mut self) {
        let now = Instant::now();
        let due: Vec<NodeId> = self.retries.iter().filter(|(at, _)| *at <= now).map(|(_, n)| *n).collect();
        self.retries.retain(|(at, _)| *at > now);
        self.ready.extend(due.into_iter().map(Reverse));
    }

    fn advance(&mut self, index: usize) -> Result<(), JournalError> {
        let mut work = self.waiting.swap_remove(index);
        let (n, e) = (work.n, work.e);
        let late = work.is_late();
        let timeout = self.step_options(n).and_then(|o| o.timeout).unwrap_or_default();
        let result = self.with_cx(n, e, |cx| match work.pending.advance(cx) {
            Ok(None) if late => {
                work.pending.cancel(cx);
                Err(timed_out(timeout))
            }
            other => other,
        });
        match result {
            Ok(None) => {
                self.waiting.push(work);
                Ok(())
            }
            Ok(Some(outcome)) => {
                self.outcome(n, e, outcome)?;
                self.carry_on(n, e + 1)
            }
            Err(error) => self.fail(n, e, error),
        }
    }
}

pub(super) fn timed_out(timeout: Duration) -> EffectError {
    EffectError::new(format!(
        "it did not end within its timeout of {}",
        crate::types::Millis(timeout.as_millis() as u64)
    ))
    .help("raise the step's `timeout`, or find out what it waits for with `--pause-at`")
}
