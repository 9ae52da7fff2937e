//! Values that were computed, against their types: what a compiler could not know is checked here, and relative paths are made absolute.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::facts::Facts;
use crate::types::{Millis, Mode, Name, Size, Type};
use crate::value::{HANDLE, SENSITIVE, TEXT, unescaped};

/// A value that does not fit: where in it, and what is wrong.
pub(super) struct Misfit {
    /// Such as `mounts.3.destination`; empty for the whole.
    pub(super) path: String,
    /// A sentence.
    pub(super) message: String,
}

/// Checks a value, and resolves the paths in it against the caller's working directory.
pub(super) fn settle(value: &mut Value, ty: &Type, facts: &mut Facts) -> Result<(), Misfit> {
    if let Value::Object(map) = value {
        if map.contains_key(HANDLE) || map.contains_key(TEXT) {
            return Ok(());
        }
        if let Some(inner) = map.get_mut(SENSITIVE) {
            return settle(inner, ty, facts);
        }
    }
    match ty {
        Type::Nullable(inner) if !value.is_null() => settle(value, inner, facts),
        Type::Later(inner, _) | Type::Sensitive(inner) => settle(value, inner, facts),
        Type::List(item) => match value {
            Value::Array(items) => items
                .iter_mut()
                .enumerate()
                .try_for_each(|(n, value)| within(&n.to_string(), settle(value, item, facts))),
            _ => wrong(value, ty),
        },
        Type::Map(item) => match value {
            Value::Object(map) => {
                map.iter_mut().try_for_each(|(key, value)| within(unescaped(key), settle(value, item, facts)))
            }
            _ => wrong(value, ty),
        },
        Type::Struct(structure) => match value {
            Value::Object(map) => structure.fields.iter().try_for_each(|field| match map.get_mut(&field.name) {
                Some(value) => within(&field.name, settle(value, &field.ty, facts)),
                None => Ok(()),
            }),
            _ => wrong(value, ty),
        },
        _ => scalar(value, ty, facts),
    }
}

fn scalar(value: &mut Value, ty: &Type, facts: &mut Facts) -> Result<(), Misfit> {
    let parsed = match (ty, &*value) {
        (Type::Path, Value::String(text)) => {
            if let Some(path) = absolute(text, facts) {
                *value = Value::String(path);
            }
            return Ok(());
        }
        (Type::Name, Value::String(text)) => Name::parse(text).map(drop),
        (Type::Size, Value::String(text)) => Size::parse(text).map(drop),
        (Type::Duration, Value::String(text)) => Millis::parse(text).map(drop),
        (Type::Mode, Value::String(text)) => Mode::parse(text).map(drop),
        (Type::Enum(words), Value::String(text)) if !words.contains(text) => {
            Err(format!("{text:?} is not one of {}", words.join(", ")))
        }
        (Type::Any | Type::Nullable(_) | Type::Handle(_) | Type::Text, _)
        | (Type::String | Type::Enum(_), Value::String(_))
        | (Type::Bool, Value::Bool(_))
        | (Type::Float | Type::Size | Type::Duration, Value::Number(_)) => return Ok(()),
        (Type::Int, Value::Number(number)) if !number.is_f64() => return Ok(()),
        _ => return wrong(value, ty),
    };
    parsed.map_err(|message| Misfit { path: String::new(), message })
}

fn wrong(value: &Value, ty: &Type) -> Result<(), Misfit> {
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    };
    Err(Misfit { path: String::new(), message: format!("{ty} is wanted, and this is {is}") })
}

fn within(part: &str, result: Result<(), Misfit>) -> Result<(), Misfit> {
    result.map_err(|misfit| {
        let path = if misfit.path.is_empty() { part.to_owned() } else { format!("{part}.{}", misfit.path) };
        Misfit { path, ..misfit }
    })
}

/// A relative path below the caller's working directory, without `.` parts. `..` stays: what it means is the kernel's to say, since a part before
/// it may be a link.
fn absolute(text: &str, facts: &mut Facts) -> Option<String> {
    let path = Path::new(text);
    if path.is_absolute() {
        return None;
    }
    let cwd: PathBuf = facts.get::<String>("cwd")?.into();
    let joined: PathBuf = cwd.join(path).components().collect();
    joined.to_str().map(str::to_owned)
}
