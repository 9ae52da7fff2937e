//! A plan as it is written: the tree of a file read into the plan language's own terms, every part with its place.
//!
//! Reading is in two phases. This one knows the keys of the language and the syntax of references, conditions and types. What a step's `with`
//! may hold depends on its kind, and is checked when the plan is compiled.

mod read;
mod step;
mod text;
mod types;

#[cfg(test)]
mod tests;

pub use read::{literal, parse};
pub use types::{TypeSyntax, WORDS};

use std::time::Duration;

use crate::diag::{FileId, Span};
use crate::expr::{Condition, Template};

/// Something and its place in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct At<T> {
    /// What it is.
    pub value: T,
    /// Where it is.
    pub span: Span,
}

/// A word and its place.
pub type Word = At<Box<str>>;

/// A plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file.
    pub file: FileId,
    /// Its name, such as `oci/create`.
    pub name: Word,
    /// What it is for.
    pub about: Box<str>,
    /// Its parameters, in the file's order.
    pub params: Vec<Param>,
    /// Its steps, in the file's order.
    pub steps: Vec<Step>,
    /// What it gives to a plan that uses it.
    pub outputs: Vec<(Word, Arg)>,
    /// The steps whose exit code is the run's.
    pub main: Vec<Word>,
    /// The id of the run that it makes.
    pub run: Option<Arg>,
    /// The existing run that it works on.
    pub opens: Option<Opens>,
}

/// A parameter.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name.
    pub name: Word,
    /// What it may hold; `string` unless said otherwise.
    pub ty: At<TypeSyntax>,
    /// What it is when it is not given.
    pub default: Option<Arg>,
    /// Whether it has to be given. Without either word that follows from whether there is a default.
    pub required: bool,
    /// Whether its value may never be shown or journaled.
    pub sensitive: bool,
    /// What it is for.
    pub about: Box<str>,
}

/// A step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its id.
    pub id: Word,
    /// The kind, or `plan:` and a plan's name.
    pub uses: Word,
    /// The fields of its input.
    pub with: Vec<(Word, Arg)>,
    /// Steps that come first although nothing of theirs is used.
    pub needs: Vec<Word>,
    /// What only some steps have.
    pub extras: Option<Box<Extras>>,
}

/// What only some steps have.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Run only if this holds.
    pub condition: Option<At<Condition>>,
    /// Run once for each entry.
    pub for_each: Option<Arg>,
    /// The longest it may take.
    pub timeout: Option<At<Duration>>,
    /// How it is tried again.
    pub retry: Option<At<Retry>>,
    /// Its failure undoes it and nothing else.
    pub continue_on_error: Option<At<bool>>,
    /// The process in which it happens: a reference to the step that makes it.
    pub site: Option<Arg>,
}

/// How a step is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// How often, the first try not counted.
    pub count: u32,
    /// The wait before the first retry; doubled each time.
    pub backoff: Duration,
}

/// The existing run that a plan works on.
#[derive(Clone, Debug)]
pub struct Opens {
    /// Its id.
    pub run: Arg,
    /// The plan that made it; `${run.x}` are that plan's outputs.
    pub plan: Word,
    /// The plan reads that run's outputs and has a run of its own within it, so that several may go on side by side.
    pub beside: bool,
    /// The whole entry.
    pub span: Span,
}

/// A value as it is written, references and all.
#[derive(Clone, Debug, PartialEq)]
pub struct Arg {
    /// What it is.
    pub kind: ArgKind,
    /// Where it is.
    pub span: Span,
}

/// What an [`Arg`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum ArgKind {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Text. The spans of its references are places in the file.
    Text(Template),
    /// A list.
    List(Box<[Arg]>),
    /// A mapping.
    Map(Box<[(Word, Arg)]>),
}

impl Arg {
    /// Calls `f` with every reference in it.
    pub fn references<'a>(&'a self, f: &mut impl FnMut(&'a crate::expr::Reference)) {
        // Depth is bounded by the reader of YAML.
        match &self.kind {
            ArgKind::Text(template) => template.references(f),
            ArgKind::List(items) => items.iter().for_each(|item| item.references(f)),
            ArgKind::Map(entries) => entries.iter().for_each(|(_, value)| value.references(f)),
            _ => {}
        }
    }
}
