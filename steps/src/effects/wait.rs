//! Waiting for a process's end, and bringing it about.

use std::path::Path;
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::Millis;
use lifecycle_engine::value::Later;
use nix::sys::signal::{SigSet, Signal as Named};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::os::fd::AsRawFd;

use super::cgroup::{Frozen, Thawing};
use super::example_process;
use crate::cgroup::oom::Memory;
use crate::outcomes::Process;
use crate::process::holding::undying;
use crate::process::{Fate, SignalName, Watched};

/// How long a process may take to die of SIGKILL before that is an error.
const DEATH: Duration = Duration::from_secs(10);

/// Waits until a process has ended; the outcome's `exit` is its exit code, or 128 + the signal that killed it.
#[derive(Debug, Serialize, Deserialize)]
pub struct AwaitEnd {
    /// The process.
    pub process: Later<Process>,
    /// It gets the signals that come for the engine.
    #[serde(default)]
    pub forward_signals: bool,
    /// The exit codes that are no failure; if none is listed, every one.
    #[serde(default)]
    pub accept: Vec<i32>,
}

/// Sends a signal, and SIGKILL to a process that is still there after the grace. The outcome's `signal` is the one that it ended by.
#[derive(Debug, Serialize, Deserialize)]
pub struct EndProcess {
    /// The process. One that has ended is left alone.
    pub process: Later<Process>,
    /// The signal to begin with.
    pub signal: SignalName,
    /// How long it may take.
    pub grace: Millis,
}

/// What a step's handle, or an opened run's value, stands for.
pub(super) fn resolve(process: &Later<Process>, cx: &Cx) -> Result<Process, EffectError> {
    match process {
        Later::Now(process) => Ok(process.clone()),
        Later::Handle(handle) => cx.resolve(handle),
    }
}

pub(super) fn watch(process: &Process) -> Result<Option<Watched>, EffectError> {
    process.watch().map_err(|e| EffectError::call(format!("pidfd_open({})", process.pid), e))
}

/// Keeps the signals that a program is to get until an [`AwaitEnd`] hands them on: it may have been started before that begins. For the whole life of
/// the calling process, which has one thread.
///
/// # Errors
///
/// What sigprocmask(2) says.
pub fn hold_signals() -> std::io::Result<()> {
    // What a broken pipe of the engine's own raises is nobody else's.
    let held: SigSet = FORWARDED
        .iter()
        .filter(|signal| **signal != Signal::PIPE)
        .filter_map(|signal| Named::try_from(signal.as_raw()).ok())
        .collect();
    held.thread_block().map_err(Into::into)
}

impl EffectDef for AwaitEnd {
    const KIND: &'static str = "await_end";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { process: Later::Handle(example_process()), forward_signals: false, accept: vec![0] }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        let forward = if self.forward_signals { ", and send it the signals that come for the engine" } else { "" };
        let codes: Vec<String> = self.accept.iter().map(ToString::to_string).collect();
        // Without a word what it should be.
        let accept = match self.accept.as_slice() {
            [] | [0] => String::new(),
            _ => format!(", with exit code {}", codes.join(" or ")),
        };
        format!("wait until {} has ended{accept}{forward}", self.process)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = resolve(&self.process, cx)?;
        match watch(&process)? {
            Some(watched) => {
                let forward = self.forward_signals.then(Forward::begin).transpose()?;
                // Who takes whatever it ends with asks for no reason either.
                let memory = if self.accept.is_empty() { None } else { Memory::of(process.pid) };
                let accept = self.accept.clone();
                Ok(Applied::Pending(Box::new(Waiting { pid: process.pid, watched, forward, accept, memory })))
            }
            None => Err(unknown(process.pid)),
        }
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }

    fn takes_signals(&self) -> bool {
        self.forward_signals
    }
}

fn unknown(pid: i32) -> EffectError {
    EffectError::new(format!("process {pid} has ended, and its exit code went to another process"))
        .help("only the process that made it, or its subreaper, is told the exit code: wait in the run that made it")
}

struct Waiting {
    pid: i32,
    watched: Watched,
    forward: Option<Forward>,
    accept: Vec<i32>,
    memory: Option<Memory>,
}

impl Waiting {
    /// The outcome, or why the way in which it ended is a failure.
    fn judge(&self, fate: Fate) -> Result<Value, EffectError> {
        let Some(exit) = fate.exit() else { return Err(unknown(self.pid)) };
        if self.accept.is_empty() || self.accept.contains(&exit) {
            return Ok(json!({ "exit": exit }));
        }
        let (what, help) = self.in_words(fate, exit);
        Err(EffectError::new(what).exit(exit).help(help))
    }

    fn in_words(&self, fate: Fate, exit: i32) -> (String, &'static str) {
        const KILL: i32 = Signal::KILL.as_raw();
        if exit == 128 + KILL
            && let Some(limit) = self.memory.as_ref().and_then(Memory::ran_out)
        {
            let what = format!("its program ended with exit code {exit}: killed by SIGKILL, out of memory{limit}");
            return (what, "raise the memory limit of its cgroup, or find out what takes so much");
        }
        let signal = Some(exit - 128).filter(|signal| (1..=64).contains(signal)).map(name_of);
        let words = match (fate, signal) {
            (Fate::Signal(_), Some(signal)) => format!(": killed by {signal}"),
            (_, Some(signal)) => {
                format!(", which is 128 + {signal}: what a shell says of a program that was killed by it")
            }
            _ => String::new(),
        };
        let help = "if that is no failure list the code in the step's `accept`, such as `accept: [0, 3]`; `accept: []` takes every code";
        (format!("its program ended with exit code {exit}{words}"), help)
    }
}

/// A signal's name, SIGKILL.
fn name_of(signal: i32) -> String {
    Named::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

impl Pending for Waiting {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(self.watched.interest());
        wants.extend(self.forward.iter().map(|forward| Interest::read(forward.fd.as_raw_fd())));
    }

    fn advance(&mut self, _: &mut Cx) -> Result<Option<Value>, EffectError> {
        if let Some(forward) = &self.forward {
            forward.pass_on(&self.watched)?;
        }
        if !self.watched.is_dead()? {
            return Ok(None);
        }
        self.watched.reap().and_then(|fate| self.judge(fate)).map(Some)
    }

    fn cancel(&mut self, _: &mut Cx) {}
}

/// The signals that are a program's own business. Not those that a fault in the engine raises, that stop it for good, that tell of its
/// children and its terminal, or that the kernel keeps for itself.
const FORWARDED: [Signal; 17] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TRAP,
    Signal::USR1,
    Signal::USR2,
    Signal::PIPE,
    Signal::ALARM,
    Signal::TERM,
    Signal::CONT,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::VTALARM,
    Signal::PROF,
    Signal::IO,
    Signal::POWER,
];

/// Signals that come for the engine, as a descriptor. They stay blocked when it is closed: the engine has its own for those that cancel it.
struct Forward {
    fd: SignalFd,
}

impl Forward {
    fn begin() -> Result<Self, EffectError> {
        let set: SigSet = FORWARDED.iter().filter_map(|s| Named::try_from(s.as_raw()).ok()).collect();
        let fd = set
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK));
        fd.map(|fd| Self { fd }).map_err(|e| EffectError::call("signalfd(the signals to send on)", e))
    }

    fn pass_on(&self, to: &Watched) -> Result<(), EffectError> {
        // Each can be there once.
        for _ in FORWARDED {
            match self.fd.read_signal() {
                Ok(Some(info)) => {
                    let Some(signal) = Signal::from_named_raw(info.ssi_signo as i32) else { continue };
                    // What a broken pipe of the engine's own raises is nobody else's.
                    if signal == Signal::PIPE && info.ssi_pid == std::process::id() {
                        continue;
                    }
                    // A program that has just ended needs no signal.
                    if let Err(e) = to.signal(signal)
                        && !to.is_dead()?
                    {
                        return Err(EffectError::call(format!("pidfd_send_signal({signal:?})"), e));
                    }
                }
                Ok(None) => break,
                Err(e) => return Err(EffectError::call("read(signalfd)", e)),
            }
        }
        Ok(())
    }
}

impl EffectDef for EndProcess {
    const KIND: &'static str = "end_process";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { process: Later::Handle(example_process()), signal: SignalName::TERM, grace: Millis(10_000) }]
    }

    fn class(&self) -> Class {
        Class::Commit
    }

    fn describe(&self) -> String {
        match self.signal.0 {
            Signal::KILL => format!("kill {}", self.process),
            _ => format!("send {} to {}; kill it after {}", self.signal, self.process, self.grace),
        }
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = resolve(&self.process, cx)?;
        let Some(watched) = watch(&process)?.map(|w| Ok((w.is_dead()?, w))).transpose()? else {
            return Ok(Applied::Done(json!({ "signal": null })));
        };
        let (dead, watched) = watched;
        if dead {
            watched.reap()?;
            return Ok(Applied::Done(json!({ "signal": null })));
        }
        let mut ending =
            Ending { pid: process.pid, watched, sent: self.signal, deadline: Instant::now() + self.grace.duration() };
        if self.signal.0 != Signal::KILL {
            ending.send(self.signal)?;
            return Ok(Applied::Pending(Box::new(ending)));
        }
        // Looked for while it lives: a process that is ending is in no cgroup any more.
        let frozen = Frozen::of(process.pid, cx.run.around().is_none(), cx);
        ending.send(self.signal)?;
        ending.deadline = Instant::now() + DEATH;
        Ok(Applied::Pending(Box::new(Thawing::new(Box::new(ending), frozen))))
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

struct Ending {
    pid: i32,
    watched: Watched,
    sent: SignalName,
    deadline: Instant,
}

impl Ending {
    fn send(&mut self, signal: SignalName) -> Result<(), EffectError> {
        self.sent = signal;
        self.watched.signal(signal.0).map_err(|e| refused(signal, self.pid, e))
    }
}

/// A signal that could not be sent.
pub(super) fn refused(signal: SignalName, pid: i32, error: std::io::Error) -> EffectError {
    EffectError::call(format!("pidfd_send_signal({pid}, {signal})"), error)
        .help("signalling another user's process needs CAP_KILL")
}

impl Pending for Ending {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(self.watched.interest());
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.deadline)
    }

    fn advance(&mut self, _: &mut Cx) -> Result<Option<Value>, EffectError> {
        if self.watched.is_dead()? {
            self.watched.reap()?;
            return Ok(Some(json!({ "signal": self.sent })));
        }
        if Instant::now() < self.deadline {
            return Ok(None);
        }
        if self.sent.0 == Signal::KILL {
            return Err(undying(self.pid));
        }
        self.send(SignalName::KILL)?;
        self.deadline = Instant::now() + DEATH;
        Ok(None)
    }

    fn cancel(&mut self, _: &mut Cx) {}
}
