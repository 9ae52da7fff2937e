//! Inputs and conditions to values.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::expr::SegmentKind;
use crate::graph::{Condition, Input, Reference, Target, TextPart};
use crate::program::{self, truthy};
use crate::value::{HANDLE, Part, SENSITIVE, TEXT, Text, decode, each_handle, encode, escaped, handle_ref, plain};

/// Finds what references refer to. `None` for what could not be planned: that has been reported.
pub(super) trait Resolve {
    /// The value of a reference.
    fn resolve(&mut self, reference: &Reference) -> Option<Value>;
}

/// The value of an input.
pub(super) fn input(input_: &Input, names: &mut impl Resolve) -> Option<Value> {
    match input_ {
        Input::Value(value) => Some(value.clone()),
        Input::Reference(reference) => names.resolve(reference),
        Input::Text(parts) => text(parts, names),
        Input::List(items) => items.iter().map(|item| input(item, names)).collect::<Option<Vec<_>>>().map(Value::Array),
        Input::Map(entries) => {
            let entry =
                |(key, value): &(Box<str>, Input)| input(value, names).map(|value| (escaped(key).into_owned(), value));
            entries.iter().map(entry).collect::<Option<Map<_, _>>>().map(Value::Object)
        }
    }
}

/// Text stays a string if it is known and may be shown.
fn text(parts: &[TextPart], names: &mut impl Resolve) -> Option<Value> {
    let mut out: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            TextPart::Literal(text) => push(&mut out, Part::Literal(text.to_string())),
            TextPart::Reference(reference) => {
                let value = names.resolve(reference)?;
                if let Some(at) = handle_ref(&value) {
                    push(&mut out, Part::Handle(at));
                } else if value.get(TEXT).is_some() {
                    // Text that was put together elsewhere keeps its parts.
                    let inner: Text = decode(value).ok()?;
                    inner.0.into_iter().for_each(|part| push(&mut out, part));
                } else if let Some(inner) = value.get(SENSITIVE) {
                    push(&mut out, Part::Sensitive(plain(inner)));
                } else {
                    push(&mut out, Part::Literal(plain(&value)));
                }
            }
        }
    }
    if out.is_empty() {
        return Some(json!(""));
    }
    encode(&Text(out)).ok()
}

fn push(out: &mut Vec<Part>, part: Part) {
    match (out.last_mut(), part) {
        (Some(Part::Literal(before)), Part::Literal(text)) => before.push_str(&text),
        (_, part) => out.push(part),
    }
}

/// An input that refers to parameters only.
pub(super) fn of_parameters(input_: &Input, values: &[Value]) -> Option<Value> {
    struct Parameters<'a>(&'a [Value]);
    impl Resolve for Parameters<'_> {
        fn resolve(&mut self, reference: &Reference) -> Option<Value> {
            match reference.target {
                Target::Param(index) => walk(self.0.get(index as usize)?, &reference.path).ok().map(Cow::into_owned),
                _ => None,
            }
        }
    }
    input(input_, &mut Parameters(values))
}

/// A condition as far as it is known.
#[derive(Clone, Debug)]
pub(super) enum Decided {
    /// Known.
    Known(bool),
    /// It depends on handles.
    Later(program::Condition),
}

impl Decided {
    /// Both.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Known(false), _) | (_, Self::Known(false)) => Self::Known(false),
            (Self::Known(true), other) | (other, Self::Known(true)) => other,
            (Self::Later(a), Self::Later(b)) => Self::Later(program::Condition::And(Box::new(a), Box::new(b))),
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Known(true), _) | (_, Self::Known(true)) => Self::Known(true),
            (Self::Known(false), other) | (other, Self::Known(false)) => other,
            (Self::Later(a), Self::Later(b)) => Self::Later(program::Condition::Or(Box::new(a), Box::new(b))),
        }
    }

    fn not(self) -> Self {
        match self {
            Self::Known(known) => Self::Known(!known),
            Self::Later(inner) => Self::Later(program::Condition::Not(Box::new(inner))),
        }
    }
}

/// Decides a condition. What comes after a part that decides it already is not looked at, as in `x != null && x.y == 1`.
pub(super) fn condition(written: &Condition, names: &mut impl Resolve) -> Option<Decided> {
    Some(match written {
        Condition::Not(a) => condition(a, names)?.not(),
        Condition::And(a, b) => match condition(a, names)? {
            Decided::Known(false) => Decided::Known(false),
            left => left.and(condition(b, names)?),
        },
        Condition::Or(a, b) => match condition(a, names)? {
            Decided::Known(true) => Decided::Known(true),
            left => left.or(condition(b, names)?),
        },
        Condition::Value(a) => {
            let value = bare(input(a, names)?);
            if handle_ref(&value).is_some() {
                Decided::Later(program::Condition::Value(value))
            } else {
                Decided::Known(truthy(&value))
            }
        }
        Condition::Equal(a, b) => {
            let (a, b) = (bare(input(a, names)?), bare(input(b, names)?));
            if known(&a) && known(&b) {
                Decided::Known(equal(&a, &b))
            } else {
                Decided::Later(program::Condition::Equal(a, b))
            }
        }
        Condition::Differ(a, b) => {
            let (a, b) = (bare(input(a, names)?), bare(input(b, names)?));
            if known(&a) && known(&b) {
                Decided::Known(!equal(&a, &b))
            } else {
                Decided::Later(program::Condition::Differ(a, b))
            }
        }
    })
}

/// A sensitive value may decide, since what it decides is not the value.
fn bare(value: Value) -> Value {
    match value {
        Value::Object(mut map) if map.len() == 1 && map.contains_key(SENSITIVE) => {
            map.remove(SENSITIVE).unwrap_or_default()
        }
        other => other,
    }
}

pub(super) fn known(value: &Value) -> bool {
    let mut known = true;
    each_handle(value, &mut |_| known = false);
    known
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        // 1 and 1.0 are one number.
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

/// Follows a path. What is not there is null, as is everything below null; an index past the end is an error: how many entries there are.
pub(super) fn walk<'v>(value: &'v Value, path: &[SegmentKind]) -> Result<Cow<'v, Value>, usize> {
    let mut at = value;
    for (depth, segment) in path.iter().enumerate() {
        if let Some(inner) = at.get(SENSITIVE) {
            // What is below a sensitive value is sensitive.
            let inner = walk(inner, &path[depth..])?.into_owned();
            return Ok(Cow::Owned(if inner.is_null() { inner } else { json!({ SENSITIVE: inner }) }));
        }
        let next = match (segment, at) {
            (SegmentKind::Field(name) | SegmentKind::Key(name), Value::Object(map)) if !map.contains_key(HANDLE) => {
                map.get(&*escaped(name))
            }
            (SegmentKind::Index(index), Value::Array(items)) => Some(items.get(*index as usize).ok_or(items.len())?),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return Ok(Cow::Owned(Value::Null)),
        }
    }
    Ok(Cow::Borrowed(at))
}
