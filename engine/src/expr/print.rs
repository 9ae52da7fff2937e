//! Prints what reads back as the same thing.

use std::fmt::{self, Display, Formatter};

use super::template::{Part, Template};
use super::{Condition, ConditionKind, Reference, SegmentKind};

impl Display for Reference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.root)?;
        for segment in &self.path {
            match &segment.kind {
                SegmentKind::Field(name) => write!(f, ".{name}")?,
                SegmentKind::Key(key) => write!(f, "[{}]", Quoted(key))?,
                SegmentKind::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

impl Display for Template {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => escaped(f, text),
            Self::Reference(reference) => write!(f, "${{{reference}}}"),
            Self::Parts(parts) => parts.iter().try_for_each(|part| match part {
                Part::Text(text) => escaped(f, text),
                Part::Reference(reference) => write!(f, "${{{reference}}}"),
            }),
        }
    }
}

fn escaped(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str(&text.replace("${", "$${"))
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ConditionKind::Null => f.write_str("null"),
            ConditionKind::Bool(value) => write!(f, "{value}"),
            ConditionKind::Int(value) => write!(f, "{value}"),
            ConditionKind::Str(text) => Quoted(text).fmt(f),
            ConditionKind::Reference(reference) => reference.fmt(f),
            ConditionKind::Not(inner) => write!(f, "!{}", Tight(inner)),
            ConditionKind::Equal(a, b) => write!(f, "{} == {}", Tight(a), Tight(b)),
            ConditionKind::NotEqual(a, b) => write!(f, "{} != {}", Tight(a), Tight(b)),
            ConditionKind::And(a, b) => write!(f, "{} && {}", Left(a, "&&"), Tight(b)),
            ConditionKind::Or(a, b) => write!(f, "{} || {}", Left(a, "||"), Tight(b)),
        }
    }
}

/// In parentheses unless it binds tightest.
struct Tight<'a>(&'a Condition);

impl Display for Tight<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            ConditionKind::And(..) | ConditionKind::Or(..) | ConditionKind::Equal(..) | ConditionKind::NotEqual(..) => {
                write!(f, "({})", self.0)
            }
            _ => self.0.fmt(f),
        }
    }
}

/// The left side of a chain needs no parentheses if it is the same chain.
struct Left<'a>(&'a Condition, &'a str);

impl Display for Left<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (&self.0.kind, self.1) {
            (ConditionKind::And(..), "&&") | (ConditionKind::Or(..), "||") => self.0.fmt(f),
            _ => Tight(self.0).fmt(f),
        }
    }
}
