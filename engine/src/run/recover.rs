use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::RunError;
use super::log::Log;
use super::undo::{Undo, decode};
use crate::effect::{Class, Fds, RunNames};
use crate::events::{Event, Stuck, Watch};
use crate::journal::{Entry, Identity, JournalError, Phase, RunDir, RunState, Settlement};
use crate::step::Registry;

/// How long an engine that is asked to end may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What [`recover`] did with one run.
#[derive(Debug, PartialEq, Eq)]
pub enum Recovered {
    /// Taken back and gone.
    Undone,
    /// Some of it could not be taken back; it stays in the journal.
    Stuck(Vec<Stuck>),
    /// It is there on purpose, or its engine is alive.
    Left,
    /// Its engine died after the point of no return: what it made stays.
    Settled,
    /// It cannot be read; nothing was touched.
    Failed(String),
}

/// Takes back, or finishes, every run whose engine is gone.
pub fn recover(root: &Path, registry: &Registry, watch: &mut dyn Watch) -> Result<Vec<(String, Recovered)>, RunError> {
    RunDir::sweep(root)?;
    let mut all = Vec::new();
    for id in RunDir::list(root)? {
        let names = RunNames { root: root.to_owned(), id: id.clone() };
        // A nested run is its parent's to take back, unless the parent is gone.
        let parent = crate::journal::read(&names).ok().and_then(|state| state.parent);
        if parent.is_some_and(|parent| RunNames { root: root.to_owned(), id: parent }.dir().exists()) {
            continue;
        }
        match recover(&names.besides(), registry, watch) {
            Ok(beside) => all.extend(beside.into_iter().map(|(beside, done)| (format!("{id}/{beside}"), done))),
            // It hides no other.
            Err(e) => {
                all.push((id, Recovered::Failed(why(&e))));
                continue;
            }
        }
        if let Some(recovered) = recover_one(&names, registry, watch) {
            all.push((id, recovered));
        }
    }
    Ok(all)
}

/// The same for one run, nested or not; `None` if there is none.
pub fn recover_one(names: &RunNames, registry: &Registry, watch: &mut dyn Watch) -> Option<Recovered> {
    match recover_run(names, registry, watch) {
        Ok(recovered) => Some(recovered),
        // A directory without a journal is a run that did nothing.
        Err(RunError::Journal(JournalError::Absent { .. })) => RunDir::remove_empty(names).then_some(Recovered::Undone),
        Err(RunError::Journal(JournalError::Busy { .. })) => Some(Recovered::Left),
        Err(e) => Some(Recovered::Failed(why(&e))),
    }
}

fn why(error: &RunError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn recover_run(names: &RunNames, registry: &Registry, watch: &mut dyn Watch) -> Result<Recovered, RunError> {
    let deadline = Instant::now() + PATIENCE;
    let mut log = loop {
        match Log::open(names) {
            Err(JournalError::Busy { id }) => match crate::journal::read(names)?.segments.last() {
                Some(s) if !is_alive(&s.engine) => free(names, deadline, |_, _| true)?,
                _ => return Err(JournalError::Busy { id }.into()),
            },
            other => break other?,
        }
    };
    let state = log.state();
    if state.is_settled() && !state.deleting {
        return Ok(Recovered::Left);
    }
    let last = state.segments.last().map_or(0, |s| s.base);
    let first = state.segments.len() <= 1;
    if !first && !state.deleting && committed(state, last) {
        let outputs = state.outputs();
        log.settle(Settlement::Kept, None, outputs)?;
        return Ok(Recovered::Settled);
    }
    let whole = first || state.deleting;
    let from = if whole { 0 } else { last };
    if whole {
        end_beside(names, registry, watch)?;
    }
    let stuck = undo_from(&mut log, from, registry, watch)?;
    if !stuck.is_empty() {
        return Ok(Recovered::Stuck(stuck));
    }
    if whole {
        log.remove()?;
        return Ok(Recovered::Undone);
    }
    let outputs = log.state().outputs();
    log.settle(Settlement::RolledBack, None, outputs)?;
    Ok(Recovered::Settled)
}

/// A one-way effect has happened, or may have.
fn committed(state: &RunState, base: u32) -> bool {
    let commits = |e: &crate::journal::EffectState| e.planned.class == Class::Commit;
    state.begun().filter(|(n, _)| *n >= base).any(|(_, node)| node.effects.iter().any(commits))
}

fn undo_from(log: &mut Log, from: u32, registry: &Registry, watch: &mut dyn Watch) -> Result<Vec<Stuck>, RunError> {
    let nodes: BTreeSet<u32> = log.state().begun().map(|(n, _)| n).filter(|n| *n >= from).collect();
    let outcomes = log.state().outcomes();
    let mut seen = Seen { watch, stuck: Vec::new() };
    Undo { log, registry, outcomes: &outcomes, fds: &mut Fds::default(), watch: &mut seen }.undo(&nodes)?;
    Ok(seen.stuck)
}

/// Passes events on and remembers what is stuck.
struct Seen<'a> {
    watch: &'a mut dyn Watch,
    stuck: Vec<Stuck>,
}

impl Watch for Seen<'_> {
    fn pace(&self) -> Option<Duration> {
        self.watch.pace()
    }
    fn tick(&mut self) {
        self.watch.tick();
    }
    fn event(&mut self, event: &Event) {
        if let Event::Stuck(stuck) = event {
            self.stuck.push(stuck.clone());
        }
        self.watch.event(event);
    }
}

/// Takes one run back, kept ones too. An engine that works on it is cancelled first, and waited for.
pub fn undo_run(names: &RunNames, registry: &Registry, watch: &mut dyn Watch) -> Result<Vec<Stuck>, RunError> {
    undo_run_but(names, registry, watch, &[])
}

/// The same; what is stuck of the steps at these addresses is given up, which the journal says, and stays.
pub fn undo_run_but(
    names: &RunNames,
    registry: &Registry,
    watch: &mut dyn Watch,
    forget: &[String],
) -> Result<Vec<Stuck>, RunError> {
    let deadline = Instant::now() + PATIENCE;
    let mut cancelled = false;
    let mut log = loop {
        match Log::open(names) {
            Ok(log) => break log,
            Err(JournalError::Busy { .. }) => {
                cancelled = true;
                free(names, deadline, cancel_engine)?;
            }
            // The engine that was cancelled has taken the run back itself.
            Err(JournalError::Absent { .. }) if cancelled => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        }
    };
    end_beside(names, registry, watch)?;
    log.deleting()?;
    let mut stuck = undo_from(&mut log, 0, registry, watch)?;
    // What a stuck effect held back can go once it is given up.
    while give_up(&mut log, registry, watch, forget)? {
        stuck = undo_from(&mut log, 0, registry, watch)?;
    }
    if stuck.is_empty() {
        log.remove()?;
    }
    Ok(stuck)
}

/// Gives up what is stuck of these steps. Whether there was anything.
fn give_up(log: &mut Log, registry: &Registry, watch: &mut dyn Watch, forget: &[String]) -> Result<bool, RunError> {
    let mut given_up = Vec::new();
    for (n, node) in log.state().begun().filter(|(_, node)| forget.iter().any(|step| **step == *node.step)) {
        let stuck = (0..).zip(&node.effects).filter(|(_, effect)| matches!(effect.phase, Phase::Stuck(_)));
        given_up.extend(stuck.map(|(e, _)| (n, e, node.step.clone())));
    }
    for (n, e, step) in &given_up {
        let effect = decode(log, registry, *n, *e).map_or_else(|e| e.to_string(), |effect| effect.describe());
        log.note(&Entry::Forgotten { n: *n, e: *e, at: crate::site::now() })?;
        log.flush()?;
        watch.event(&Event::Forgotten { step: step.clone(), effect });
    }
    Ok(!given_up.is_empty())
}

/// Takes back what goes on beside a run that is to go itself: its journals lie in the run's directory.
pub(super) fn end_beside(names: &RunNames, registry: &Registry, watch: &mut dyn Watch) -> Result<(), RunError> {
    for id in RunDir::list(&names.besides())? {
        let beside = names.beside(id);
        let stuck = match undo_run(&beside, registry, watch) {
            Ok(stuck) => stuck,
            // Its own engine has finished it off, or it did nothing yet.
            Err(RunError::Journal(JournalError::Absent { .. })) => continue,
            Err(e) => return Err(e),
        };
        if let Some(first) = stuck.first() {
            return Err(RunError::Beside(format!("{}: {}: {}", first.step, first.effect, first.error)));
        }
    }
    Ok(())
}

/// Deals with the engine that holds the lock. One that is dead may have left a child that has not noticed yet and holds the lock for some
/// microseconds more; nothing can be polled for that, so it is looked at again shortly.
fn free(names: &RunNames, deadline: Instant, deal: impl Fn(&Identity, Instant) -> bool) -> Result<(), RunError> {
    let Some(engine) = crate::journal::read(names)?.segments.last().map(|s| s.engine.clone()) else { return Ok(()) };
    if Instant::now() >= deadline || !deal(&engine, deadline) {
        let seconds = PATIENCE.as_secs();
        return Err(RunError::StillRunning { id: names.id.clone(), pid: engine.pid, seconds });
    }
    let _ = crate::site::wait(&[], Some(Instant::now() + Duration::from_millis(2)));
    Ok(())
}

/// Asks an engine to take its run back, and waits until it has ended. False: it has not by the deadline.
fn cancel_engine(engine: &Identity, deadline: Instant) -> bool {
    let Some(pid) = Pid::from_raw(engine.pid) else { return true };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    // The pid may have been given to somebody else since: the descriptor pins whoever has it now, then the start time is compared.
    if start_time(engine.pid) != Some(engine.start) {
        return true;
    }
    let _ = pidfd_send_signal(&pidfd, Signal::TERM);
    let wants = [crate::effect::Interest::read(std::os::fd::AsRawFd::as_raw_fd(&pidfd))];
    crate::site::wait(&wants, Some(deadline)).is_ok_and(|ready| ready[0])
}

/// Whether the very process is there still, and is more than a zombie that nobody has reaped.
pub fn is_alive(process: &Identity) -> bool {
    let stat = crate::proc::text(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    start_time(process.pid) == Some(process.start) && !matches!(state, None | Some('Z' | 'X'))
}

/// Field 22 of /proc/PID/stat: clock ticks between boot and the process's start (proc(5)).
fn start_time(pid: i32) -> Option<u64> {
    let stat = crate::proc::text(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
