use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::execute::SHOWN;
use super::log::Log;
use super::work::{Waiting, wait_any};
use crate::effect::{Class, Cx, Effect, Fds, Outcomes, Said, UndoTurn, Undone};
use crate::error::EffectError;
use crate::events::{Event, Stuck, Watch};
use crate::journal::{EffectState, Entry, JournalError, NodeState, Phase, Settlement, TakenBack};
use crate::render::paint::brief;
use crate::site::now;
use crate::step::Registry;

/// How long taking back may take, all of it together. What is not done by then is stuck.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What has its turn only when that time is over gets this long, so that what one effect hangs on costs the others nothing.
const MOMENT: Duration = Duration::from_secs(1);

/// Takes back steps of a run: in reverse order, side by side where the graph allows. What cannot be undone stops nothing but the undo of what it
/// is going to be undone with.
pub(super) struct Undo<'a> {
    pub log: &'a mut Log,
    pub registry: &'a Registry,
    pub outcomes: &'a Outcomes,
    pub fds: &'a mut Fds,
    pub watch: &'a mut dyn Watch,
    /// When to wait for nothing any more.
    pub until: Instant,
    /// The run has ended well.
    pub well: bool,
}

/// A step that is being taken back.
pub(super) struct Turn {
    /// The effects still to look at: those below this number.
    left: u32,
    /// How many effects are being waited for, and whether the next one may begin meanwhile.
    pub waits: u32,
    side_by_side: bool,
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
        let (last, nodes): (BTreeSet<u32>, BTreeSet<u32>) = nodes.iter().copied().partition(|n| self.goes_last(*n));
        self.undo_pieces(&nodes)?;
        // A run of which something is left is still known by what tells of it.
        let over = last.into_iter().filter(|n| !self.has_left(*n)).collect();
        self.undo_pieces(&over)?;
        self.log.flush()
    }

    fn undo_pieces(&mut self, nodes: &BTreeSet<u32>) -> Result<(), JournalError> {
        let mut bases: Vec<u32> = self.log.state().segments.iter().map(|s| s.base).collect();
        bases.push(u32::MAX);
        let mut held = BTreeSet::new();
        for bounds in bases.windows(2).rev() {
            let piece: Vec<u32> = nodes.range(bounds[0]..bounds[1]).copied().collect();
            self.undo_piece(&piece, &mut held)?;
        }
        Ok(())
    }

    fn effects(&self, n: u32) -> &[EffectState] {
        self.log.state().node(n).map(|node| node.effects.as_slice()).unwrap_or_default()
    }

    fn turn_of(&self, effect: &EffectState) -> UndoTurn {
        self.registry.effect(&effect.planned.kind).map_or(UndoTurn::InOrder, |kind| kind.turn)
    }

    fn goes_last(&self, n: u32) -> bool {
        let is_last = |e: &EffectState| self.turn_of(e) == UndoTurn::Last && e.record.before.is_null();
        self.effects(n).iter().any(|e| e.owes_undo() && is_last(e))
    }

    /// Whether something of the run that the step belongs to could not be taken back.
    fn has_left(&self, n: u32) -> bool {
        let state = self.log.state();
        let is_stuck = |e: &EffectState| matches!(e.phase, Phase::Stuck(_));
        state
            .begun()
            .any(|(other, node)| node.effects.iter().any(is_stuck) && self.log.names(other) == self.log.names(n))
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
                let mut turn = turns.remove(&n).unwrap_or_else(|| self.turn(n));
                if !self.step(n, &mut turn, &mut waiting)? {
                    turns.insert(n, turn);
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
                if let Some(turn) = turns.get_mut(&n) {
                    turn.waits -= 1;
                }
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
        (0..).zip(self.effects(n)).any(|(e, effect)| {
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

    pub fn turn(&mut self, n: u32) -> Turn {
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
        Turn { left, waits: 0, side_by_side: false, began, owes }
    }

    /// Undoes a step's effects from the last to the first, until one has to be waited for. Whether all of it is over.
    pub fn step(&mut self, n: u32, turn: &mut Turn, waiting: &mut Vec<Waiting>) -> Result<bool, JournalError> {
        while let Some(e) = turn.left.checked_sub(1) {
            let Some(effect) = self.effects(n).get(e as usize).filter(|effect| effect.owes_undo()) else {
                turn.left = e;
                continue;
            };
            let side_by_side = self.turn_of(effect) == UndoTurn::SideBySide;
            if turn.waits > 0 && !(side_by_side && turn.side_by_side) {
                return Ok(false);
            }
            turn.left = e;
            self.log.note(&Entry::Undo { n, e })?;
            self.log.flush()?;
            match self.begin(n, e) {
                Ok(Undone::Done) => self.finish(n, e, Ok(Value::Null))?,
                Ok(Undone::Nothing) => self.log.note(&Entry::Undone { n, e, how: TakenBack::Nothing })?,
                Ok(Undone::Kept) => self.log.note(&Entry::Undone { n, e, how: TakenBack::Kept })?,
                Ok(Undone::Pending(pending)) => {
                    let time = pending.time().unwrap_or(MOMENT);
                    let limit = self.until.max(Instant::now() + time);
                    if let Some(wait) = self.start(Waiting::new(n, e, pending, Some(limit)))? {
                        waiting.push(wait);
                        turn.waits += 1;
                        turn.side_by_side = side_by_side;
                    }
                }
                Err(error) => self.finish(n, e, Err(error))?,
            }
        }
        if turn.waits > 0 {
            return Ok(false);
        }
        if turn.owes
            && let Some(node) = self.log.state().node(n)
        {
            let (step, how) = (node.step.clone(), taken_back(node));
            self.watch.event(&Event::Undone { step, from: turn.began, at: now(), how });
        }
        Ok(true)
    }

    fn begin(&mut self, n: u32, e: u32) -> Result<Undone, EffectError> {
        let effect = decode(self.log, self.registry, n, e)?;
        let mut record = self.effects(n).get(e as usize).map(|s| s.record.clone()).unwrap_or_default();
        record.ended_well = self.well || self.was_kept(n);
        let names = self.log.names(n).clone();
        self.with_cx(n, e, &names, |cx| effect.undo(&record, cx))
    }

    /// The piece of work that the step belongs to has ended well.
    fn was_kept(&self, n: u32) -> bool {
        let own = self.log.state().segments.iter().rfind(|segment| segment.base <= n);
        own.is_some_and(|segment| matches!(segment.settled, Some((Settlement::Kept, _))))
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
            outlives: false,
            output: &mut output,
        })
    }

    fn poll(&mut self, waiting: &mut Vec<Waiting>) -> Vec<(u32, u32, Result<Value, EffectError>)> {
        let tick = self.watch.pace().map(|pace| Instant::now() + pace);
        let ready = wait_any(waiting.iter(), &[], tick);
        self.watch.tick();
        let woken = match ready {
            Ok(ready) => ready.woken,
            Err(error) => return waiting.drain(..).map(|w| (w.n, w.e, Err(error.clone()))).collect(),
        };
        let mut ended = Vec::new();
        for index in woken.into_iter().rev() {
            let work = &mut waiting[index];
            if let Some(result) = self.advance(work) {
                ended.push((work.n, work.e, result));
                waiting.swap_remove(index);
            }
        }
        ended
    }

    /// `Some`: it is over, or it has taken too long.
    pub fn advance(&mut self, work: &mut Waiting) -> Option<Result<Value, EffectError>> {
        let names = self.log.names(work.n).clone();
        let late = work.is_late();
        let result = self.with_cx(work.n, work.e, &names, |cx| match work.pending.advance(cx) {
            Ok(None) if late => {
                let late = || EffectError::new(format!("it did not end within {} s", PATIENCE.as_secs()));
                let error = work.pending.late().unwrap_or_else(late);
                work.pending.cancel(cx);
                Err(error)
            }
            other => other,
        });
        result.transpose()
    }

    /// Stops it: it will be begun anew.
    pub fn cancel(&mut self, work: &mut Waiting) {
        let names = self.log.names(work.n).clone();
        self.with_cx(work.n, work.e, &names, |cx| work.pending.cancel(cx));
    }

    pub fn finish(&mut self, n: u32, e: u32, result: Result<Value, EffectError>) -> Result<(), JournalError> {
        let Err(error) = result else { return self.log.note(&Entry::Undone { n, e, how: TakenBack::Whole }) };
        let effect =
            decode(self.log, self.registry, n, e).map_or_else(|e| e.to_string(), |e| brief(e.describe(), SHOWN));
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
