//! What callers are told when something cannot be done: one line, which they match words in.

use lifecycle_engine::diag::Report;
use lifecycle_engine::events::{Failure, Stuck};
use lifecycle_engine::journal::JournalError;
use lifecycle_engine::run::{Finished, RunError};

/// Why a verb could not do its work.
#[derive(Debug)]
pub struct Fault {
    /// One line.
    pub message: String,
    /// The exit code: 1, as callers expect, unless a verb says otherwise.
    pub code: u8,
}

impl Fault {
    /// Something could not be done.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// Something could not be done; `why` is what the system said.
    pub fn failed(what: impl std::fmt::Display, why: &dyn std::fmt::Display) -> Self {
        Self::new(format!("{what}: {why}"))
    }

    /// There is no such container. Callers look for `does not exist`.
    pub fn absent(id: &str) -> Self {
        Self::new(format!("load container {id}: container does not exist"))
    }

    /// The same with an exit code of its own.
    pub fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// What is wrong with a config or an option: every problem, without the place in the built-in plan where it showed.
    pub fn refused(report: &Report) -> Self {
        let one = |message: &str, help: Option<&String>| match help {
            Some(help) => format!("{message} ({help})"),
            None => message.to_owned(),
        };
        let all: Vec<String> = report.diagnostics().iter().map(|d| one(&d.message, d.help.as_ref())).collect();
        Self::new(all.join("; "))
    }

    /// What a run ended with, if it did not end well.
    pub fn of(finished: &Finished) -> Option<Self> {
        let failure = finished.failure.as_ref().map(told);
        let rest = if finished.committed { "the container had been let go" } else { "everything was taken back" };
        let cancelled = finished.cancelled.map(|signal| format!("cancelled by signal {signal}; {rest}"));
        let message = failure.or(cancelled);
        let stuck = stuck(&finished.stuck);
        if message.is_none() && stuck.is_empty() {
            return None;
        }
        let exit = finished.failure.as_ref().and_then(|f| f.error.exit);
        let all: Vec<String> = message.into_iter().chain(stuck).collect();
        Some(Self { message: all.join("; "), code: exit.map_or(1, |code| code as u8) })
    }
}

/// The step, what it did, what the kernel or the hook said, and what to do about it.
fn told(failure: &Failure) -> String {
    use std::fmt::Write;
    let mut text = format!("step {} ({}): {}", failure.step, failure.kind, failure.error);
    if !failure.error.output.is_empty() {
        let _ = write!(text, ", output: {}", failure.error.output.join(" | "));
    }
    if let Some(help) = &failure.error.help {
        let _ = write!(text, " ({help})");
    }
    text
}

/// What could not be taken back.
pub fn stuck(stuck: &[Stuck]) -> Vec<String> {
    // One that does not end keeps much: the first says why.
    const TOLD: usize = 2;
    let help = |s: &Stuck| s.error.help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
    let one = |s: &Stuck| format!("not taken back: {}: {}: {}{}", s.step, s.effect, s.error, help(s));
    let more = stuck.len().saturating_sub(TOLD);
    let more = (more > 0).then(|| format!("not taken back: {more} more"));
    stuck.iter().take(TOLD).map(one).chain(more).collect()
}

impl From<RunError> for Fault {
    fn from(error: RunError) -> Self {
        match &error {
            RunError::Journal(JournalError::Exists(other)) => {
                Self::new(format!("container with given ID already exists: {}", other.id))
            }
            RunError::Journal(JournalError::Absent { id, .. }) => Self::absent(id),
            RunError::Journal(JournalError::Foreign { path, why }) => {
                Self::new(format!("{error} ({})", why.help(path)))
            }
            RunError::Journal(JournalError::Busy { id }) => Self::new(format!(
                "container {id} is being worked on by another process; try again when that has ended"
            )),
            _ => {
                let cause = std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
                Self::new(format!("{error}{cause}"))
            }
        }
    }
}
