//! Text with references in it.

use super::{Cursor, Reference, SyntaxError, reference};

/// A string of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// Nothing to resolve.
    Literal(Box<str>),
    /// One reference and nothing else: it keeps its type.
    Reference(Box<Reference>),
    /// Text and references in turn, which become one string.
    Parts(Vec<Part>),
}

/// A piece of [`Template::Parts`].
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text as it is.
    Text(Box<str>),
    /// A value, written into the text.
    Reference(Reference),
}

impl Template {
    /// Reads a text. Spans are byte ranges in it.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        if !text.contains("${") {
            return Ok(Self::Literal(text.into()));
        }
        let mut cursor = Cursor::new(text, 0);
        let mut parts = Vec::new();
        let mut literal = String::new();
        loop {
            literal.push_str(cursor.take(|c| c != '$'));
            if cursor.eat("$${") {
                literal.push_str("${");
            } else if cursor.rest().starts_with("${") {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Reference(braced(&mut cursor)?));
            } else if cursor.eat("$") {
                literal.push('$');
            } else {
                break;
            }
        }
        if parts.is_empty() {
            return Ok(Self::Literal(literal.into()));
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(match <[Part; 1]>::try_from(parts) {
            Ok([Part::Reference(reference)]) => Self::Reference(Box::new(reference)),
            Ok(parts) => Self::Parts(parts.into()),
            Err(parts) => Self::Parts(parts),
        })
    }

    /// Calls `f` with every reference, from left to right.
    pub fn references<'a>(&'a self, f: &mut impl FnMut(&'a Reference)) {
        match self {
            Self::Literal(_) => {}
            Self::Reference(reference) => f(reference),
            Self::Parts(parts) => {
                for part in parts {
                    if let Part::Reference(reference) = part {
                        f(reference);
                    }
                }
            }
        }
    }
}

/// Reads `${reference}`; the cursor stands before the `$`.
pub(super) fn braced(cursor: &mut Cursor<'_>) -> Result<Reference, SyntaxError> {
    let start = cursor.at;
    cursor.at += 2;
    cursor.spaces();
    if cursor.peek() == Some('}') {
        cursor.at += 1;
        let help = "name what to put here, such as `${params.name}`; for a literal `${` write `$${`".to_owned();
        return Err(SyntaxError {
            span: cursor.since(start),
            message: "an empty reference".to_owned(),
            help: Some(help),
        });
    }
    let reference = reference::read(cursor)?;
    cursor.spaces();
    if cursor.eat("}") {
        return Ok(reference);
    }
    let Some(next) = cursor.peek() else {
        let help = "close it with `}`; for a literal `${` write `$${`".to_owned();
        return Err(SyntaxError {
            span: cursor.since(start),
            message: "this reference is never closed".to_owned(),
            help: Some(help),
        });
    };
    Err(cursor.error_here(
        format!("expected `}}`, found `{next}`"),
        Some("only a reference can stand in `${…}`; operators are for `if`"),
    ))
}
