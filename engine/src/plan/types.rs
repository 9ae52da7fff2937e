//! The syntax of a parameter's type: a word, or `list(…)` and `map(…)` of one.

use std::fmt;

use crate::diag::{did_you_mean, listed};

/// A type as it is written. What a word means is decided when the plan is compiled, since the structures of the runtime spec come from the kinds
/// of steps that the program knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeSyntax {
    /// `string`, `path`, `Process`, …
    Word(Box<str>),
    /// `list(T)`
    List(Box<TypeSyntax>),
    /// `map(T)`, from text to T
    Map(Box<TypeSyntax>),
    /// `handle(NAME)`
    Handle(Box<str>),
}

/// The words that are not structures.
pub const WORDS: &[&str] =
    &["string", "text", "name", "int", "number", "bool", "path", "size", "duration", "mode", "any"];

/// How deep types may be nested.
const MAX_DEPTH: usize = 8;

impl TypeSyntax {
    /// Reads a type. The error is a message and a help.
    pub fn parse(text: &str) -> Result<Self, (String, Option<String>)> {
        Self::nested(text.trim(), 0)
    }

    fn nested(text: &str, depth: usize) -> Result<Self, (String, Option<String>)> {
        if depth == MAX_DEPTH {
            return Err((format!("a type nested deeper than {MAX_DEPTH} levels"), None));
        }
        let Some((word, rest)) = text.split_once('(') else {
            let ok = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return match text {
                _ if !ok => Err((format!("`{text}` is not a type"), Some(known()))),
                "list" | "map" => Err((format!("a {text} of what?"), Some(format!("write `{text}(string)`")))),
                word => Ok(Self::Word(word.into())),
            };
        };
        let Some(inner) = rest.strip_suffix(')') else {
            return Err((format!("`{text}` lacks its closing parenthesis"), None));
        };
        match word.trim() {
            "list" => Self::nested(inner.trim(), depth + 1).map(|inner| Self::List(Box::new(inner))),
            "map" => Self::nested(inner.trim(), depth + 1).map(|inner| Self::Map(Box::new(inner))),
            "handle" => Ok(Self::Handle(inner.trim().into())),
            other => {
                let help =
                    did_you_mean(other, ["list", "map", "handle"]).map(|word| format!("did you mean `{word}(…)`?"));
                Err((format!("`{other}(…)` is not a type"), help.or_else(|| Some(known()))))
            }
        }
    }
}

fn known() -> String {
    format!("types are {}, `list(T)`, `map(T)`, and the structures of the runtime spec", listed(WORDS.iter().copied()))
}

impl fmt::Display for TypeSyntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::List(inner) => write!(f, "list({inner})"),
            Self::Map(inner) => write!(f, "map({inner})"),
            Self::Handle(name) => write!(f, "handle({name})"),
        }
    }
}
