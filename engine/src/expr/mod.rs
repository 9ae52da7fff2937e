//! References (`${params.id}`), text with references in it, and the conditions of `if`.
//!
//! A reference names a parameter, a step's output, what `for_each` binds, or an output of the run that a plan opens. A text that is one
//! reference and nothing else keeps the reference's type; otherwise the parts become one string. `$${` is a literal `${`.
//!
//! Every part carries its byte range in the text it was read from. `Display` prints what reads back as the same thing.

mod condition;
mod print;
mod reference;
mod template;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use template::{Part, Template};

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::diag::Span;

/// What is wrong with an expression, and where in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Byte range in the text.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What to write instead, if that is known.
    pub help: Option<String>,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SyntaxError {}

/// `params.id`, `spec.hooks.createRuntime`, `veth["a"].name`, `each.key`, `run.pid`.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The first name: `params`, `each`, `run`, or a step's id.
    pub root: Box<str>,
    /// What follows, outermost first.
    pub path: Vec<Segment>,
    /// The whole reference, without `${` and `}`.
    pub span: Span,
    /// The first name alone.
    pub root_span: Span,
}

/// One step of a [`Reference`]'s path.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Which entry.
    pub kind: SegmentKind,
    /// Where, its dot or brackets included.
    pub span: Span,
}

/// How a [`Segment`] picks an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentKind {
    /// `.name`: a field.
    Field(Box<str>),
    /// `["name"]`: a map's key, or a field whose name has other characters.
    Key(Box<str>),
    /// `[2]`: a list's entry, counted from 0.
    Index(u32),
}

/// A condition.
#[derive(Clone, Debug)]
pub struct Condition {
    /// What it is.
    pub kind: ConditionKind,
    /// Where it is.
    pub span: Span,
}

/// What a [`Condition`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum ConditionKind {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// `12`, `-3`
    Int(i64),
    /// `'text'`, `"text"`
    Str(Box<str>),
    /// A reference, with or without `${…}`.
    Reference(Reference),
    /// `! x`
    Not(Box<Condition>),
    /// `x == y`
    Equal(Box<Condition>, Box<Condition>),
    /// `x != y`
    NotEqual(Box<Condition>, Box<Condition>),
    /// `x && y`
    And(Box<Condition>, Box<Condition>),
    /// `x || y`
    Or(Box<Condition>, Box<Condition>),
}

/// How deep parentheses and `!` may be nested.
const MAX_DEPTH: usize = 64;

impl Reference {
    /// Reads a bare reference, such as `init.pid`, which is the whole text.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut cursor = Cursor::new(text, 0);
        cursor.spaces();
        let reference = reference::read(&mut cursor)?;
        cursor.spaces();
        match cursor.peek() {
            None => Ok(reference),
            Some(_) => Err(cursor.error_here("a reference ends here, and more follows", None)),
        }
    }
}

impl Condition {
    /// Reads the text of an `if`.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        condition::parse(text)
    }

    /// Calls `f` with every reference, from left to right.
    pub fn references<'a>(&'a self, f: &mut impl FnMut(&'a Reference)) {
        match &self.kind {
            ConditionKind::Reference(reference) => f(reference),
            ConditionKind::Not(inner) => inner.references(f),
            ConditionKind::Equal(a, b)
            | ConditionKind::NotEqual(a, b)
            | ConditionKind::And(a, b)
            | ConditionKind::Or(a, b) => {
                a.references(f);
                b.references(f);
            }
            ConditionKind::Null | ConditionKind::Bool(_) | ConditionKind::Int(_) | ConditionKind::Str(_) => {}
        }
    }
}

/// Equal are references that name the same, wherever they stand.
impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        self.root == other.root && self.path.iter().map(|s| &s.kind).eq(other.path.iter().map(|s| &s.kind))
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// A place in a text that is being read.
#[derive(Clone)]
struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    fn new(text: &'t str, at: usize) -> Self {
        Self { text, at }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Takes characters while they fit.
    fn take(&mut self, fits: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn since(&self, start: usize) -> Span {
        Span::new(start, self.at)
    }

    /// The next character, or nothing at the end.
    fn here(&self) -> Span {
        Span::new(self.at, self.at + self.peek().map_or(0, char::len_utf8))
    }

    fn error_here(&self, message: impl Into<String>, help: Option<&str>) -> SyntaxError {
        SyntaxError { span: self.here(), message: message.into(), help: help.map(str::to_owned) }
    }
}

/// A name in a reference: a letter or `_`, then letters, digits, `_` and `-`.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(in_identifier)
}

fn in_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}
