use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effect::Class;
use crate::error::EffectError;

/// The version of the format. A journal of another major version is refused; fields may be added within one.
pub const VERSION: u32 = 1;

/// A process, told apart from every other one that has had or will have its pid (proc(5): starttime, boot_id).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The pid in the engine's pid namespace.
    pub pid: i32,
    /// Clock ticks between boot and its start.
    pub start: u64,
    /// /proc/sys/kernel/random/boot_id
    pub boot: String,
}

/// An effect as it is journaled: enough to undo it by another process and a later version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedData {
    /// The effect's kind.
    pub kind: String,
    /// How it is taken back.
    pub class: Class,
    /// Its fields, without sensitive values.
    pub data: Value,
    /// It happens in the process that its step makes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inside: bool,
}

/// How a run, or a piece of work on it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    /// What it made is there on purpose.
    Kept,
    /// It failed or was cancelled, and was taken back; what was there before it is there again.
    RolledBack,
}

/// What the undo of an effect, or of a step, was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakenBack {
    /// There was nothing to take back.
    Nothing,
    /// It stays on purpose.
    Kept,
    /// It is gone.
    #[default]
    Whole,
    /// Some of it could not be taken back.
    Stuck,
}

impl TakenBack {
    fn is_whole(&self) -> bool {
        *self == Self::Whole
    }
}

/// A line of the journal. `n` is a node's number, `e` the number of an effect of it, `at` microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The first line.
    Run {
        /// [`VERSION`]
        version: u32,
        /// The run's id.
        id: String,
        /// The run in which it is nested.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
    },
    /// An engine starts to work on the run.
    Segment {
        /// The plan's name.
        plan: String,
        /// The engine.
        engine: Identity,
        /// The number of its first node.
        base: u32,
        /// What its plan gives to others, as far as it is known beforehand: handles stand for what is still to come.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        outputs: Value,
        /// When.
        at: u64,
    },
    /// The run has a nested run, with a journal of its own.
    Child {
        /// Its id.
        id: String,
    },
    /// A step is about to happen.
    Begin {
        /// The step's number.
        n: u32,
        /// Its address.
        step: Arc<str>,
        /// Its kind.
        kind: String,
        /// The file and line that it comes from.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        origin: String,
        /// The steps that it came after.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<u32>,
        /// The step that made the process in which it happens.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        site: Option<u32>,
        /// It is released by another piece of work on the run.
        #[serde(default, skip_serializing_if = "is_false")]
        armed: bool,
        /// What it is about to change.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        effects: Vec<PlannedData>,
        /// When.
        at: u64,
    },
    /// What was there before an effect.
    Before {
        /// The step.
        n: u32,
        /// The effect.
        e: u32,
        /// What was there.
        v: Value,
    },
    /// An effect has started something, which is inert until this line is written.
    Started {
        /// The step.
        n: u32,
        /// The effect.
        e: u32,
        /// What was started.
        v: Value,
    },
    /// An effect has happened.
    Outcome {
        /// The step.
        n: u32,
        /// The effect.
        e: u32,
        /// Its outcome.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        v: Value,
    },
    /// A step has ended well.
    Done {
        /// The step.
        n: u32,
        /// When it really began (a step inside a site is journaled earlier).
        from: u64,
        /// When it ended.
        at: u64,
    },
    /// A step is not run, because its `if` is false.
    Skipped {
        /// The step.
        n: u32,
        /// Its address.
        step: Arc<str>,
        /// Its kind.
        kind: String,
    },
    /// A step has failed.
    Failed {
        /// The step.
        n: u32,
        /// The effect that failed.
        e: u32,
        /// How.
        error: EffectError,
        /// When.
        at: u64,
    },
    /// An effect is about to be undone.
    Undo {
        /// The step.
        n: u32,
        /// The effect.
        e: u32,
    },
    /// The undo of an effect has started something, which is inert until this line is written.
    Undoing {
        /// The step.
        n: u32,
        /// The effect.
        e: u32,
        /// What was started.
        v: Value,
    },
    /// An effect is undone.
    Undone {
        /// The step.
        n: u32,
        /// The effect.
        e: u32,
        /// What that was.
        #[serde(default, skip_serializing_if = "TakenBack::is_whole")]
        how: TakenBack,
    },
    /// What could not be undone is given up: it stays, and nobody tries again.
    Forgotten {
        /// The step.
        n: u32,
        /// The effect.
        e: u32,
        /// When.
        at: u64,
    },
    /// An effect could not be undone, or is not provably ours; it is tried again by the next undo.
    Stuck {
        /// The step.
        n: u32,
        /// The effect.
        e: u32,
        /// Why.
        error: EffectError,
    },
    /// A step is wholly undone, and may be tried again.
    Reset {
        /// The step.
        n: u32,
    },
    /// The undo of the whole run has begun: from here on it can only be finished.
    Deleting,
    /// The engine that works on the run is done with it.
    Settled {
        /// How.
        how: Settlement,
        /// The exit code of the main step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<i32>,
        /// The plan's outputs, resolved, without sensitive values.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        outputs: Value,
        /// When.
        at: u64,
    },
}

fn is_false(b: &bool) -> bool {
    !*b
}

impl Entry {
    /// The number of the step that it is about.
    pub fn node(&self) -> Option<u32> {
        match self {
            Self::Begin { n, .. }
            | Self::Before { n, .. }
            | Self::Started { n, .. }
            | Self::Outcome { n, .. }
            | Self::Done { n, .. }
            | Self::Skipped { n, .. }
            | Self::Failed { n, .. }
            | Self::Undo { n, .. }
            | Self::Undoing { n, .. }
            | Self::Undone { n, .. }
            | Self::Stuck { n, .. }
            | Self::Forgotten { n, .. }
            | Self::Reset { n } => Some(*n),
            Self::Run { .. } | Self::Segment { .. } | Self::Child { .. } | Self::Deleting | Self::Settled { .. } => {
                None
            }
        }
    }
}
