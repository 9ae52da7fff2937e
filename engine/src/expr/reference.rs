//! `root.field["key"][0]`

use super::{Cursor, Reference, Segment, SegmentKind, SyntaxError, in_identifier, is_identifier};

/// Reads a reference as far as it goes.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Reference, SyntaxError> {
    let start = cursor.at;
    let root = identifier(cursor)?;
    let root_span = cursor.since(start);
    let mut path = Vec::new();
    loop {
        let from = cursor.at;
        let kind = if cursor.eat(".") {
            SegmentKind::Field(identifier(cursor)?)
        } else if cursor.eat("[") {
            bracket(cursor)?
        } else {
            break;
        };
        path.push(Segment { kind, span: cursor.since(from) });
    }
    Ok(Reference { root, path, span: cursor.since(start), root_span })
}

fn identifier(cursor: &mut Cursor<'_>) -> Result<Box<str>, SyntaxError> {
    let start = cursor.at;
    let name = cursor.take(in_identifier);
    if is_identifier(name) {
        return Ok(name.into());
    }
    if name.is_empty() {
        let what = cursor.peek().map_or("the end".to_owned(), |c| format!("`{c}`"));
        return Err(cursor.error_here(
            format!("expected a name, found {what}"),
            Some("a reference is written `${step.field}` or `${params.name}`"),
        ));
    }
    let help = format!("write it as a key: [\"{name}\"]");
    Err(SyntaxError {
        span: cursor.since(start),
        message: format!("`{name}` is not a name: it does not start with a letter"),
        help: Some(help),
    })
}

fn bracket(cursor: &mut Cursor<'_>) -> Result<SegmentKind, SyntaxError> {
    cursor.spaces();
    let start = cursor.at;
    let kind = match cursor.peek() {
        Some('"' | '\'') => SegmentKind::Key(quoted(cursor)?),
        Some(c) if c.is_ascii_digit() => {
            let digits = cursor.take(|c| c.is_ascii_digit());
            let index = digits.parse().map_err(|_| SyntaxError {
                span: cursor.since(start),
                message: format!("`{digits}` is too large for an index"),
                help: None,
            })?;
            SegmentKind::Index(index)
        }
        _ => return Err(cursor.error_here("expected a key in quotes or an index", Some("write [\"key\"] or [0]"))),
    };
    cursor.spaces();
    if cursor.eat("]") { Ok(kind) } else { Err(cursor.error_here("expected `]`", None)) }
}

/// Reads a text in single or double quotes; `\\`, `\"` and `\'` stand for themselves, `\n` and `\t` for line break and tab.
pub(super) fn quoted(cursor: &mut Cursor<'_>) -> Result<Box<str>, SyntaxError> {
    let start = cursor.at;
    let quote = if cursor.eat("\"") { '"' } else { '\'' };
    if quote == '\'' {
        cursor.at += 1;
    }
    let mut out = String::new();
    loop {
        out.push_str(cursor.take(|c| c != quote && c != '\\'));
        let escape = cursor.at;
        let Some(c) = cursor.peek() else {
            return Err(SyntaxError {
                span: cursor.since(start),
                message: "this quote is never closed".to_owned(),
                help: None,
            });
        };
        cursor.at += 1;
        if c == quote {
            return Ok(out.into());
        }
        let resolved = match cursor.peek() {
            Some(c @ ('\\' | '"' | '\'')) => c,
            Some('n') => '\n',
            Some('t') => '\t',
            other => {
                cursor.at += other.map_or(0, char::len_utf8);
                let message = "no such escape".to_owned();
                return Err(SyntaxError {
                    span: cursor.since(escape),
                    message,
                    help: Some(r#"known are \\ \" \' \n \t"#.to_owned()),
                });
            }
        };
        cursor.at += 1;
        out.push(resolved);
    }
}
