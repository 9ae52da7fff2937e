//! Steps that are taken back while their run goes on: to be tried again, or because it goes on without them. What that waits for is waited for in
//! the run's own loop, beside everything else.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::execute::Execution;
use super::undo::{Turn, Undo};
use super::work::Waiting;
use crate::events::Event;
use crate::journal::{Entry, JournalError};
use crate::program::NodeId;

/// A step that is being taken back.
pub(super) struct TakenBack {
    n: NodeId,
    turn: Turn,
    then: Then,
    pub waiting: Waiting,
}

/// What comes after that.
#[derive(Clone, Copy)]
pub(super) enum Then {
    /// It is tried again, so long after it was taken back.
    Retry { left: u32, wait: Duration },
    /// Its run goes on as if it had given nothing.
    GoOn,
}

impl Execution<'_> {
    pub(super) fn take_back_one(&mut self, n: NodeId, then: Then) -> Result<(), JournalError> {
        let base = self.base;
        let turn = self.undo().turn(base + n);
        self.carry_back(n, turn, then)
    }

    fn carry_back(&mut self, n: NodeId, turn: Turn, then: Then) -> Result<(), JournalError> {
        let base = self.base;
        match self.undo().step(base + n, turn)? {
            Some((turn, waiting)) => {
                self.log.flush()?;
                self.taken_back.push(TakenBack { n, turn, then, waiting });
                Ok(())
            }
            None => self.go_on(n, then),
        }
    }

    fn go_on(&mut self, n: NodeId, then: Then) -> Result<(), JournalError> {
        let (step, effects) = {
            let node = &self.program.nodes[n as usize];
            (node.address.clone(), node.effects.len() as u32)
        };
        match then {
            Then::Retry { left, wait } => {
                self.log.note(&Entry::Reset { n: self.base + n })?;
                self.watch.event(&Event::Retry { step, left, wait_ms: wait.as_millis() as u64 });
                self.retries.push((Instant::now() + wait, n));
            }
            Then::GoOn => {
                self.outcomes.forget(&step, effects);
                self.complete(n);
            }
        }
        Ok(())
    }

    /// One of them was woken.
    pub(super) fn advance_back(&mut self, index: usize) -> Result<(), JournalError> {
        let mut work = self.taken_back.swap_remove(index);
        let Some(result) = self.undo().advance(&mut work.waiting) else {
            self.taken_back.push(work);
            return Ok(());
        };
        self.undo().finish(work.waiting.n, work.waiting.e, result)?;
        self.carry_back(work.n, work.turn, work.then)
    }

    /// The run ends: what is on its way is begun anew, with nothing beside it.
    pub(super) fn end_taking_back(&mut self) -> Result<(), JournalError> {
        let mut nodes = BTreeSet::new();
        for mut work in std::mem::take(&mut self.taken_back) {
            self.undo().cancel(&mut work.waiting);
            nodes.insert(self.base + work.n);
        }
        self.take_back(&nodes)
    }

    pub(super) fn undo(&mut self) -> Undo<'_> {
        let Self { log, registry, outcomes, fds, watch, .. } = self;
        Undo { log, registry, outcomes, fds, watch: &mut **watch }
    }
}
