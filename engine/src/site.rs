//! Sites: a process that a step made runs the steps inside it as one prepared program.
//!
//! The effects are the same objects as on the host: the process is a copy of the engine, made by clone. Both sides speak JSON lines over one
//! socket pair. The process is inert until the engine's first line, which comes once the journal holds its identity; end of file means that the
//! engine is gone, and the process exits. It reports each step's outcomes, or the error of the step that failed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effect::{Applied, Cx, Effect, Fds, Interest, Outcomes, Pending, RunNames, Said};
use crate::error::EffectError;
use crate::program::{NodeId, Program};

/// The key under which a step that arms its site keeps the descriptor that takes errors from then on, since the engine may have gone.
pub const REPORT: &str = "report";

/// What a process does between clone and exec. It decides nothing.
#[derive(Clone, Debug)]
pub struct SiteProgram {
    program: Rc<Program>,
    maker: NodeId,
    steps: Rc<[SiteStep]>,
    run: RunNames,
}

/// One step of a site's program.
#[derive(Clone, Debug)]
pub struct SiteStep {
    /// The node.
    pub node: NodeId,
    /// It waits for the engine's word: a step on the host comes first.
    pub gated: bool,
    /// Fault injection, decided by the engine beforehand.
    pub inject: Option<Inject>,
}

/// A fault to inject into a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inject {
    /// It fails before its first effect.
    Before,
    /// It fails after its last effect.
    After,
    /// The engine is killed before it.
    Crash,
}

impl Inject {
    /// The failure that it stands for.
    pub fn error(self) -> EffectError {
        EffectError::new(match self {
            Self::Before => "failed on purpose before its first effect (--fail-at)",
            _ => "failed on purpose after its last effect (--fail-at)",
        })
    }
}

/// What the engine tells the process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Go {
    /// The gated step that may run now; absent in the first line, which starts the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Outcomes that have come in on the host meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<(Arc<str>, u32, Value)>,
}

/// What the process tells the engine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// A step begins. Time in microseconds since the epoch: a time namespace does not change that clock.
    Began {
        /// The step.
        node: NodeId,
        /// When.
        at: u64,
    },
    /// A step has ended; the outcomes of its effects, null for those that have none.
    Done {
        /// The step.
        node: NodeId,
        /// When, in microseconds since the epoch.
        at: u64,
        /// By effect.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        outcomes: Vec<(u32, Value)>,
    },
    /// A step has failed, and the process exits.
    Failed {
        /// The step.
        node: NodeId,
        /// The effect that failed.
        effect: u32,
        /// How.
        error: EffectError,
    },
    /// A step warns, and goes on.
    Warning {
        /// The step.
        node: NodeId,
        /// Of what.
        text: String,
    },
    /// A hook printed a line.
    Output {
        /// The step.
        node: NodeId,
        /// The line, without its end.
        line: String,
    },
}

impl Report {
    /// The step that it is about.
    pub fn node(&self) -> NodeId {
        match self {
            Self::Began { node, .. }
            | Self::Done { node, .. }
            | Self::Failed { node, .. }
            | Self::Warning { node, .. }
            | Self::Output { node, .. } => *node,
        }
    }
}

/// Microseconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

impl SiteProgram {
    /// The program of the site that `maker` makes.
    pub fn new(program: Rc<Program>, maker: NodeId, steps: Vec<SiteStep>, run: RunNames) -> Self {
        Self { program, maker, steps: steps.into(), run }
    }

    /// Runs the program in the calling process, which must have been made for it. Returns only the exit code with which the process must end:
    /// a program that succeeds ends in an exec.
    ///
    /// `fds` are the descriptors that the site inherits, `outcomes` what was known when the process was made.
    pub fn serve(&self, channel: OwnedFd, fds: Fds, outcomes: Outcomes) -> i32 {
        let Ok(write) = channel.try_clone() else { return 1 };
        let reader = BufReader::new(channel.into());
        let mut process = Process { reader, writer: write.into(), fds, outcomes, granted: BTreeSet::new() };
        // The engine's first line: without it nothing may happen here.
        if process.read_go().is_none() {
            return 1;
        }
        match self.run(&mut process) {
            Ok(()) => 0,
            Err(None) => 1,
            Err(Some((node, effect, error))) => {
                let code = error.exit.unwrap_or(1);
                process.report(&Report::Failed { node, effect, error });
                code
            }
        }
    }

    /// `Err(None)`: the engine has gone.
    fn run(&self, process: &mut Process) -> Result<(), Option<(NodeId, u32, EffectError)>> {
        // What the step that made the site wants done inside first (join the cgroup, become root of the user namespace).
        self.apply_all(self.maker, true, process).map_err(|(k, e)| Some((self.maker, k, e)))?;
        for step in self.steps.iter() {
            if step.gated {
                process.wait_for(step.node).ok_or(None)?;
            }
            process.report(&Report::Began { node: step.node, at: now() });
            if step.inject == Some(Inject::Before) {
                return Err(Some((step.node, 0, Inject::Before.error())));
            }
            let outcomes = self.apply_all(step.node, false, process).map_err(|(k, e)| Some((step.node, k, e)))?;
            if step.inject == Some(Inject::After) {
                let last = self.effects(step.node).len().saturating_sub(1) as u32;
                return Err(Some((step.node, last, Inject::After.error())));
            }
            process.report(&Report::Done { node: step.node, at: now(), outcomes });
        }
        Ok(())
    }

    fn effects(&self, node: NodeId) -> &[crate::step::PlannedEffect] {
        self.program.nodes.get(node as usize).map_or(&[], |n| &n.effects)
    }

    fn apply_all(
        &self,
        node: NodeId,
        inside: bool,
        process: &mut Process,
    ) -> Result<Vec<(u32, Value)>, (u32, EffectError)> {
        let mut outcomes = Vec::new();
        let Some(address) = self.program.nodes.get(node as usize).map(|n| n.address.clone()) else {
            return Ok(outcomes);
        };
        for (k, planned) in (0..).zip(self.effects(node)) {
            if planned.inside != inside {
                continue;
            }
            let outcome = self.apply(&address, node, k, planned.effect.as_ref(), process).map_err(|e| (k, e))?;
            if !outcome.is_null() {
                process.outcomes.put(&address, k, outcome.clone());
                outcomes.push((k, outcome));
            }
        }
        Ok(outcomes)
    }

    fn apply(
        &self,
        step: &Arc<str>,
        node: NodeId,
        k: u32,
        effect: &dyn Effect,
        process: &mut Process,
    ) -> Result<Value, EffectError> {
        let Process { writer, fds, outcomes, .. } = process;
        let mut output = |said: Said| {
            send(
                writer,
                &match said {
                    Said::Line(line) => Report::Output { node, line: line.to_owned() },
                    Said::Warning(text) => Report::Warning { node, text: text.to_owned() },
                },
            );
        };
        let mut cx =
            Cx { run: &self.run, step, effect: k, outcomes, fds, site: None, outlives: false, output: &mut output };
        let before = effect.before(&mut cx)?;
        match effect.apply(&before, &mut cx)? {
            Applied::Done(outcome) => Ok(outcome),
            Applied::Pending(pending) => block_on(pending, &mut cx),
            Applied::Site { .. } | Applied::UndoRun => Err(EffectError::new("this effect cannot happen inside a site")),
        }
    }
}

struct Process {
    reader: BufReader<std::fs::File>,
    writer: std::fs::File,
    fds: Fds,
    outcomes: Outcomes,
    /// Gated steps that may run: the engine's word may come before their turn here.
    granted: BTreeSet<NodeId>,
}

impl Process {
    fn read_go(&mut self) -> Option<Go> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(n) if n > 0 => {
                let mut go: Go = serde_json::from_str(&line).ok()?;
                for (step, effect, outcome) in go.outcomes.drain(..) {
                    self.outcomes.put(&step, effect, outcome);
                }
                Some(go)
            }
            _ => None,
        }
    }

    fn wait_for(&mut self, node: NodeId) -> Option<()> {
        while !self.granted.contains(&node) {
            let go = self.read_go()?;
            self.granted.extend(go.node);
        }
        Some(())
    }

    /// Once the site is armed the engine may have gone, and whoever releases the site reads errors from another descriptor. An engine that is
    /// still there is told the rest.
    fn report(&mut self, report: &Report) {
        let failed = matches!(report, Report::Failed { .. });
        match self.fds.get(REPORT) {
            None => send(&mut self.writer, report),
            Some(fd) if failed && let Ok(fd) = fd.try_clone_to_owned() => send(&mut fd.into(), report),
            Some(_) => mention(&self.writer, report),
        }
    }
}

/// Tells an engine that may have gone, or may not listen: neither may hold the container up, or end it.
fn mention(to: &std::fs::File, report: &Report) {
    use rustix::net::SendFlags;
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = rustix::net::send(to, &line, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

/// An engine that is gone cannot be told so; the process notices at its next read.
fn send(to: &mut std::fs::File, report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = to.write_all(&line);
    }
}

/// Waits for something pending in a process that has nothing else to do.
pub fn block_on(mut pending: Box<dyn Pending>, cx: &mut Cx) -> Result<Value, EffectError> {
    pending.release(cx)?;
    // What is done as soon as it is released has nothing to poll.
    if let Some(outcome) = pending.advance(cx)? {
        return Ok(outcome);
    }
    loop {
        let mut wants = Vec::new();
        pending.interest(&mut wants);
        wait(&wants, pending.deadline())?;
        if let Some(outcome) = pending.advance(cx)? {
            return Ok(outcome);
        }
    }
}

/// Polls until one of the descriptors is ready or the deadline has come; tells which are ready.
pub(crate) fn wait(wants: &[Interest], deadline: Option<Instant>) -> Result<Vec<bool>, EffectError> {
    let mut polled: Vec<PollFd> =
        wants.iter().map(|w| PollFd::from_borrowed_fd(crate::sys::borrow(w.fd), flags(*w))).collect();
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let timeout = left.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: i64::from(l.subsec_nanos()) });
        match poll(&mut polled, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(EffectError::call("poll", e)),
            Ok(_) => return Ok(polled.iter().map(|p| !p.revents().is_empty()).collect()),
        }
    }
}

fn flags(want: Interest) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, want.read);
    flags.set(PollFlags::OUT, want.write);
    flags
}

/// Sends one line to the process. An engine must not die of a process that has gone: the error comes back instead of SIGPIPE.
pub(crate) fn tell(channel: &OwnedFd, go: &Go) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(go)?;
    line.push(b'\n');
    let mut rest = line.as_slice();
    while !rest.is_empty() {
        let n =
            rustix::io::retry_on_intr(|| rustix::net::send(channel.as_fd(), rest, rustix::net::SendFlags::NOSIGNAL))?;
        rest = &rest[n..];
    }
    Ok(())
}
