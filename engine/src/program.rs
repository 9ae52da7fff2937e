//! A planned program: every step with its concrete effects, ready to be shown, saved, run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effect::{Outcomes, RunNames};
use crate::facts::Recorded;
use crate::step::{Nature, PlannedEffect};
use crate::value::{handle_ref, plain};

/// The index of a node in [`Program::nodes`].
pub type NodeId = u32;

/// A graph with its parameters bound and its effects computed.
#[derive(Debug)]
pub struct Program {
    /// The plan's name, such as `oci/create`.
    pub plan: String,
    /// What the plan is for.
    pub about: String,
    /// The files that the nodes come from; [`Origin::file`] is an index into it.
    pub files: Vec<String>,
    /// The runs that the program works on: the first is its own, the others are children (a nested plan with `run:`).
    pub runs: Vec<RunNames>,
    /// The program continues the existing run `runs[0]` instead of making it.
    pub opens: bool,
    /// The program's own run lies within another one that it only reads: `runs[0]` is in that run's directory.
    pub beside: bool,
    /// The steps, each after all that it waits for.
    pub nodes: Vec<Node>,
    /// Nested plans, for folding; the first is the whole program.
    pub scopes: Vec<Scope>,
    /// The plan names its run: what it makes is meant to stay.
    pub stays: bool,
    /// The steps whose exit code is the run's: it ends with the last of them.
    pub main: Vec<NodeId>,
    /// The plan's outputs; may hold handles.
    pub outputs: Value,
    /// The outputs of the plans that make the child runs, one for each of `runs` after the first.
    pub nested: Vec<Value>,
    /// What planning read.
    pub facts: Recorded,
}

/// A plan used as a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The step's address; empty for the whole program.
    pub address: Arc<str>,
    /// The plan's name.
    pub plan: String,
    /// The scope around it; itself for the outermost.
    pub parent: u32,
}

/// Where a step is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// An index into [`Program::files`].
    pub file: u16,
    /// Counted from 1.
    pub line: u32,
}

/// One step.
#[derive(Debug)]
pub struct Node {
    /// Such as `server/init` or `veth["a"]`.
    pub address: Arc<str>,
    /// The kind's name.
    pub kind: &'static str,
    /// The kind's nature.
    pub nature: Nature,
    /// Where it is written.
    pub origin: Origin,
    /// An index into [`Program::scopes`].
    pub scope: u32,
    /// An index into [`Program::runs`]: whose journal it belongs to.
    pub run: u32,
    /// The node that makes the process in which this one happens.
    pub site: Option<NodeId>,
    /// It makes such a process.
    pub makes_site: bool,
    /// It belongs to the program but is released by another run (what follows the exec FIFO).
    pub armed: bool,
    /// The nodes that it waits for.
    pub after: Box<[NodeId]>,
    /// Not run, because its `if` is false. It has no effects and null outputs.
    pub skipped: bool,
    /// Decided when it is its turn, because it depends on a handle.
    pub when: Option<Box<Condition>>,
    /// `timeout`, `retry`, `continue-on-error`, where given.
    pub options: Option<Box<Options>>,
    /// What it changes, in order.
    pub effects: Vec<PlannedEffect>,
    /// What `${id}` is for others; may hold handles.
    pub output: Value,
}

/// How a step is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The longest it may take.
    pub timeout: Option<Duration>,
    /// How often it is tried again.
    pub retries: u32,
    /// The wait before the first retry; doubled each time.
    pub backoff: Duration,
    /// Its failure undoes it and nothing else.
    pub continue_on_error: bool,
}

/// An `if` that depends on handles: what is known has been evaluated away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// A value or a handle; true unless it is null, false, zero or empty.
    Value(Value),
    /// `!a`
    Not(Box<Condition>),
    /// `a && b`
    And(Box<Condition>, Box<Condition>),
    /// `a || b`
    Or(Box<Condition>, Box<Condition>),
    /// `a == b`
    Equal(Value, Value),
    /// `a != b`
    Differ(Value, Value),
}

/// Whether a value counts as true.
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

impl Condition {
    /// Decides it, every handle in it being resolved or null.
    pub fn holds(&self, outcomes: &Outcomes) -> bool {
        match self {
            Self::Value(v) => truthy(&outcomes.resolve(v)),
            Self::Not(a) => !a.holds(outcomes),
            Self::And(a, b) => a.holds(outcomes) && b.holds(outcomes),
            Self::Or(a, b) => a.holds(outcomes) || b.holds(outcomes),
            Self::Equal(a, b) => outcomes.resolve(a) == outcomes.resolve(b),
            Self::Differ(a, b) => outcomes.resolve(a) != outcomes.resolve(b),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |v: &Value| {
            handle_ref(v).map_or_else(|| if v.is_string() { v.to_string() } else { plain(v) }, |h| h.to_string())
        };
        match self {
            Self::Value(v) => f.write_str(&show(v)),
            Self::Not(a) => write!(f, "!{a}"),
            Self::And(a, b) => write!(f, "({a} && {b})"),
            Self::Or(a, b) => write!(f, "({a} || {b})"),
            Self::Equal(a, b) => write!(f, "{} == {}", show(a), show(b)),
            Self::Differ(a, b) => write!(f, "{} != {}", show(a), show(b)),
        }
    }
}

impl Program {
    /// The node at that address.
    pub fn node(&self, address: &str) -> Option<NodeId> {
        self.nodes.iter().position(|n| n.address.as_ref() == address).map(|i| i as NodeId)
    }

    /// A step that executes a program for which nothing waits: the run would be over before the program is. Not where another run releases it, nor in a
    /// run that is meant to stay, nor beside a main program, with whose end it is taken back.
    pub fn unwaited(&self) -> Option<NodeId> {
        if self.opens || self.beside || self.stays || !self.main.is_empty() {
            return None;
        }
        let mut waited = vec![false; self.nodes.len()];
        for before in self.nodes.iter().filter(|node| !node.skipped).flat_map(|node| &*node.after) {
            waited[*before as usize] = true;
        }
        let executes =
            |n: &Node| n.nature == Nature::Commit && n.site.is_some() && n.run == 0 && !n.armed && !n.skipped;
        (0..).zip(&self.nodes).find(|(n, node)| executes(node) && !waited[*n as usize]).map(|(n, _)| n)
    }

    /// The steps that happen in the process which `maker` makes, in the order in which it runs them.
    pub fn site_of(&self, maker: NodeId) -> impl Iterator<Item = NodeId> {
        (0..).zip(&self.nodes).filter(move |(_, n)| n.site == Some(maker)).map(|(i, _)| i)
    }

    /// The file and line where the node is written.
    pub fn place(&self, node: &Node) -> String {
        let file = self.files.get(usize::from(node.origin.file)).map_or("", String::as_str);
        format!("{file}:{}", node.origin.line)
    }
}
