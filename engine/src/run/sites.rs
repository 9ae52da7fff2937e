use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Instant;

use super::execute::{Execution, Progress};
use super::waiting::timed_out;
use super::work::earliest;
use crate::effect::RunNames;
use crate::error::EffectError;
use crate::events::Event;
use crate::journal::JournalError;
use crate::lines::{Lines, turn};
use crate::program::NodeId;
use crate::site::{Go, Inject, Report, SiteProgram, SiteStep, now, tell};
use crate::step::Nature;

/// The engine's side of a process that runs a site's program.
pub(super) struct Site {
    maker: NodeId,
    channel: Option<OwnedFd>,
    partial: Vec<u8>,
    output: Vec<Lines>,
    /// The last of what it printed.
    last: VecDeque<String>,
    /// The step that it is at, and since when.
    at: Option<(NodeId, u64, Instant)>,
    /// The steps that it has begun: each begins once.
    begun: BTreeSet<NodeId>,
    /// It has said what its program does not say. Nothing of it is believed any more.
    distrusted: bool,
    /// The steps that wait for the engine's word. The others get none: a process that execs must leave nothing unread behind.
    gated: Vec<NodeId>,
}

impl Site {
    pub fn new(maker: NodeId, channel: OwnedFd, output: Vec<OwnedFd>, gated: Vec<NodeId>) -> Self {
        let output = output.into_iter().map(Lines::new).collect();
        Self {
            maker,
            channel: Some(channel),
            partial: Vec::new(),
            output,
            last: VecDeque::new(),
            at: None,
            begun: BTreeSet::new(),
            distrusted: false,
            gated,
        }
    }

    pub fn poll_fds(&self, fds: &mut Vec<RawFd>) {
        fds.extend(self.channel.as_ref().map(AsRawFd::as_raw_fd));
        fds.extend(self.output.iter().filter_map(Lines::poll_fd));
    }

    /// What has come in by now.
    fn receive(&mut self) -> Heard {
        let mut chunk = [0; 4096];
        let mut heard = Heard::default();
        let mut left = self.channel.as_ref().map_or(0, turn);
        while let Some(channel) = self.channel.as_ref().filter(|_| left > 0) {
            match rustix::net::recv(channel, &mut chunk[..], rustix::net::RecvFlags::DONTWAIT) {
                Ok((n @ 1.., _)) => {
                    left = left.saturating_sub(n);
                    self.partial.extend(&chunk[..n]);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Ok(_) | Err(_) => {
                    self.channel = None;
                    heard.ended = true;
                }
            }
        }
        let whole = self.partial.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.partial.drain(..whole).collect();
        heard.reports = lines.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        heard.without_end = self.partial.len() > LONGEST;
        heard
    }
}

/// The longest report, in bytes: as much as a worker's.
const LONGEST: usize = 1 << 20;

/// How many lines of a program's output are told when it has failed.
const REMEMBERED: usize = 20;

/// What a site has said.
#[derive(Debug, Default)]
struct Heard {
    /// Whole reports.
    reports: Vec<Report>,
    /// The channel has ended.
    ended: bool,
    /// It says more than any report could be.
    without_end: bool,
}

impl Execution<'_> {
    /// The program for the process that a step makes: its steps in order, those that wait for the host marked.
    pub(super) fn site_program(&self, maker: NodeId, names: &RunNames) -> SiteProgram {
        let steps =
            self.program.site_of(maker).filter(|n| !self.program.nodes[*n as usize].skipped).map(|n| SiteStep {
                node: n,
                gated: self.is_gated(maker, n),
                inject: self.options.fail_at.filter(|(at, _)| *at == n).map(|(_, inject)| inject),
            });
        SiteProgram::new(self.program.clone(), maker, steps.collect(), names.clone())
    }

    /// Whether a step inside a site has to wait for the engine's word: for a step on the host that is not over, or because it is to stop there.
    fn is_gated(&self, maker: NodeId, n: NodeId) -> bool {
        let on_host = |p: &&NodeId| **p != maker && self.program.nodes[**p as usize].site != Some(maker);
        let waits_for = self.program.nodes[n as usize].after.iter().filter(on_host);
        let stops = self.options.pause_at == Some(n) || self.options.fail_at == Some((n, Inject::Crash));
        // An armed step gets no word from this engine: whoever releases it may be another one.
        stops && !self.program.nodes[n as usize].armed
            || waits_for.into_iter().any(|p| self.progress[*p as usize] != Progress::Over)
    }

    /// The steps of a site that wait for the engine's word.
    pub(super) fn gated(&self, maker: NodeId) -> Vec<NodeId> {
        self.program.site_of(maker).filter(|n| self.is_gated(maker, *n)).collect()
    }

    /// The process is recorded: its steps go into the journal, and it gets its first word.
    pub(super) fn open_site(&mut self, maker: NodeId) -> Result<(), JournalError> {
        let steps: Vec<NodeId> =
            self.program.site_of(maker).filter(|n| !self.program.nodes[*n as usize].skipped).collect();
        let at = now();
        for n in steps {
            self.log.note(&self.begin_entry(n, at))?;
        }
        self.log.flush()?;
        let own = &self.program.nodes[maker as usize];
        let outcomes = (0..own.effects.len() as u32)
            .filter_map(|e| Some((own.address.clone(), e, self.outcomes.of(&own.address, e)?.clone())));
        let go = Go { node: None, outcomes: outcomes.collect() };
        self.tell_site(maker, &go)
    }

    fn tell_site(&mut self, maker: NodeId, go: &Go) -> Result<(), JournalError> {
        let site = self.sites.iter().find(|s| s.maker == maker).and_then(|s| s.channel.as_ref());
        let told = match site {
            Some(channel) => tell(channel, go),
            None => return Ok(()),
        };
        // A process that has gone says why at its end of the channel, which is read next.
        match told {
            Err(e) if e.raw_os_error() != Some(rustix::io::Errno::PIPE.raw_os_error()) => {
                let error = EffectError::call("send to the process inside the site", e);
                self.fail(maker, 0, error)
            }
            _ => Ok(()),
        }
    }

    /// A step inside a site has all that it waited for on the host.
    pub(super) fn admit(&mut self, n: NodeId) -> Result<(), JournalError> {
        let Some(maker) = self.program.nodes[n as usize].site else { return Ok(()) };
        if !self.sites.iter().any(|s| s.maker == maker && s.gated.contains(&n)) {
            return Ok(());
        }
        let mut outcomes = Vec::new();
        for before in &*self.program.nodes[n as usize].after {
            let node = &self.program.nodes[*before as usize];
            if node.site != Some(maker) {
                let known = (0..node.effects.len() as u32)
                    .filter_map(|e| Some((node.address.clone(), e, self.outcomes.of(&node.address, e)?.clone())));
                outcomes.extend(known);
            }
        }
        self.tell_site(maker, &Go { node: Some(n), outcomes })
    }

    /// Takes in what the sites have said and printed.
    pub(super) fn hear_sites(&mut self) -> Result<(), JournalError> {
        for index in 0..self.sites.len() {
            self.show_output(index);
            let heard = self.sites[index].receive();
            for report in heard.reports {
                if !self.sites[index].distrusted {
                    self.hear(index, report)?;
                }
            }
            if heard.without_end {
                self.distrust(index)?;
            }
            if heard.ended && self.failure.is_none() {
                self.site_ended(index)?;
            }
        }
        Ok(())
    }

    /// What it has said is none of what its program says. It may fail its own steps, and nothing else.
    fn distrust(&mut self, index: usize) -> Result<(), JournalError> {
        let site = &mut self.sites[index];
        site.channel = None;
        site.distrusted = true;
        site.partial.clear();
        let maker = site.maker;
        self.fail(maker, 0, EffectError::new("the process inside the site reports what its program cannot have done"))
    }

    /// Whether it is about a step of that site, and about effects that the step has.
    fn is_its_own(&self, maker: NodeId, report: &Report) -> bool {
        let n = report.node();
        let Some(node) = self.program.nodes.get(n as usize) else { return false };
        let has = |e: u32| (e as usize) < node.effects.len();
        let own = n == maker || node.site == Some(maker);
        own && match report {
            // Of a step without effects the fault on purpose is told as that of its first.
            Report::Failed { effect, .. } => *effect == 0 || has(*effect),
            Report::Done { outcomes, .. } => outcomes.iter().all(|(e, _)| has(*e)),
            Report::Began { .. } | Report::Warning { .. } | Report::Output { .. } => true,
        }
    }

    fn hear(&mut self, index: usize, report: Report) -> Result<(), JournalError> {
        if !self.is_its_own(self.sites[index].maker, &report) {
            return self.distrust(index);
        }
        match report {
            Report::Began { node, .. } if !self.sites[index].begun.insert(node) => self.distrust(index),
            Report::Began { node, at } => {
                self.sites[index].at = Some((node, at, Instant::now()));
                let (step, kind) =
                    (self.program.nodes[node as usize].address.clone(), self.program.nodes[node as usize].kind);
                self.watch.event(&Event::Began { step, at });
                // What arms the site waits for whoever releases it; for this run it is over once it waits.
                let fails = self.options.fail_at == Some((node, Inject::Before));
                if !fails && self.registry.step(kind).is_some_and(|kind| kind.arms) {
                    self.done(node, Some((at, at)))?;
                    self.stop_at_armed(self.sites[index].maker)
                } else {
                    Ok(())
                }
            }
            Report::Done { node, at, outcomes } => {
                let from = self.sites[index].at.take().map_or(at, |(_, from, _)| from);
                // For this run the step that arms was over when it began to wait.
                if self.progress[node as usize] == Progress::Over {
                    return Ok(());
                }
                for (e, outcome) in outcomes {
                    self.outcome(node, e, outcome)?;
                }
                self.done(node, Some((from, at)))
            }
            Report::Failed { node, effect, error } => {
                self.sites[index].channel = None;
                self.fail(node, effect, error)
            }
            Report::Warning { node, text } => {
                let step = self.program.nodes[node as usize].address.clone();
                self.watch.event(&Event::Warning { step, text });
                Ok(())
            }
            Report::Output { node, line } => {
                let step = self.program.nodes[node as usize].address.clone();
                self.watch.event(&Event::Output { step, line });
                Ok(())
            }
        }
    }

    /// A breakpoint or a crash before an armed step comes as late as this engine can tell: when the site begins to wait for its release.
    fn stop_at_armed(&mut self, maker: NodeId) -> Result<(), JournalError> {
        let armed: Vec<NodeId> =
            self.program.site_of(maker).filter(|n| self.program.nodes[*n as usize].armed).collect();
        armed.into_iter().try_for_each(|n| self.stop_here(n))
    }

    fn ended_early(&self, maker: NodeId) -> EffectError {
        let known = self.program.nodes[maker as usize].effects.iter().find_map(|planned| planned.effect.why_ended());
        known.unwrap_or_else(|| {
            EffectError::new("the process inside the site ended before this step did").help(
                "something killed it: a memory limit, a seccomp filter of an earlier step, or a signal from outside",
            )
        })
    }

    /// The channel closes when the process execs, or when it dies.
    fn site_ended(&mut self, index: usize) -> Result<(), JournalError> {
        let maker = self.sites[index].maker;
        let at = now();
        let pending: Vec<NodeId> = self
            .program
            .site_of(maker)
            .filter(|n| self.progress[*n as usize] != Progress::Over && !self.program.nodes[*n as usize].skipped)
            .collect();
        for n in pending {
            let node = &self.program.nodes[n as usize];
            let execs = node.nature == Nature::Commit || node.armed;
            if !execs {
                return self.fail(n, 0, self.ended_early(maker));
            }
            // The process is another program by now: only from here can the fault come after its last effect.
            if self.options.fail_at == Some((n, Inject::After)) {
                let last = node.effects.len().saturating_sub(1) as u32;
                return self.fail(n, last, Inject::After.error());
            }
            let from = self.sites[index].at.take().map_or(at, |(_, from, _)| from);
            self.done(n, Some((from, at)))?;
        }
        Ok(())
    }

    fn show_output(&mut self, index: usize) {
        let maker = self.sites[index].maker;
        let step = self.program.nodes[maker as usize].address.clone();
        let (watch, site) = (&mut *self.watch, &mut self.sites[index]);
        for lines in &mut site.output {
            lines.drain(&mut |line| {
                if site.last.len() == REMEMBERED {
                    site.last.pop_front();
                }
                site.last.push_back(line.to_owned());
                watch.event(&Event::Output { step: step.clone(), line: line.to_owned() });
            });
        }
    }

    /// How a program ended is better understood with the end of what it printed.
    pub(super) fn with_output(&mut self, n: NodeId, mut error: EffectError) -> EffectError {
        let node = &self.program.nodes[n as usize];
        if node.nature != Nature::Waits || error.exit.is_none() || !error.output.is_empty() {
            return error;
        }
        let after = node.after.clone();
        for index in (0..self.sites.len()).filter(|index| after.contains(&self.sites[*index].maker)).collect::<Vec<_>>()
        {
            self.show_output(index);
            error.output.extend(self.sites[index].last.iter().cloned());
        }
        error
    }

    /// What has been printed by the time the run ends is shown.
    pub(super) fn drain_sites(&mut self) {
        (0..self.sites.len()).for_each(|index| self.show_output(index));
    }

    pub(super) fn site_deadline(&self) -> Option<Instant> {
        self.sites.iter().map(|site| self.deadline_of(site).map(|(_, at)| at)).fold(None, earliest)
    }

    fn deadline_of(&self, site: &Site) -> Option<(NodeId, Instant)> {
        let (n, _, since) = site.at?;
        let timeout = self.program.nodes[n as usize].options.as_ref()?.timeout?;
        Some((n, since + timeout))
    }

    pub(super) fn check_site_deadlines(&mut self) -> Result<(), JournalError> {
        let late = self.sites.iter().filter_map(|site| self.deadline_of(site)).find(|(_, at)| Instant::now() >= *at);
        let Some((n, _)) = late else { return Ok(()) };
        let timeout = self.program.nodes[n as usize].options.as_ref().and_then(|o| o.timeout).unwrap_or_default();
        self.fail(n, 0, timed_out(timeout))
    }
}
