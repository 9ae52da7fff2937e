//! Steps that are taken back while their run goes on: to be tried again, or because it goes on without them. What that waits for is waited for in
//! the run's own loop, beside everything else.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::execute::Execution;
use super::undo::{Turn, Undo};
use super::work::Waiting;
use crate::events::{Event, Failure};
use crate::journal::{Entry, JournalError, Phase};
use crate::program::NodeId;

/// A step that is being taken back.
pub(super) struct BeingUndone {
    n: NodeId,
    turn: Turn,
    then: Then,
    until: Instant,
    pub waiting: Vec<Waiting>,
}

/// What comes after that.
pub(super) enum Then {
    /// It is tried again, so long after it was taken back; where that is stuck, it has failed so.
    Retry { left: u32, wait: Duration, failure: Box<Failure> },
    /// Its run goes on as if it had given nothing.
    GoOn,
}

impl Execution<'_> {
    pub(super) fn take_back_one(&mut self, n: NodeId, then: Then) -> Result<(), JournalError> {
        let (base, until) = (self.base, Instant::now() + PATIENCE);
        let turn = self.undo(until, false).turn(base + n);
        self.carry_back(BeingUndone { n, turn, then, until, waiting: Vec::new() })
    }

    fn carry_back(&mut self, mut back: BeingUndone) -> Result<(), JournalError> {
        let n = self.base + back.n;
        if self.undo(back.until, false).step(n, &mut back.turn, &mut back.waiting)? {
            return self.go_on(back.n, back.then);
        }
        self.log.flush()?;
        self.taken_back.push(back);
        Ok(())
    }

    fn go_on(&mut self, n: NodeId, then: Then) -> Result<(), JournalError> {
        let (step, effects) = {
            let node = &self.program.nodes[n as usize];
            (node.address.clone(), node.effects.len() as u32)
        };
        match then {
            // Another try would begin its record anew, and what is left of this one would be nobody's.
            Then::Retry { failure, .. } if self.is_stuck(n) => {
                self.failure.get_or_insert(*failure);
            }
            Then::Retry { left, wait, .. } => {
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

    fn is_stuck(&self, n: NodeId) -> bool {
        let node = self.log.state().node(self.base + n);
        node.is_some_and(|node| node.effects.iter().any(|effect| matches!(effect.phase, Phase::Stuck(_))))
    }

    /// Those of these were woken, counted through all that they wait for.
    pub(super) fn advance_back(&mut self, woken: &[usize]) -> Result<(), JournalError> {
        let mut first = 0;
        let mut moved = Vec::new();
        for back in std::mem::take(&mut self.taken_back) {
            let range = first..first + back.waiting.len();
            first = range.end;
            let own = woken.iter().filter(|index| range.contains(index)).map(|index| index - range.start).collect();
            moved.push((back, own));
        }
        moved.into_iter().try_for_each(|(back, own)| self.advance_one_back(back, own))
    }

    fn advance_one_back(&mut self, mut back: BeingUndone, mut woken: Vec<usize>) -> Result<(), JournalError> {
        if woken.is_empty() {
            self.taken_back.push(back);
            return Ok(());
        }
        // From the last to the first, so that taking one out does not move those still to come.
        woken.sort_unstable_by(|a, b| b.cmp(a));
        for index in woken {
            let Some(result) = self.undo(back.until, false).advance(&mut back.waiting[index]) else { continue };
            let over = back.waiting.swap_remove(index);
            back.turn.waits -= 1;
            self.undo(back.until, false).finish(over.n, over.e, result)?;
        }
        self.carry_back(back)
    }

    /// The run ends: what is on its way is begun anew, with nothing beside it.
    pub(super) fn end_taking_back(&mut self) -> Result<(), JournalError> {
        let mut nodes = BTreeSet::new();
        for back in std::mem::take(&mut self.taken_back) {
            nodes.insert(self.base + back.n);
            for mut work in back.waiting {
                self.undo(back.until, false).cancel(&mut work);
            }
        }
        self.take_back(&nodes)
    }

    pub(super) fn undo(&mut self, until: Instant, well: bool) -> Undo<'_> {
        let Self { log, registry, outcomes, fds, watch, .. } = self;
        Undo { log, registry, outcomes, fds, watch: &mut **watch, until, well }
    }
}
