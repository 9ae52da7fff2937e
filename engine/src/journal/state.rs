use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::entry::{Entry, Identity, PlannedData, Settlement, TakenBack, VERSION};
use crate::effect::{Class, Outcomes, Record};
use crate::error::EffectError;
use crate::types::Name;

/// What a run's journal says: a pure function of its entries. The engine that writes the journal and the one that reads it back go through the
/// same [`RunState::take`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunState {
    /// The run's id.
    pub id: String,
    /// The run in which it is nested.
    pub parent: Option<String>,
    /// The pieces of work on it, oldest first.
    pub segments: Vec<Segment>,
    /// The nested runs.
    pub children: Vec<String>,
    /// The steps by number. A nested run's journal holds only its own.
    pub nodes: BTreeMap<u32, NodeState>,
    /// The undo of the whole run has begun.
    pub deleting: bool,
}

/// A piece of work on a run, by one engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// The plan's name.
    pub plan: String,
    /// The engine.
    pub engine: Identity,
    /// The number of its first node.
    pub base: u32,
    /// When it began, in microseconds since the epoch.
    pub began: u64,
    /// How and when it ended, if it has.
    pub settled: Option<(Settlement, u64)>,
    /// The exit code of its main step.
    pub exit: Option<i32>,
    /// Its plan's outputs as they were when it was settled; null before that, and for a nested run.
    pub outputs: Value,
    /// Its plan's outputs with handles in them.
    pub promised: Value,
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeState {
    /// Its address.
    pub step: Arc<str>,
    /// Its kind.
    pub kind: String,
    /// The file and line that it comes from.
    pub origin: String,
    /// The steps that it came after.
    pub after: Vec<u32>,
    /// The step that made the process in which it happens.
    pub site: Option<u32>,
    /// It is released by another piece of work on the run.
    pub armed: bool,
    /// Where it has got to.
    pub status: Status,
    /// When it began, in microseconds since the epoch.
    pub began: u64,
    /// When it ended; 0 if it has not.
    pub ended: u64,
    /// Its effects.
    pub effects: Vec<EffectState>,
}

/// Where a step has got to.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// It was about to happen, or is happening.
    Running,
    /// It has ended well.
    Done,
    /// Its `if` was false.
    Skipped,
    /// Its effect of that number failed.
    Failed(u32, Box<EffectError>),
    /// It was taken back, and may be tried again.
    Reset,
}

/// An effect of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectState {
    /// The effect.
    pub planned: PlannedData,
    /// It was about to happen: what was there before has been looked at.
    pub begun: bool,
    /// What is known about it.
    pub record: Record,
    /// Where its undo has got to.
    pub phase: Phase,
}

/// Where the undo of an effect has got to.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// It is there, or may be.
    There,
    /// Its undo has begun.
    Undoing,
    /// It is undone.
    Undone(TakenBack),
    /// It could not be undone, and was given up.
    Forgotten,
    /// It could not be undone.
    Stuck(EffectError),
}

impl EffectState {
    /// Whether undo has something to do about it.
    pub fn owes_undo(&self) -> bool {
        let own = matches!(self.planned.class, Class::Reversible | Class::Foreign | Class::Commit);
        let over = matches!(self.phase, Phase::Undone(_) | Phase::Forgotten);
        own && self.begun && !self.planned.inside && !over
    }
}

impl RunState {
    /// Takes the next entry. The error says what makes it impossible.
    pub fn take(&mut self, entry: &Entry) -> Result<(), String> {
        match entry {
            Entry::Run { version, id, parent } => {
                if *version != VERSION {
                    return Err(format!("journal version {version}, but this program reads version {VERSION}"));
                }
                // They name directories of the state root.
                named(id)?;
                parent.iter().try_for_each(|id| named(id))?;
                self.id.clone_from(id);
                self.parent.clone_from(parent);
            }
            Entry::Segment { plan, engine, base, outputs, at } => {
                if self.segments.last().is_some_and(|last| *base < last.base) {
                    return Err(format!("it goes on from step {base}, which others have begun"));
                }
                self.segments.push(Segment {
                    plan: plan.clone(),
                    engine: engine.clone(),
                    base: *base,
                    began: *at,
                    settled: None,
                    exit: None,
                    outputs: Value::Null,
                    promised: outputs.clone(),
                });
            }
            Entry::Child { id } => {
                named(id)?;
                self.children.push(id.clone());
            }
            Entry::Begin { n, step, kind, origin, after, site, armed, effects, at } => {
                self.belongs(*n, after)?;
                let effects = effects.iter().cloned().map(EffectState::new).collect();
                let (step, kind, origin, after) = (step.clone(), kind.clone(), origin.clone(), after.clone());
                let (site, armed, status) = (*site, *armed, Status::Running);
                self.nodes.insert(
                    *n,
                    NodeState { step, kind, origin, after, site, armed, status, began: *at, ended: 0, effects },
                );
            }
            Entry::Skipped { n, step, kind } => {
                self.belongs(*n, &[])?;
                self.nodes.insert(*n, NodeState::skipped(step.clone(), kind.clone()));
            }
            Entry::Before { n, e, v } => {
                let effect = self.effect(*n, *e)?;
                (effect.begun, effect.record.before) = (true, v.clone());
            }
            Entry::Started { n, e, v } => {
                let effect = self.effect(*n, *e)?;
                (effect.begun, effect.record.started) = (true, Some(v.clone()));
            }
            Entry::Outcome { n, e, v } => {
                let effect = self.effect(*n, *e)?;
                (effect.begun, effect.record.outcome) = (true, Some(v.clone()));
            }
            Entry::Done { n, from, at } => {
                let node = self.node_mut(*n)?;
                (node.status, node.began, node.ended) = (Status::Done, *from, *at);
            }
            Entry::Failed { n, e, error, at } => {
                let node = self.node_mut(*n)?;
                (node.status, node.ended) = (Status::Failed(*e, Box::new(error.clone())), *at);
            }
            Entry::Undo { n, e } => self.effect(*n, *e)?.phase = Phase::Undoing,
            Entry::Undoing { n, e, v } => self.effect(*n, *e)?.record.undoing = Some(v.clone()),
            Entry::Undone { n, e, how } => self.effect(*n, *e)?.phase = Phase::Undone(*how),
            Entry::Forgotten { n, e, .. } => self.effect(*n, *e)?.phase = Phase::Forgotten,
            Entry::Stuck { n, e, error } => self.effect(*n, *e)?.phase = Phase::Stuck(error.clone()),
            Entry::Reset { n } => self.node_mut(*n)?.status = Status::Reset,
            Entry::Deleting => self.deleting = true,
            Entry::Settled { how, exit, outputs, at } => {
                let segment = self.segments.last_mut().ok_or("settled before any engine worked on it")?;
                segment.settled = Some((*how, *at));
                segment.exit = *exit;
                segment.outputs.clone_from(outputs);
            }
        }
        Ok(())
    }

    /// Whether that can be a step of the last piece of work, after these. One that is in no piece of work, or comes after itself, would never be
    /// taken back.
    fn belongs(&self, n: u32, after: &[u32]) -> Result<(), String> {
        let from = self.segments.last().ok_or("a step has begun before any engine worked on it")?.base;
        if !(from..STEPS).contains(&n) || after.iter().any(|before| *before >= n) {
            return Err(format!("step {n} cannot have begun here"));
        }
        Ok(())
    }

    fn node_mut(&mut self, n: u32) -> Result<&mut NodeState, String> {
        self.nodes.get_mut(&n).ok_or_else(|| format!("step {n} has not begun"))
    }

    fn effect(&mut self, n: u32, e: u32) -> Result<&mut EffectState, String> {
        let node = self.node_mut(n)?;
        node.effects.get_mut(e as usize).ok_or_else(|| format!("step {n} has no effect {e}"))
    }

    /// The step of that number, if it has begun.
    pub fn node(&self, n: u32) -> Option<&NodeState> {
        self.nodes.get(&n)
    }

    /// All steps that have begun, with their numbers.
    pub fn begun(&self) -> impl DoubleEndedIterator<Item = (u32, &NodeState)> {
        self.nodes.iter().map(|(n, node)| (*n, node))
    }

    /// The last engine that worked on it has ended its work.
    pub fn is_settled(&self) -> bool {
        self.segments.last().is_some_and(|s| s.settled.is_some())
    }

    /// The outputs of the plan that made the run; while it goes on, what is still to come is null.
    pub fn outputs(&self) -> Value {
        match self.segments.first() {
            Some(first) if first.outputs.is_null() => self.outcomes().resolve(&first.promised),
            Some(first) => first.outputs.clone(),
            None => Value::Null,
        }
    }

    /// What could not be undone.
    pub fn stuck(&self) -> impl Iterator<Item = (&NodeState, &EffectState, &EffectError)> {
        self.begun().flat_map(|(_, node)| {
            node.effects.iter().filter_map(move |e| match &e.phase {
                Phase::Stuck(error) => Some((node, e, error)),
                _ => None,
            })
        })
    }

    /// The number for the next piece of work's first node.
    pub fn next_base(&self) -> u32 {
        self.nodes.last_key_value().map_or(0, |(n, _)| n.saturating_add(1))
    }

    /// The outcomes that the journal knows, for handles.
    pub fn outcomes(&self) -> Outcomes {
        let mut all = Outcomes::default();
        for (_, node) in self.begun() {
            for (e, effect) in (0..).zip(&node.effects) {
                if let Some(outcome) = effect.record.outcome.as_ref().or(effect.record.started.as_ref()) {
                    all.put(&node.step, e, outcome.clone());
                }
            }
        }
        all
    }

    /// Takes in the steps of a nested run, whose journal numbers them as this one's does.
    pub fn adopt(&mut self, child: Self) {
        self.nodes.extend(child.nodes);
    }
}

/// More than any run has: whoever works on a run goes on counting from its last step.
const STEPS: u32 = 1 << 30;

/// Of a run, and nothing else that a path could be made of.
fn named(id: &str) -> Result<(), String> {
    Name::parse(id).map(drop).map_err(|why| format!("{id:?} is no id of a run: {why}"))
}

impl EffectState {
    fn new(planned: PlannedData) -> Self {
        Self { planned, begun: false, record: Record::default(), phase: Phase::There }
    }
}

impl NodeState {
    fn skipped(step: Arc<str>, kind: String) -> Self {
        Self {
            step,
            kind,
            origin: String::new(),
            after: Vec::new(),
            site: None,
            armed: false,
            status: Status::Skipped,
            began: 0,
            ended: 0,
            effects: Vec::new(),
        }
    }
}
