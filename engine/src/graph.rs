//! A compiled plan: checked, its references resolved, its steps ordered. Static: no parameter is bound, nothing of the host is known.
//!
//! A plan that is used several times is checked once and kept once, as a [`Unit`]; every use of it is a [`Scope`]. A step in a scope is an
//! *item*: 12 bytes. Items that use a kind are *leaves*; items that use a plan stand for the leaves of its scope.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diag::{Place, Sources, Span};
use crate::expr::SegmentKind;
use crate::step::StepKind;
use crate::types::{Struct, Type};

pub mod stored;

/// No item, no scope.
pub const NONE: u32 = u32::MAX;

/// A compiled plan.
#[derive(Debug)]
pub struct Graph<'r> {
    /// The texts, for messages of later stages.
    pub sources: Sources,
    /// Plans, each after those that it uses; the last is the plan that was compiled.
    pub units: Vec<Unit<'r>>,
    /// Uses of plans; the first is the plan that was compiled, a nested one comes after the one around it.
    pub scopes: Vec<Scope>,
    /// Steps in scopes.
    pub items: Vec<Item>,
    /// The leaves, each after all that it waits for; where that leaves a choice, in the order of the files.
    pub order: Vec<u32>,
    /// What leaves wait for.
    pub edges: Edges,
}

/// A plan, checked.
#[derive(Debug)]
pub struct Unit<'r> {
    /// Its name.
    pub name: Arc<str>,
    /// What it is for.
    pub about: Box<str>,
    /// Its file.
    pub file: crate::diag::FileId,
    /// Its parameters.
    pub params: Vec<Param>,
    /// Its steps, in the file's order.
    pub steps: Vec<Step<'r>>,
    /// What it gives to others.
    pub outputs: Vec<Output>,
    /// The type of all outputs together.
    pub output: Type,
    /// The steps whose exit code is the run's.
    pub main: Vec<u32>,
    /// The id of the run that it makes.
    pub run: Option<Input>,
    /// The run that it works on.
    pub opens: Option<Opens>,
}

/// A parameter of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Param {
    /// Its name.
    pub name: Box<str>,
    /// What it may hold, `sensitive` and null included.
    pub ty: Type,
    /// What it is when it is not given.
    pub default: Option<Value>,
    /// It has to be given.
    pub required: bool,
    /// What it is for.
    pub about: Box<str>,
    /// Where it is declared.
    pub span: Span,
}

/// An output of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Output {
    /// Its name.
    pub name: Box<str>,
    /// What it is.
    pub value: Input,
}

/// The run that a plan opens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Opens {
    /// Its id.
    pub run: Input,
    /// The plan that made it: an index into [`Graph::units`].
    pub unit: u32,
    /// The plan has a run of its own within that one.
    pub beside: bool,
    /// Where that is written.
    pub span: Span,
}

/// A step of a plan.
#[derive(Debug)]
pub struct Step<'r> {
    /// Its id.
    pub id: Arc<str>,
    /// Where the id is written.
    pub span: Span,
    /// What it uses.
    pub uses: Uses<'r>,
    /// The structure of its kind's input; `None` where it has no fields, and for a step that uses a plan.
    pub input: Option<Arc<Struct>>,
    /// Its input: by field of `input`, or by parameter of the plan.
    pub with: Box<[Field]>,
    /// Steps that come first.
    pub needs: Box<[(u32, Span)]>,
    /// What only some steps have.
    pub extras: Option<Box<Extras>>,
    /// The type of `${id}` for other steps of the plan.
    pub output: Type,
}

/// What a step uses.
#[derive(Clone, Copy)]
pub enum Uses<'r> {
    /// A kind.
    Kind(&'r StepKind),
    /// A plan: an index into [`Graph::units`].
    Plan(u32),
    /// Nothing that exists: reported.
    Unknown,
}

impl fmt::Debug for Uses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => f.write_str(kind.kind),
            Self::Plan(unit) => write!(f, "plan {unit}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// A field of a step's input.
#[derive(Debug)]
pub struct Field {
    /// Which: an index into the fields of the step's `input`, or into the parameters of the plan.
    pub index: u32,
    /// The value has been checked for good: whatever it refers to has been made to fit the same type before.
    pub settled: bool,
    /// What it is.
    pub value: Input,
    /// Where the value is written.
    pub span: Span,
}

/// What only some steps have.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Extras {
    /// Run only if this holds.
    pub condition: Option<Condition>,
    /// Run once for each entry.
    pub for_each: Option<(Input, Span)>,
    /// The longest it may take.
    pub timeout: Option<Duration>,
    /// How often it is tried again.
    pub retries: u32,
    /// The wait before the first retry.
    pub backoff: Duration,
    /// Its failure undoes it and nothing else.
    pub continue_on_error: bool,
    /// The step that makes the process in which it happens.
    pub site: Option<(Reference, Span)>,
}

/// A value with references in it. What has none is folded into one [`Input::Value`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Input {
    /// Known.
    Value(Value),
    /// A reference, with its type.
    Reference(Box<Reference>),
    /// Text with references.
    Text(Box<[TextPart]>),
    /// A list with references.
    List(Box<[Input]>),
    /// A mapping with references.
    Map(Box<[(Box<str>, Input)]>),
}

/// A piece of [`Input::Text`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TextPart {
    /// As it stands.
    Literal(Box<str>),
    /// A reference.
    Reference(Reference),
}

/// A reference within a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reference {
    /// What it refers to.
    pub target: Target,
    /// What of it.
    pub path: Box<[SegmentKind]>,
    /// Where it is written.
    pub span: Span,
}

/// What a reference refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// A parameter of the plan.
    Param(u32),
    /// A step of the plan.
    Step(u32),
    /// The key of the entry of `for_each`.
    Key,
    /// The value of the entry of `for_each`.
    Entry,
    /// The outputs of the run that the plan opens.
    Run,
}

/// A condition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Condition {
    /// True unless it is null, false, zero or empty.
    Value(Input),
    /// `!a`
    Not(Box<Condition>),
    /// `a && b`
    And(Box<Condition>, Box<Condition>),
    /// `a || b`
    Or(Box<Condition>, Box<Condition>),
    /// `a == b`
    Equal(Input, Input),
    /// `a != b`
    Differ(Input, Input),
}

/// A use of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scope {
    /// The plan: an index into [`Graph::units`].
    pub unit: u32,
    /// The scope around it; [`NONE`] for the first.
    pub parent: u32,
    /// The item that uses it; [`NONE`] for the first.
    pub item: u32,
    /// Its first item; the others follow, in the order of the plan's steps.
    pub first: u32,
    /// The scope whose run it opens, where that is part of the same program.
    pub opened: u32,
}

/// A step in a scope.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Item {
    /// The scope.
    pub scope: u32,
    /// The scope that it stands for; [`NONE`] for a leaf.
    pub child: u32,
    /// The leaf that makes the process in which it happens; [`NONE`] for the host.
    pub site: u32,
    /// It belongs to the program but is released by another run.
    pub armed: bool,
}

/// Why one leaf waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Why {
    /// It uses the other's output.
    Reference,
    /// It says so.
    Needs,
    /// It happens in the process that the other makes.
    Site,
    /// The kinds come in this order.
    Kind,
    /// It works on the run that the other belongs to.
    Opens,
    /// It is armed, and the other releases it.
    Arms,
    /// It waits for what the program does that the other starts.
    Program,
    /// It replaces the process in which the other happens. Only there to find what cannot make progress.
    Exec,
    /// It is one-way, and the other can be taken back.
    Commit,
}

/// An edge: `to` waits for `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The leaf that waits.
    pub to: u32,
    /// The leaf that comes first.
    pub from: u32,
    /// Why.
    pub why: Why,
    /// Where that is written; the waiting step's own place if it is not written anywhere.
    pub place: Place,
}

/// Edges by the leaf that waits.
#[derive(Debug, Default)]
pub struct Edges {
    /// For each item, where its edges start in `all`; one more at the end.
    starts: Vec<u32>,
    all: Vec<Edge>,
}

impl Edges {
    /// Sorts the edges and drops second ones between the same leaves.
    #[must_use]
    pub fn new(items: usize, mut all: Vec<Edge>) -> Self {
        all.sort_unstable();
        all.dedup_by_key(|edge| (edge.to, edge.from));
        all.retain(|edge| edge.to != edge.from || edge.why != Why::Kind);
        all.shrink_to_fit();
        let mut starts = vec![0; items + 1];
        for edge in &all {
            starts[edge.to as usize + 1] += 1;
        }
        for item in 0..items {
            starts[item + 1] += starts[item];
        }
        Self { starts, all }
    }

    /// What a leaf waits for.
    #[must_use]
    pub fn of(&self, item: u32) -> &[Edge] {
        &self.all[self.starts[item as usize] as usize..self.starts[item as usize + 1] as usize]
    }

    /// Every edge.
    #[must_use]
    pub fn all(&self) -> &[Edge] {
        &self.all
    }

    /// Every edge, to add to.
    #[must_use]
    pub fn into_all(self) -> Vec<Edge> {
        self.all
    }
}

impl<'r> Graph<'r> {
    /// The plan that was compiled.
    #[must_use]
    pub fn root(&self) -> &Unit<'r> {
        &self.units[self.scopes[0].unit as usize]
    }

    /// The plan of a scope.
    #[must_use]
    pub fn unit(&self, scope: u32) -> &Unit<'r> {
        &self.units[self.scopes[scope as usize].unit as usize]
    }

    /// The step of an item.
    #[must_use]
    pub fn step(&self, item: u32) -> &Step<'r> {
        let scope = self.items[item as usize].scope;
        let local = item - self.scopes[scope as usize].first;
        &self.unit(scope).steps[local as usize]
    }

    /// Where an item's step is written.
    #[must_use]
    pub fn place(&self, item: u32) -> Place {
        Place::new(self.unit(self.items[item as usize].scope).file, self.step(item).span)
    }

    /// The kind of a leaf.
    #[must_use]
    pub fn kind(&self, item: u32) -> Option<&'r StepKind> {
        match self.step(item).uses {
            Uses::Kind(kind) => Some(kind),
            _ => None,
        }
    }

    /// Why a leaf takes root, if it does, as far as what is written says so.
    #[must_use]
    pub fn takes_root(&self, item: u32) -> Option<&'static str> {
        let (step, kind) = (self.step(item), self.kind(item)?);
        let names = step.input.as_ref()?;
        let mut with = std::collections::BTreeMap::new();
        for field in &step.with {
            // What is not known is given, and says nothing.
            let value = if let Input::Value(value) = &field.value { value } else { &Value::Null };
            with.insert(names.fields[field.index as usize].name.as_str(), value);
        }
        kind.takes_root(&with)
    }

    /// The address of an item, such as `server/init`; the keys of `for_each` are not known yet.
    #[must_use]
    pub fn address(&self, item: u32) -> String {
        let mut ids = Vec::new();
        let mut at = item;
        while at != NONE {
            ids.push(&*self.step(at).id);
            at = self.scopes[self.items[at as usize].scope as usize].item;
        }
        ids.reverse();
        ids.join("/")
    }
}

impl Input {
    /// Calls `f` with every reference in it.
    pub fn references<'a>(&'a self, f: &mut dyn FnMut(&'a Reference)) {
        match self {
            Self::Value(_) => {}
            Self::Reference(reference) => f(reference),
            Self::Text(parts) => {
                for part in parts {
                    if let TextPart::Reference(reference) = part {
                        f(reference);
                    }
                }
            }
            Self::List(items) => items.iter().for_each(|item| item.references(f)),
            Self::Map(entries) => entries.iter().for_each(|(_, value)| value.references(f)),
        }
    }
}

impl Condition {
    /// Calls `f` with every reference in it.
    pub fn references<'a>(&'a self, f: &mut dyn FnMut(&'a Reference)) {
        match self {
            Self::Value(input) => input.references(f),
            Self::Not(a) => a.references(f),
            Self::And(a, b) | Self::Or(a, b) => {
                a.references(f);
                b.references(f);
            }
            Self::Equal(a, b) | Self::Differ(a, b) => {
                a.references(f);
                b.references(f);
            }
        }
    }
}

impl Step<'_> {
    /// Calls `f` with every reference that decides about or goes into the step, its site's aside.
    pub fn references<'a>(&'a self, f: &mut dyn FnMut(&'a Reference)) {
        self.deciding(f);
        self.with.iter().for_each(|field| field.value.references(f));
    }

    /// Calls `f` with every reference in `if` and `for_each`.
    pub fn deciding<'a>(&'a self, f: &mut dyn FnMut(&'a Reference)) {
        let Some(extras) = &self.extras else { return };
        if let Some((input, _)) = &extras.for_each {
            input.references(f);
        }
        if let Some(condition) = &extras.condition {
            condition.references(f);
        }
    }
}
