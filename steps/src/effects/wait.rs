//! Waiting for a process's end, and bringing it about.

use std::path::Path;
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::Millis;
use lifecycle_engine::value::Later;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::example_process;
use crate::outcomes::Process;
use crate::process::{Fate, SignalName, Watched};

/// How long a process may take to die of SIGKILL before that is an error.
const DEATH: Duration = Duration::from_secs(10);

/// Waits until a process has ended; the outcome's `exit` is its exit code, or 128 + the signal that killed it.
#[derive(Debug, Serialize, Deserialize)]
pub struct AwaitEnd {
    /// The process.
    pub process: Later<Process>,
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

impl EffectDef for AwaitEnd {
    const KIND: &'static str = "await_end";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { process: Later::Handle(example_process()) }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("wait until {} has ended", self.process)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = resolve(&self.process, cx)?;
        match watch(&process)? {
            Some(watched) => Ok(Applied::Pending(Box::new(Waiting { pid: process.pid, watched }))),
            None => Err(unknown(process.pid)),
        }
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

fn unknown(pid: i32) -> EffectError {
    EffectError::new(format!("process {pid} has ended, and its exit code went to another process"))
        .help("only the process that made it, or its subreaper, is told the exit code: wait in the run that made it")
}

struct Waiting {
    pid: i32,
    watched: Watched,
}

impl Pending for Waiting {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(self.watched.interest());
    }

    fn advance(&mut self, _: &mut Cx) -> Result<Option<Value>, EffectError> {
        if !self.watched.is_dead()? {
            return Ok(None);
        }
        match self.watched.reap()? {
            Fate::Code(exit) => Ok(Some(json!({ "exit": exit }))),
            Fate::Unknown => Err(unknown(self.pid)),
        }
    }

    fn cancel(&mut self, _: &mut Cx) {}
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
        ending.send(self.signal)?;
        if self.signal.0 == Signal::KILL {
            ending.deadline = Instant::now() + DEATH;
        }
        Ok(Applied::Pending(Box::new(ending)))
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
        self.watched.signal(signal.0).map_err(|e| {
            EffectError::call(format!("pidfd_send_signal({}, {signal})", self.pid), e)
                .help("signalling another user's process needs CAP_KILL")
        })
    }
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
            return Err(EffectError::new(format!("process {} does not die of SIGKILL", self.pid))
                .help(format!("it hangs in the kernel, see /proc/{}/stack", self.pid)));
        }
        self.send(SignalName::KILL)?;
        self.deadline = Instant::now() + DEATH;
        Ok(None)
    }

    fn cancel(&mut self, _: &mut Cx) {}
}
