use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Instant;

use serde_json::Value;

use super::RunError;
use super::again::{BeingUndone, Then};
use super::dependents::Dependents;
use super::log::Log;
use super::signals::{heirs, is_readable, signal};
use super::sites::Site;
use super::undo::PATIENCE;
use super::work::Waiting;
use crate::effect::{Applied, Cx, Fds, Outcomes, Said};
use crate::error::EffectError;
use crate::events::{Event, Failure, Paused, Stuck, Watch};
use crate::journal::{Entry, Identity, JournalError, PlannedData};
use crate::program::{NodeId, Options, Program};
use crate::render::paint::brief;
use crate::site::{Inject, now};
use crate::step::{Nature, Registry};

/// How long the description of an effect that failed is at most, in bytes.
pub(super) const SHOWN: usize = 300;

/// How a program is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// This process.
    pub engine: Identity,
    /// Leave what the program makes when it ends.
    pub keep: bool,
    /// With `keep`: leave what the runs nested in the program's own have made, and end that one.
    pub only_nested: bool,
    /// Fault injection.
    pub fail_at: Option<(NodeId, Inject)>,
    /// Breakpoint.
    pub pause_at: Option<NodeId>,
    /// A signalfd: a signal that comes in on it cancels the run.
    pub cancel: Option<RawFd>,
    /// How many steps may be at work at once. Steps inside a process, and those that only wait for others, do not count.
    pub jobs: Option<NonZeroUsize>,
}

/// How a run has ended.
#[derive(Debug, Default)]
pub struct Finished {
    /// The exit code of the main steps, if they got that far: the first that is not 0.
    pub exit: Option<i32>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// The signal that cancelled it.
    pub cancelled: Option<i32>,
    /// What could not be taken back.
    pub stuck: Vec<Stuck>,
    /// The plan's outputs, resolved, without sensitive values.
    pub outputs: Value,
    /// The run is there to be worked on further.
    pub kept: bool,
    /// It has failed or was cancelled, and something one-way that it had begun on an earlier run stays.
    pub committed: bool,
}

/// Runs a program to its end: everything it makes is taken back when it fails, or when it ends and is not to be kept.
pub fn run(
    program: Rc<Program>,
    registry: &Registry,
    options: RunOptions,
    watch: &mut dyn Watch,
) -> Result<Finished, RunError> {
    let (mut log, base) = open(&program)?;
    log.begin(&program, &options.engine, base)?;
    let mut execution = Execution::new(program, registry, options, watch, log, base);
    if let Err(e) = execution.drive() {
        // Nothing may happen that the journal does not hold; what has happened is taken back from memory.
        execution.failure.get_or_insert_with(|| Failure {
            step: "".into(),
            kind: String::new(),
            origin: String::new(),
            effect: "keep the journal".into(),
            error: EffectError::new(describe(&e)).help("make room in the state root, or name another one with --root"),
            at: now(),
        });
    }
    execution.conclude()
}

fn describe(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn open(program: &Program) -> Result<(Log, u32), JournalError> {
    if !program.opens {
        return Ok((Log::create(program)?, 0));
    }
    let names = program
        .runs
        .first()
        .cloned()
        .ok_or_else(|| JournalError::Absent { id: String::new(), root: std::path::PathBuf::new() })?;
    let mut log = Log::open(&names)?;
    let base = log.state().next_base();
    log.own(program, base);
    Ok((log, base))
}

/// Where a step of the program has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Blocked,
    Running,
    Over,
}

pub(super) struct Execution<'a> {
    pub program: Rc<Program>,
    pub registry: &'a Registry,
    pub options: RunOptions,
    pub watch: &'a mut dyn Watch,
    pub log: Log,
    /// The journal's number of the program's first node.
    pub base: u32,
    pub outcomes: Outcomes,
    pub fds: Fds,
    pub progress: Vec<Progress>,
    pub sites: Vec<Site>,
    pub failure: Option<Failure>,
    dependents: Dependents,
    blocked: Vec<u32>,
    pub ready: BinaryHeap<Reverse<NodeId>>,
    /// Steps that are ready, and wait until fewer are at work.
    parked: BinaryHeap<Reverse<NodeId>>,
    pub waiting: Vec<Waiting>,
    pub taken_back: Vec<BeingUndone>,
    pub retries: Vec<(Instant, NodeId)>,
    tries: std::collections::HashMap<NodeId, u32>,
    /// Steps that the run waits for.
    left: usize,
    pub cancelled: Option<i32>,
    /// The steps that hand signals on to a program.
    pub heirs: Vec<NodeId>,
}

impl<'a> Execution<'a> {
    fn new(
        program: Rc<Program>,
        registry: &'a Registry,
        options: RunOptions,
        watch: &'a mut dyn Watch,
        log: Log,
        base: u32,
    ) -> Self {
        let blocked: Vec<u32> = program.nodes.iter().map(|n| n.after.len() as u32).collect();
        let ready = (0..).zip(&blocked).filter(|(_, b)| **b == 0).map(|(n, _)| Reverse(n)).collect();
        Self {
            dependents: Dependents::of(&program),
            progress: vec![Progress::Blocked; program.nodes.len()],
            left: program.nodes.iter().filter(|n| !n.armed).count(),
            outcomes: log.state().outcomes(),
            fds: Fds::default(),
            sites: Vec::new(),
            failure: None,
            waiting: Vec::new(),
            taken_back: Vec::new(),
            parked: BinaryHeap::new(),
            retries: Vec::new(),
            tries: std::collections::HashMap::new(),
            cancelled: None,
            heirs: heirs(&program),
            program,
            registry,
            options,
            watch,
            log,
            base,
            blocked,
            ready,
        }
    }

    /// Runs whatever is ready, then waits, until the run has ended or failed.
    fn drive(&mut self) -> Result<(), JournalError> {
        while !self.is_over() {
            if let Some(n) = self.next() {
                self.start(n)?;
            } else {
                self.log.flush()?;
                self.wait()?;
            }
        }
        if self.failure.is_none() && self.cancelled.is_none() {
            self.linger()?;
        }
        self.log.flush()
    }

    /// The next step to start. What only waits for others is never kept back: what it waits for may be kept back by it.
    fn next(&mut self) -> Option<NodeId> {
        let jobs = self.options.jobs.map_or(usize::MAX, NonZeroUsize::get);
        let works = |n: NodeId| self.program.nodes[n as usize].nature != Nature::Waits;
        let at_work = self.waiting.iter().filter(|work| works(work.n)).count() + self.taken_back.len();
        if at_work < jobs {
            return self.parked.pop().or_else(|| self.ready.pop()).map(|Reverse(n)| n);
        }
        while let Some(Reverse(n)) = self.ready.pop() {
            if !works(n) {
                return Some(n);
            }
            self.parked.push(Reverse(n));
        }
        None
    }

    /// The main step is over; something is on its way to the user. A signal ends that, and changes nothing about how the run has ended.
    fn linger(&mut self) -> Result<(), JournalError> {
        while self.failure.is_none() && self.cancelled.is_none() && self.waiting.iter().any(|w| w.pending.lingers()) {
            self.log.flush()?;
            self.wait()?;
        }
        self.cancelled = None;
        Ok(())
    }

    pub(super) fn is_over(&self) -> bool {
        let main = &self.program.main;
        let ended = !main.is_empty() && main.iter().all(|n| self.progress[*n as usize] == Progress::Over);
        self.failure.is_some() || self.cancelled.is_some() || ended || self.left == 0
    }

    fn start(&mut self, n: NodeId) -> Result<(), JournalError> {
        let program = self.program.clone();
        let node = &program.nodes[n as usize];
        // A process inside a site goes on by itself where nothing on the host comes in between, and may be further than the engine has heard.
        if self.progress[n as usize] == Progress::Over {
            return Ok(());
        }
        if node.skipped || node.when.as_ref().is_some_and(|when| !when.holds(&self.outcomes)) {
            self.log.note(&Entry::Skipped {
                n: self.base + n,
                step: node.address.clone(),
                kind: node.kind.to_owned(),
            })?;
            self.watch.event(&Event::Skipped { step: node.address.clone() });
            self.complete(n);
            return Ok(());
        }
        if !node.armed {
            self.stop_here(n)?;
            if self.cancelled.is_some() {
                return Ok(());
            }
        }
        self.progress[n as usize] = Progress::Running;
        if node.site.is_some() {
            return self.admit(n);
        }
        let at = now();
        self.log.note(&self.begin_entry(n, at))?;
        self.watch.event(&Event::Began { step: node.address.clone(), at });
        if self.options.fail_at == Some((n, Inject::Before)) {
            return self.fail(n, 0, Inject::Before.error());
        }
        self.carry_on(n, 0)
    }

    /// A breakpoint or a crash on purpose, before a step.
    pub(super) fn stop_here(&mut self, n: NodeId) -> Result<(), JournalError> {
        if self.options.fail_at == Some((n, Inject::Crash)) {
            self.log.flush()?;
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        if self.options.pause_at == Some(n) {
            self.log.flush()?;
            let begun: Vec<_> = self.log.state().begun().collect();
            let outcomes = |e: &crate::journal::EffectState| e.record.outcome.is_some();
            let steps = begun.iter().map(|(_, node)| {
                (*node, node.effects.iter().filter(|e| outcomes(e)).filter_map(|e| e.record.outcome.as_ref()).collect())
            });
            self.watch.pause(&Paused { step: &self.program.nodes[n as usize].address, steps: steps.collect() });
            // Before the step begins: it may end so soon that the run is over before anything is waited for.
            self.cancelled = self.options.cancel.filter(|fd| is_readable(*fd)).map(signal);
        }
        Ok(())
    }

    pub(super) fn begin_entry(&self, n: NodeId, at: u64) -> Entry {
        let node = &self.program.nodes[n as usize];
        let effects = node.effects.iter().map(|p| PlannedData {
            kind: p.effect.kind().to_owned(),
            class: p.effect.class(),
            data: p.data.clone(),
            inside: p.inside,
        });
        Entry::Begin {
            n: self.base + n,
            step: node.address.clone(),
            kind: node.kind.to_owned(),
            origin: self.program.place(node),
            after: node.after.iter().map(|a| self.base + a).collect(),
            site: node.site.map(|s| self.base + s),
            armed: node.armed,
            effects: effects.collect(),
            at,
        }
    }

    /// Applies a step's effects on the host from the `e`-th on, until one has to be waited for.
    pub(super) fn carry_on(&mut self, n: NodeId, mut e: u32) -> Result<(), JournalError> {
        let program = self.program.clone();
        let node = &program.nodes[n as usize];
        while let Some(planned) = node.effects.get(e as usize) {
            if !planned.inside {
                match self.apply(n, e)? {
                    Ok(None) => return Ok(()),
                    Ok(Some(outcome)) => self.outcome(n, e, outcome)?,
                    Err(error) => {
                        // A process inside that has failed says so before it ends, and its end may be what has failed this step.
                        self.hear_sites()?;
                        return self.fail(n, e, error);
                    }
                }
            }
            e += 1;
        }
        if self.options.fail_at == Some((n, Inject::After)) {
            return self.fail(n, e.saturating_sub(1), Inject::After.error());
        }
        self.done(n, None)?;
        if node.makes_site { self.open_site(n) } else { Ok(()) }
    }

    /// `Ok(None)`: it is being waited for.
    fn apply(&mut self, n: NodeId, e: u32) -> Result<Result<Option<Value>, EffectError>, JournalError> {
        let program = self.program.clone();
        let effect = &program.nodes[n as usize].effects[e as usize].effect;
        let before = match self.with_cx(n, e, |cx| effect.before(cx)) {
            Ok(before) => before,
            Err(error) => return Ok(Err(error)),
        };
        // Null or not: an effect without it has not been begun, and there is nothing of it to take back.
        self.log.note(&Entry::Before { n: self.base + n, e, v: before.clone() })?;
        self.log.flush()?;
        match self.with_cx(n, e, |cx| effect.apply(&before, cx)) {
            Ok(Applied::Done(outcome)) => Ok(Ok(Some(outcome))),
            Ok(Applied::Pending(pending)) => self.pend(n, e, pending),
            Ok(Applied::Site { outcome, channel, output }) => {
                let gated = self.gated(n);
                self.sites.push(Site::new(n, channel, output, gated));
                Ok(Ok(Some(outcome)))
            }
            Ok(Applied::UndoRun) => self.undo_earlier(),
            Err(error) => Ok(Err(error)),
        }
    }

    pub(super) fn step_options(&self, n: NodeId) -> Option<&Options> {
        self.program.nodes[n as usize].options.as_deref()
    }

    pub(super) fn outcome(&mut self, n: NodeId, e: u32, mut outcome: Value) -> Result<(), JournalError> {
        self.outcomes.put(&self.program.nodes[n as usize].address, e, outcome.clone());
        crate::value::redact(&mut outcome);
        self.log.note(&Entry::Outcome { n: self.base + n, e, v: outcome })
    }

    pub(super) fn done(&mut self, n: NodeId, times: Option<(u64, u64)>) -> Result<(), JournalError> {
        let began = self.log.state().node(self.base + n).map_or(0, |node| node.began);
        let (from, at) = times.unwrap_or_else(|| (began, now()));
        self.log.note(&Entry::Done { n: self.base + n, from, at })?;
        let node = &self.program.nodes[n as usize];
        let site = node.site.map(|s| self.program.nodes[s as usize].address.clone());
        self.watch.event(&Event::Done { step: node.address.clone(), from, at, site });
        self.complete(n);
        Ok(())
    }

    pub(super) fn complete(&mut self, n: NodeId) {
        self.progress[n as usize] = Progress::Over;
        self.left -= usize::from(!self.program.nodes[n as usize].armed);
        for &dependent in self.dependents.of_node(n) {
            self.blocked[dependent as usize] -= 1;
            if self.blocked[dependent as usize] == 0 && self.progress[dependent as usize] == Progress::Blocked {
                self.ready.push(Reverse(dependent));
            }
        }
    }

    /// A step has failed: it is tried again, or only it is taken back, or the run is over.
    pub(super) fn fail(&mut self, n: NodeId, e: u32, error: EffectError) -> Result<(), JournalError> {
        let node = &self.program.nodes[n as usize];
        let effect = node.effects.get(e as usize).map(|p| brief(p.effect.describe(), SHOWN)).unwrap_or_default();
        let error = self.with_output(n, error);
        let node = &self.program.nodes[n as usize];
        let (at, origin) = (now(), self.program.place(node));
        let failure = Failure {
            step: node.address.clone(),
            kind: node.kind.to_owned(),
            origin,
            effect,
            error: error.clone(),
            at,
        };
        let options = self.step_options(n).cloned().unwrap_or_default();
        self.log.note(&Entry::Failed { n: self.base + n, e, error, at })?;
        self.watch.event(&Event::Failed(failure.clone()));
        let inside = self.program.nodes[n as usize].site.is_some();
        let left = self.tries.entry(n).or_insert(options.retries);
        if *left > 0 && !inside {
            *left -= 1;
            let (left, doubled) = (*left, options.retries - *left - 1);
            let wait = options.backoff * 2u32.saturating_pow(doubled.min(16));
            return self.take_back_one(n, Then::Retry { left, wait, failure: Box::new(failure) });
        }
        if options.continue_on_error && !inside {
            return self.take_back_one(n, Then::GoOn);
        }
        self.failure.get_or_insert(failure);
        Ok(())
    }

    pub(super) fn take_back(&mut self, nodes: &BTreeSet<u32>) -> Result<(), JournalError> {
        self.take_back_by(nodes, Instant::now() + PATIENCE, false)
    }

    /// The same by a time, also of a run that has ended well.
    pub(super) fn take_back_by(
        &mut self,
        nodes: &BTreeSet<u32>,
        until: Instant,
        well: bool,
    ) -> Result<(), JournalError> {
        self.undo(until, well).undo(nodes)
    }

    /// Undoes the earlier pieces of work on the run. What is stuck stays in the journal, and fails the step that asked for it.
    fn undo_earlier(&mut self) -> Result<Result<Option<Value>, EffectError>, JournalError> {
        let until = Instant::now() + PATIENCE;
        if let Err(error) = super::recover::end_beside(self.log.run(), self.registry, self.watch, until) {
            return Ok(Err(EffectError::new(describe(&error))));
        }
        self.log.deleting()?;
        let earlier = self.log.state().begun().map(|(n, _)| n).filter(|n| *n < self.base).collect();
        self.take_back_by(&earlier, until, false)?;
        Ok(Ok(Some(Value::Null)))
    }

    pub(super) fn with_cx<T>(&mut self, n: NodeId, e: u32, run: impl FnOnce(&mut Cx) -> T) -> T {
        let node = &self.program.nodes[n as usize];
        let names = &self.program.runs[node.run as usize];
        let site = (node.makes_site).then(|| self.site_program(n, names));
        let (watch, step) = (&mut *self.watch, &node.address);
        let mut output = |said: Said| watch.event(&Event::said(step.clone(), said));
        run(&mut Cx {
            run: names,
            step,
            effect: e,
            outcomes: &self.outcomes,
            fds: &mut self.fds,
            site,
            outlives: self.options.keep,
            output: &mut output,
        })
    }
}
