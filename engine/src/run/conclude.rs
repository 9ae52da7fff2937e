use std::time::Instant;

use serde_json::Value;

use super::execute::{Execution, Finished};
use super::{PATIENCE, RunError};
use crate::effect::Class;
use crate::events::{Failure, Stuck};
use crate::journal::{PlannedData, Settlement};
use crate::program::{Node, NodeId};
use crate::step::Nature;

impl Execution<'_> {
    /// Ends what is still going on, then settles the run or takes it back.
    pub(super) fn conclude(mut self) -> Result<Finished, RunError> {
        // The main step may be over because a process failed, which said so before it ended.
        if self.failure.is_none() && self.cancelled.is_none() {
            self.hear_sites()?;
        }
        // Whoever keeps what a run makes wants to look at it above all when its program has failed.
        let judged = self.options.keep && self.failure.as_ref().is_some_and(|failure| self.is_verdict(failure));
        let failed = (self.failure.is_some() && !judged) || self.cancelled.is_some();
        for mut work in std::mem::take(&mut self.waiting) {
            self.with_cx(work.n, work.e, |cx| work.pending.cancel(cx));
        }
        self.end_taking_back()?;
        self.drain_sites();
        let committed = failed && self.program.opens && self.has_committed();
        let exit = if failed { None } else { self.exit().or_else(|| self.failure.as_ref()?.error.exit) };
        let mut outputs = if failed { Value::Null } else { self.outcomes.resolve(&self.program.outputs) };
        crate::value::redact(&mut outputs);
        let deleting = self.log.state().deleting;
        let keep = !failed && !deleting && !self.program.beside && (self.options.keep || self.program.opens);
        // What was done beside a run belongs to that run from here on, and goes with it.
        let hand_over = !failed && self.program.beside && (self.options.keep || self.program.main.is_empty());
        if !keep && !deleting && !hand_over {
            // A process inside a site that still waits for our word exits when the channel goes.
            self.sites.clear();
            let mine = self.log.state().begun().map(|(n, _)| n).filter(|n| *n >= self.base).collect();
            self.take_back_by(&mine, Instant::now() + PATIENCE, !failed)?;
        }
        let own_ends = keep && self.options.only_nested;
        if own_ends {
            let is_own = |n: &NodeId| *n >= self.base && self.log.is_own(*n);
            let own = self.log.state().begun().map(|(n, _)| n).filter(is_own).collect();
            self.take_back_by(&own, Instant::now() + PATIENCE, true)?;
        }
        let stuck = self.stuck();
        if keep {
            self.log.settle(Settlement::Kept, exit, outputs.clone())?;
            if own_ends && stuck.is_empty() {
                self.log.remove_own()?;
            }
        } else if self.program.opens && !deleting {
            let before = self.log.state().outputs();
            self.log.settle(Settlement::RolledBack, None, before)?;
        } else if hand_over || stuck.is_empty() {
            self.log.remove()?;
        } else {
            self.log.flush()?;
        }
        let outputs = crate::value::for_others(outputs);
        Ok(Finished { exit, failure: self.failure, cancelled: self.cancelled, stuck, outputs, kept: keep, committed })
    }

    /// Whether something one-way has begun.
    fn has_committed(&self) -> bool {
        let mut own = self.log.state().begun().filter(|(n, _)| *n >= self.base);
        own.any(|(_, node)| node.effects.iter().any(|e| e.begun && e.planned.class == Class::Commit))
    }

    fn stuck(&self) -> Vec<Stuck> {
        let describe = |data: &PlannedData| {
            let kind = self.registry.effect(&data.kind);
            kind.and_then(|k| (k.decode)(&data.data).ok()).map_or_else(|| data.kind.clone(), |effect| effect.describe())
        };
        let stuck = self.log.state().stuck();
        stuck
            .map(|(n, e, error)| Stuck { step: n.step.clone(), effect: describe(&e.planned), error: error.clone() })
            .collect()
    }

    /// Whether a step failed by how the program ended that it waited for.
    fn is_verdict(&self, failure: &Failure) -> bool {
        let waits = |n: NodeId| self.program.nodes[n as usize].nature == Nature::Waits;
        failure.error.exit.is_some() && self.program.node(&failure.step).is_some_and(waits)
    }

    /// The first of the main steps' exit codes that is not 0.
    fn exit(&self) -> Option<i32> {
        let codes: Vec<i32> = self.program.main.iter().filter_map(|n| self.exit_code(*n)).collect();
        codes.iter().copied().find(|code| *code != 0).or(codes.first().copied())
    }

    fn exit_code(&self, n: NodeId) -> Option<i32> {
        let node: &Node = &self.program.nodes[n as usize];
        let outcomes = (0..node.effects.len() as u32).rev().filter_map(|e| self.outcomes.of(&node.address, e));
        outcomes.filter_map(|o| o.get("exit")).find_map(Value::as_i64).map(|code| code as i32)
    }
}
