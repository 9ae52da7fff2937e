//! What happens while a run is worked on, as one stream with many views: the live view, plain lines, `--events`, `--trace`, `show`.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::effect::Said;
use crate::error::EffectError;
use crate::journal::{NodeState, TakenBack};

/// Something happened. Times are microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A step begins.
    Began {
        /// Its address.
        step: Arc<str>,
        /// When.
        at: u64,
    },
    /// A step has ended well.
    Done {
        /// Its address.
        step: Arc<str>,
        /// When it began.
        from: u64,
        /// When it ended.
        at: u64,
        /// The step that made the process in which it happened.
        #[serde(skip_serializing_if = "Option::is_none")]
        site: Option<Arc<str>>,
    },
    /// A step is not run, because its `if` is false.
    Skipped {
        /// Its address.
        step: Arc<str>,
    },
    /// A command, a hook or a container printed a line.
    Output {
        /// The step's address.
        step: Arc<str>,
        /// The line, without its end.
        line: String,
    },
    /// Something that is to be known, and that did not stop the step.
    Warning {
        /// The step's address.
        step: Arc<str>,
        /// What.
        text: String,
    },
    /// A step has failed.
    Failed(Failure),
    /// A step that failed is tried again.
    Retry {
        /// Its address.
        step: Arc<str>,
        /// How many tries are left after this one.
        left: u32,
        /// The wait before it, in milliseconds.
        wait_ms: u64,
    },
    /// A step is being taken back.
    Undoing {
        /// Its address.
        step: Arc<str>,
        /// When.
        at: u64,
    },
    /// The undo of a step has ended.
    Undone {
        /// Its address.
        step: Arc<str>,
        /// When it began.
        from: u64,
        /// When.
        at: u64,
        /// What it was.
        how: TakenBack,
    },
    /// An effect that could not be taken back was given up: it stays.
    Forgotten {
        /// The step's address.
        step: Arc<str>,
        /// What the effect does, in words.
        effect: String,
    },
    /// An effect could not be taken back.
    Stuck(Stuck),
}

impl Event {
    /// What was said in a step.
    pub fn said(step: Arc<str>, said: Said<'_>) -> Self {
        match said {
            Said::Line(line) => Self::Output { step, line: line.to_owned() },
            Said::Warning(text) => Self::Warning { step, text: text.to_owned() },
        }
    }
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its address.
    pub step: Arc<str>,
    /// Its kind.
    pub kind: String,
    /// The file and line that it comes from.
    pub origin: String,
    /// What the failed effect does, in words.
    pub effect: String,
    /// How it failed.
    pub error: EffectError,
    /// When.
    pub at: u64,
}

/// An effect that could not be taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// The step's address.
    pub step: Arc<str>,
    /// What the effect does, in words.
    pub effect: String,
    /// Why it is stuck.
    pub error: EffectError,
}

/// A breakpoint was reached.
pub struct Paused<'a> {
    /// The step before which the run waits.
    pub step: &'a str,
    /// The steps so far, with their outcomes.
    pub steps: Vec<(&'a NodeState, Vec<&'a Value>)>,
}

/// Watches a run.
pub trait Watch {
    /// How often it wants to be told that time passes.
    fn pace(&self) -> Option<Duration> {
        None
    }
    /// Time has passed.
    fn tick(&mut self) {}
    /// Something happened.
    fn event(&mut self, event: &Event);
    /// A breakpoint was reached; the run goes on when this returns.
    fn pause(&mut self, _paused: &Paused) {}
}

/// Watches nothing.
pub struct Silent;

impl Watch for Silent {
    fn event(&mut self, _: &Event) {}
}
