use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::log::Log;
use super::work::{Waiting, wait_any};
use crate::effect::{Class, Cx, Effect, Fds, Outcomes, Said, Undone};
use crate::error::EffectError;
use crate::events::{Event, Stuck, Watch};
use crate::journal::{EffectState, Entry, JournalError, NodeState, Phase, TakenBack};
use crate::site::now;
use crate::step::Registry;

/// The longest that the undo of one effect may take before it counts as stuck.
const LIMIT: Duration = Duration::from_secs(30);

/// Takes back steps of a run: in reverse order, side by side where the graph allows. What cannot be undone stops nothing but the undo of what it
/// is going to be undone with.
pub(super) struct Undo<'a> {
    pub log: &'a mut Log,
    pub registry: &'a Registry,
    pub outcomes: &'a Outcomes,
    pub fds: &'a mut Fds,
    pub watch: &'a mut dyn Watch,
}

/// A step that is being taken back.
struct Turn {
    /// The effects still to look at: those below this number.
    left: u32,
    began: u64,
    /// There is something to take back, so the step is worth a word.
    owes: bool,
}

/// What the undo of a step was, by what that of its effects was.
fn taken_back(node: &NodeState) -> TakenBack {
    let of = |effect: &EffectState| match &effect.phase {
        Phase::Stuck(_) => Some(TakenBack::Stuck),
        Phase::Undone(how) if effect.planned.class != Class::Commit => Some(*how),
        _ => None,
    };
    node.effects.iter().filter_map(of).max().unwrap_or(TakenBack::Nothing)
}

impl Undo<'_> {
    /// Takes back the given steps, piece of work by piece of work, the latest first. What could not be taken back stays in the journal.
    pub fn undo(&mut self, nodes: &BTreeSet<u32>) -> Result<(), JournalError> {
        let mut bases: Vec<u32> = self.log.state().segments.iter().map(|s| s.base).collect();
        bases.push(u32::MAX);
        let mut held = BTreeSet::new();
        for bounds in bases.windows(2).rev() {
            let piece: Vec<u32> = nodes.range(bounds[0]..bounds[1]).copied().collect();
            self.undo_piece(&piece, &mut held)?;
        }
        self.log.flush()
    }

    /// `held` are the steps that a stuck effect needs.
    fn undo_piece(&mut self, nodes: &[u32], held: &mut BTreeSet<u32>) -> Result<(), JournalError> {
        let mut dependents = self.dependents(nodes);
        let mut ready: BTreeSet<u32> = nodes.iter().copied().filter(|n| !dependents.contains_key(n)).collect();
        let mut turns: HashMap<u32, Turn> = HashMap::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        loop {
            while let Some(n) = ready.pop_last() {
                if held.contains(&n) {
                    self.hold_back(n, held);
                    self.release(n, nodes, &mut dependents, &mut ready);
                    continue;
                }
                let turn = turns.remove(&n).unwrap_or_else(|| self.turn(n));
                if let Some((turn, wait)) = self.step(n, turn)? {
                    turns.insert(n, turn);
                    waiting.push(wait);
                    continue;
                }
                if self.is_stuck(n) {
                    self.hold_back(n, held);
                }
                self.release(n, nodes, &mut dependents, &mut ready);
            }
            if waiting.is_empty() {
                return Ok(());
            }
            self.log.flush()?;
            for (n, e, result) in self.poll(&mut waiting) {
                self.finish(n, e, result)?;
                ready.insert(n);
            }
        }
    }

    /// How many of the steps depend on each of them.
    fn dependents(&self, nodes: &[u32]) -> HashMap<u32, u32> {
        let mut dependents = HashMap::new();
        for node in nodes.iter().filter_map(|n| self.log.state().node(*n)) {
            for before in node.after.iter().filter(|n| nodes.binary_search(n).is_ok()) {
                *dependents.entry(*before).or_insert(0) += 1;
            }
        }
        dependents
    }

    /// It has an effect that could not be undone, and that needs the steps before it for another try.
    fn is_stuck(&self, n: u32) -> bool {
        let effects = self.log.state().node(n).map(|node| node.effects.as_slice()).unwrap_or_default();
        (0..).zip(effects).any(|(e, effect)| {
            matches!(effect.phase, Phase::Stuck(_))
                && decode(self.log, self.registry, n, e).is_ok_and(|effect| effect.holds_back())
        })
    }

    /// The steps before it stay.
    fn hold_back(&self, n: u32, held: &mut BTreeSet<u32>) {
        held.extend(self.log.state().node(n).iter().flat_map(|node| &node.after));
    }

    fn release(&self, n: u32, nodes: &[u32], dependents: &mut HashMap<u32, u32>, ready: &mut BTreeSet<u32>) {
        let after = self.log.state().node(n).map(|node| node.after.as_slice()).unwrap_or_default();
        for before in after.iter().filter(|b| nodes.binary_search(b).is_ok()) {
            if let Some(count) = dependents.get_mut(before) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(*before);
                }
            }
        }
    }

    fn turn(&mut self, n: u32) -> Turn {
        let began = now();
        let node = self.log.state().node(n);
        // What happens inside a site dies with it; the effect that made the process takes it back.
        let inside = node.is_none_or(|node| node.site.is_some());
        let taken_back = |e: &EffectState| e.owes_undo() && e.planned.class != Class::Commit;
        let owes = !inside && node.is_some_and(|node| node.effects.iter().any(taken_back));
        if owes && let Some(node) = node {
            self.watch.event(&Event::Undoing { step: node.step.clone(), at: began });
        }
        let left = node.filter(|_| !inside).map_or(0, |node| node.effects.len() as u32);
        Turn { left, began, owes }
    }

    /// Undoes a step's effects from the last to the first, until one has to be waited for.
    fn step(&mut self, n: u32, mut turn: Turn) -> Result<Option<(Turn, Waiting)>, JournalError> {
        while let Some(e) = turn.left.checked_sub(1) {
            turn.left = e;
            let node = self.log.state().node(n).map(|node| (node.step.clone(), node.effects.get(e as usize)));
            let Some((_, Some(effect))) = node else { continue };
            if !effect.owes_undo() {
                continue;
            }
            self.log.note(&Entry::Undo { n, e })?;
            self.log.flush()?;
            match self.begin(n, e) {
                Ok(Undone::Done) => self.finish(n, e, Ok(Value::Null))?,
                Ok(Undone::Nothing) => self.log.note(&Entry::Undone { n, e, how: TakenBack::Nothing })?,
                Ok(Undone::Kept) => self.log.note(&Entry::Undone { n, e, how: TakenBack::Kept })?,
                Ok(Undone::Pending(pending)) => {
                    let waiting = Waiting::new(n, e, pending, Some(Instant::now() + LIMIT));
                    if let Some(waiting) = self.start(waiting)? {
                        return Ok(Some((turn, waiting)));
                    }
                }
                Err(error) => self.finish(n, e, Err(error))?,
            }
        }
        if turn.owes
            && let Some(node) = self.log.state().node(n)
        {
            let (step, how) = (node.step.clone(), taken_back(node));
            self.watch.event(&Event::Undone { step, from: turn.began, at: now(), how });
        }
        Ok(None)
    }

    fn begin(&mut self, n: u32, e: u32) -> Result<Undone, EffectError> {
        let effect = decode(self.log, self.registry, n, e)?;
        let record = self.log.state().node(n).and_then(|node| node.effects.get(e as usize)).map(|s| s.record.clone());
        let names = self.log.names(n).clone();
        self.with_cx(n, e, &names, |cx| effect.undo(&record.unwrap_or_default(), cx))
    }

    /// Journals what the undo has started, then lets it go; `None` if it is done at once.
    fn start(&mut self, mut waiting: Waiting) -> Result<Option<Waiting>, JournalError> {
        let (n, e) = (waiting.n, waiting.e);
        let started = waiting.pending.started();
        if !started.is_null() {
            self.log.note(&Entry::Undoing { n, e, v: started })?;
            self.log.flush()?;
        }
        let names = self.log.names(n).clone();
        let first = self.with_cx(n, e, &names, |cx| {
            waiting.pending.release(cx)?;
            waiting.pending.advance(cx)
        });
        match first.transpose() {
            None => Ok(Some(waiting)),
            Some(result) => self.finish(n, e, result).map(|()| None),
        }
    }

    fn with_cx<T>(&mut self, n: u32, e: u32, names: &crate::effect::RunNames, run: impl FnOnce(&mut Cx) -> T) -> T {
        let step = self.log.state().node(n).map_or_else(|| "".into(), |node| node.step.clone());
        let watch = &mut *self.watch;
        let mut output = |said: Said| watch.event(&Event::said(step.clone(), said));
        run(&mut Cx {
            run: names,
            step: &step,
            effect: e,
            outcomes: self.outcomes,
            fds: self.fds,
            site: None,
            output: &mut output,
        })
    }

    fn poll(&mut self, waiting: &mut Vec<Waiting>) -> Vec<(u32, u32, Result<Value, EffectError>)> {
        let tick = self.watch.pace().map(|pace| Instant::now() + pace);
        let ready = wait_any(waiting, &[], tick);
        self.watch.tick();
        let woken = match ready {
            Ok(ready) => ready.woken,
            Err(error) => return waiting.drain(..).map(|w| (w.n, w.e, Err(error.clone()))).collect(),
        };
        let mut ended = Vec::new();
        for index in woken.into_iter().rev() {
            let (n, e) = (waiting[index].n, waiting[index].e);
            let names = self.log.names(n).clone();
            let work = &mut waiting[index];
            let late = work.is_late();
            let result = self.with_cx(n, e, &names, |cx| match work.pending.advance(cx) {
                Ok(None) if late => {
                    work.pending.cancel(cx);
                    Err(EffectError::new(format!("it did not end within {} s", LIMIT.as_secs())))
                }
                other => other,
            });
            if let Some(result) = result.transpose() {
                waiting.swap_remove(index);
                ended.push((n, e, result));
            }
        }
        ended
    }

    fn finish(&mut self, n: u32, e: u32, result: Result<Value, EffectError>) -> Result<(), JournalError> {
        let Err(error) = result else { return self.log.note(&Entry::Undone { n, e, how: TakenBack::Whole }) };
        let effect = decode(self.log, self.registry, n, e).map_or_else(|e| e.to_string(), |effect| effect.describe());
        if let Some(node) = self.log.state().node(n) {
            self.watch.event(&Event::Stuck(Stuck { step: node.step.clone(), effect, error: error.clone() }));
        }
        self.log.note(&Entry::Stuck { n, e, error })
    }
}

/// An effect of the journal, as this program knows it.
pub(super) fn decode(log: &Log, registry: &Registry, n: u32, e: u32) -> Result<Box<dyn Effect>, EffectError> {
    let planned = log.state().node(n).and_then(|node| node.effects.get(e as usize)).map(|s| &s.planned);
    let Some(planned) = planned else { return Err(EffectError::new(format!("step {n} has no effect {e}"))) };
    let unknown = |why: String| {
        EffectError::new(format!("an effect of the kind `{}`, which this program does not know{why}", planned.kind))
            .help("undo the run with the version of the program that made it, or a later one")
    };
    let kind = registry.effect(&planned.kind).ok_or_else(|| unknown(String::new()))?;
    (kind.decode)(&planned.data).map_err(|e| unknown(format!(" in this form: {e}")))
}
