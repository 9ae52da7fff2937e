//! What happened, as the steps that [`show`](super::show) and [`trace`](super::trace) draw: from a journal, or from the events of a run.

use std::collections::HashMap;

use super::show::{RunHead, State, StepRun};
use crate::events::Event;
use crate::journal::{EffectState, NodeState, Phase, RunState, Settlement, Status, TakenBack};
use crate::program::{Node, Program};

/// The steps of a run as its journal tells them. `now` is in microseconds since the epoch; `alive` says whether the engine of the run's last
/// piece of work still runs: what was under way when it died has an unknown outcome.
pub fn from_journal(run: &RunState, now: u64, alive: bool) -> (RunHead, Vec<StepRun>) {
    let address = |n: u32| run.node(n).map(|node| node.step.to_string());
    let steps = run.nodes.values().map(|node| of_node(node, &address, alive)).collect();
    let last = run.segments.last();
    let state = match last.map(|s| s.settled) {
        None => "beginning",
        _ if run.stuck().next().is_some() => "stuck",
        Some(None) if alive && run.deleting => "being undone",
        Some(None) if alive => "running",
        Some(None) => "its engine is gone: recover takes it back",
        Some(Some((Settlement::Kept, _))) => "kept",
        Some(Some((Settlement::RolledBack, _))) => "its last change was rolled back",
    };
    let ended = last.and_then(|s| s.settled).map_or(now, |(_, at)| at);
    let plan = run.segments.first().map_or_else(String::new, |s| s.plan.clone());
    (RunHead { id: run.id.clone(), plan, state: state.into(), now: if alive { now } else { ended } }, steps)
}

fn of_node(node: &NodeState, address: &dyn Fn(u32) -> Option<String>, alive: bool) -> StepRun {
    let stuck = node.effects.iter().find_map(|e| match &e.phase {
        Phase::Stuck(error) => Some(format!("cannot be undone: {error}")),
        _ => None,
    });
    let undoing = node.effects.iter().any(|e| e.phase == Phase::Undoing);
    let has = |how: TakenBack| node.effects.iter().any(|e| e.phase == Phase::Undone(how));
    let over = !node.effects.iter().any(EffectState::owes_undo);
    let given_up = node.effects.iter().any(|e| e.phase == Phase::Forgotten);
    let state = match &node.status {
        _ if stuck.is_some() => State::Stuck,
        Status::Failed(..) => State::Failed,
        Status::Skipped => State::Skipped,
        _ if undoing => State::Undoing,
        _ if given_up => State::GivenUp,
        _ if over && has(TakenBack::Whole) => State::Undone,
        _ if over && has(TakenBack::Kept) => State::Kept,
        Status::Reset => State::Undone,
        Status::Done => State::Done,
        Status::Running if node.armed => State::Armed,
        Status::Running if alive => State::Running,
        Status::Running => State::Cancelled,
    };
    let failed = match &node.status {
        Status::Failed(_, error) => Some(error.to_string()),
        _ => None,
    };
    let time = |at: u64| (at > 0).then_some(at);
    StepRun {
        address: node.step.to_string(),
        kind: node.kind.clone(),
        state,
        start: time(node.began).filter(|_| !matches!(state, State::Skipped | State::Armed)),
        end: time(node.ended).filter(|_| !matches!(state, State::Skipped | State::Armed)),
        undo: None,
        site: node.site.and_then(address),
        after: node.after.iter().filter_map(|&n| address(n)).collect(),
        effects: node.effects.len() as u32,
        note: stuck.or(failed),
    }
}

/// The steps of a program as the events of its run tell them.
pub fn from_events(program: &Program, events: &[Event]) -> Vec<StepRun> {
    let mut steps: Vec<StepRun> = program.nodes.iter().map(|node| waiting(program, node)).collect();
    let index: HashMap<&str, usize> = program.nodes.iter().enumerate().map(|(i, n)| (&*n.address, i)).collect();
    for event in events {
        let Some(step) = index.get(address(event)).and_then(|&i| steps.get_mut(i)) else { continue };
        take(step, event);
    }
    steps
}

fn waiting(program: &Program, node: &Node) -> StepRun {
    let address = |id: u32| program.nodes.get(id as usize).map(|n| n.address.to_string());
    StepRun {
        address: node.address.to_string(),
        kind: node.kind.to_owned(),
        state: match (node.skipped, node.armed) {
            (true, _) => State::Skipped,
            (false, true) => State::Armed,
            (false, false) => State::Waiting,
        },
        start: None,
        end: None,
        undo: None,
        site: node.site.and_then(address),
        after: node.after.iter().filter_map(|&id| address(id)).collect(),
        effects: node.effects.len() as u32,
        note: None,
    }
}

fn address(event: &Event) -> &str {
    match event {
        Event::Began { step, .. }
        | Event::Done { step, .. }
        | Event::Skipped { step }
        | Event::Output { step, .. }
        | Event::Warning { step, .. }
        | Event::Retry { step, .. }
        | Event::Undoing { step, .. }
        | Event::Undone { step, .. }
        | Event::Forgotten { step, .. } => step,
        Event::Failed(failure) => &failure.step,
        Event::Stuck(stuck) => &stuck.step,
    }
}

fn take(step: &mut StepRun, event: &Event) {
    match event {
        Event::Began { at, .. } => {
            // A step that is tried again began with its first try.
            step.start.get_or_insert(*at);
            step.state = State::Running;
        }
        Event::Done { from, at, .. } => {
            step.start.get_or_insert(*from);
            step.end = Some(*at);
            step.state = State::Done;
        }
        Event::Skipped { .. } => step.state = State::Skipped,
        Event::Failed(failure) => {
            step.end = Some(failure.at);
            step.state = State::Failed;
            step.note = Some(failure.error.to_string());
        }
        Event::Undoing { at, .. } => {
            // What was under way when the undo came was cut short.
            if step.start.is_some() {
                step.end.get_or_insert(*at);
            }
            step.undo = Some((*at, None));
        }
        Event::Undone { from, at, how, .. } => {
            step.undo = (*how != TakenBack::Nothing).then_some((*from, Some(*at)));
            step.state = match (how, step.state) {
                (_, state @ (State::Failed | State::Stuck)) | (TakenBack::Nothing | TakenBack::Stuck, state) => state,
                (TakenBack::Kept, _) => State::Kept,
                (TakenBack::Whole, _) => State::Undone,
            };
        }
        Event::Forgotten { .. } => step.state = State::GivenUp,
        Event::Stuck(stuck) => {
            step.state = State::Stuck;
            step.note = Some(format!("cannot be undone: {}", stuck.error));
        }
        Event::Retry { left, wait_ms, .. } => {
            step.note = Some(format!("tried again after {}; {left} left", super::paint::span(wait_ms * 1000)));
        }
        Event::Output { .. } | Event::Warning { .. } => {}
    }
}
