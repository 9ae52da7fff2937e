//! Values that a plan passes between steps: handles to what is not known yet, and values that nobody may see.

mod coding;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, DeserializeOwned};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

pub use self::coding::{decode, encode, escaped, for_others, unescaped};
use crate::types::marked;

/// The key that marks a handle in JSON.
pub const HANDLE: &str = "$handle";
/// The key that marks a sensitive value in JSON.
pub const SENSITIVE: &str = "$sensitive";
/// The key that marks text with handles or sensitive parts in JSON.
pub const TEXT: &str = "$text";
/// What is printed in place of a sensitive value.
pub const REDACTED: &str = "‹sensitive›";

/// Names one field of the outcome of one effect: what it will hold is known once that effect has happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HandleRef {
    /// The address of the step that has the effect, such as `server/init`.
    pub step: Arc<str>,
    /// Which of the step's effects, counted from 0.
    pub effect: u32,
    /// The field of the outcome.
    pub field: Cow<'static, str>,
}

impl fmt::Display for HandleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.field.is_empty() { "" } else { "." };
        write!(f, "‹{}{dot}{}›", self.step, self.field)
    }
}

/// What a handle may stand for. The name is how the type checker tells handles apart.
pub trait Outcome: DeserializeOwned + Serialize {
    /// Such as `process`, `netns`, `address`.
    const NAME: &'static str;
}

impl Outcome for String {
    const NAME: &'static str = "string";
}

impl Outcome for i64 {
    const NAME: &'static str = "int";
}

/// A typed handle: resolved at the moment of apply.
pub struct Handle<T> {
    /// What it names.
    pub at: HandleRef,
    of: PhantomData<fn() -> T>,
}

impl<T> Handle<T> {
    /// A handle to `at`.
    pub fn new(at: HandleRef) -> Self {
        Self { at, of: PhantomData }
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self::new(self.at.clone())
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)
    }
}

impl<T> fmt::Display for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)
    }
}

impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<T> Serialize for Handle<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Marked { handle: Cow::Borrowed(&self.at) }.serialize(s)
    }
}

impl<'de, T> Deserialize<'de> for Handle<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Marked::deserialize(d).map(|m| Self::new(m.handle.into_owned()))
    }
}

#[derive(Serialize, Deserialize)]
struct Marked<'a> {
    #[serde(rename = "$handle")]
    handle: Cow<'a, HandleRef>,
}

impl<T: Outcome> JsonSchema for Handle<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("handle({})", T::NAME).into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        marked("handle", json!({ "x-handle": T::NAME, "type": "string" }))
    }
}

/// A value that is known now, or a handle to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Later<T> {
    /// Known while planning.
    Now(T),
    /// Known once the effect has happened.
    Handle(Handle<T>),
}

impl<T: fmt::Display> fmt::Display for Later<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(v) => v.fmt(f),
            Self::Handle(h) => h.fmt(f),
        }
    }
}

impl<T: Serialize> Serialize for Later<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Now(v) => v.serialize(s),
            Self::Handle(h) => h.serialize(s),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Later<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let marked = |value: Value| match handle(&value) {
            Some(_) => decode(value).map(Self::Handle),
            None => decode(value).map(Self::Now),
        };
        coding::either(d, marked, |value| T::deserialize(value).map(Self::Now))
    }
}

impl<T: JsonSchema + Outcome> JsonSchema for Later<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("later({})", T::NAME).into()
    }
    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        let of = g.subschema_for::<T>().to_value();
        let mut schema = of.clone();
        if let Some(map) = schema.as_object_mut() {
            map.insert("x-of".into(), of);
            map.insert("x-handle".into(), json!(T::NAME));
        }
        marked("later", schema)
    }
}

/// A value that is never shown and never journaled. `Debug` and `Display` print [`REDACTED`]; its JSON form is marked, and [`redact`] strips
/// it at every border.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Sensitive<T>(pub T);

impl<T> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<T> fmt::Display for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<T: Serialize> Serialize for Sensitive<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        // A structure, not a map: its key is ours.
        let mut marked = s.serialize_struct("Sensitive", 1)?;
        marked.serialize_field(SENSITIVE, &self.0)?;
        marked.end()
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Sensitive<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let marked = |value: Value| {
            let inner = match value {
                Value::Object(mut map) if map.len() == 1 && map.contains_key(SENSITIVE) => {
                    map.remove(SENSITIVE).unwrap_or_default()
                }
                plain => plain,
            };
            decode(inner).map(Self)
        };
        coding::either(d, marked, |value| T::deserialize(value).map(Self))
    }
}

impl<T: JsonSchema> JsonSchema for Sensitive<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("sensitive({})", T::schema_name()).into()
    }
    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        let of = g.subschema_for::<T>().to_value();
        let mut schema = of.clone();
        if let Some(map) = schema.as_object_mut() {
            map.insert("x-of".into(), of);
        }
        marked("sensitive", schema)
    }
}

/// Text that may hold handles and sensitive parts: arguments, addresses, file contents.
#[derive(Clone, Debug, PartialEq)]
pub struct Text(pub Vec<Part>);

/// A piece of [`Text`].
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// As it stands.
    Literal(String),
    /// Filled in at the moment of apply.
    Handle(HandleRef),
    /// Known, and never shown.
    Sensitive(String),
}

impl Text {
    /// The text, if nothing in it is a handle.
    pub fn known(&self) -> Option<String> {
        self.fill(|_| None)
    }

    /// The text with each handle replaced by what `resolve` gives; `None` as soon as one has no value.
    pub fn fill(&self, mut resolve: impl FnMut(&HandleRef) -> Option<String>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) | Part::Sensitive(text) => out.push_str(text),
                Part::Handle(at) => out.push_str(&resolve(at)?),
            }
        }
        Some(out)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(vec![Part::Literal(text.to_owned())])
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(vec![Part::Literal(text)])
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(text),
            Part::Handle(at) => at.fmt(f),
            Part::Sensitive(_) => f.write_str(REDACTED),
        })
    }
}

/// Plain text stays a JSON string; anything else is `{"$text": [parts]}`, a sensitive part wrapped so that [`redact`] finds it.
impl Serialize for Text {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if let [Part::Literal(text)] = self.0.as_slice() {
            return s.serialize_str(text);
        }
        let mut marked = s.serialize_struct("Text", 1)?;
        marked.serialize_field(TEXT, &self.0)?;
        marked.end()
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Literal(text) => s.serialize_str(text),
            Self::Handle(at) => Marked { handle: Cow::Borrowed(at) }.serialize(s),
            Self::Sensitive(text) => Sensitive(text).serialize(s),
        }
    }
}

impl Part {
    fn from_value(value: Value) -> Result<Self, serde_json::Error> {
        if handle(&value).is_some() {
            return decode::<Handle<String>>(value).map(|h| Self::Handle(h.at));
        }
        if value.get(SENSITIVE).is_some() {
            return decode::<Sensitive<Value>>(value).map(|s| Self::Sensitive(plain(&s.0)));
        }
        if value.is_array() || value.is_object() {
            return Err(de::Error::custom("a part of text is a word, a number, a handle or a sensitive value"));
        }
        Ok(Self::Literal(plain(&value)))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        coding::either(d, Self::of, |value| {
            if value.is_object() { Err(de::Error::custom("expected text, found a map")) } else { Self::of(value) }
        })
    }
}

impl Text {
    fn of(value: Value) -> Result<Self, serde_json::Error> {
        let parts = match value {
            Value::Object(mut map) if map.contains_key(TEXT) => match map.remove(TEXT) {
                Some(Value::Array(parts)) => parts,
                _ => return Err(de::Error::custom("text parts must be a list")),
            },
            value @ (Value::Array(_) | Value::Null) => {
                return Err(de::Error::custom(format!("expected text, found {value}")));
            }
            Value::Object(map) if !map.contains_key(HANDLE) && !map.contains_key(SENSITIVE) => {
                return Err(de::Error::custom("expected text, found a map"));
            }
            one => vec![one],
        };
        parts.into_iter().map(Part::from_value).collect::<Result<_, _>>().map(Self)
    }
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        marked("text", json!({ "type": ["string", "integer", "number", "boolean"] }))
    }
}

/// A scalar as text: a string without its quotes, anything else as JSON.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The handle that the value is, if it is one.
pub fn handle(value: &Value) -> Option<&Value> {
    let map = value.as_object()?;
    if map.len() == 1 { map.get(HANDLE) } else { None }
}

/// The handle that the value is, decoded.
pub fn handle_ref(value: &Value) -> Option<HandleRef> {
    handle(value).and_then(|at| HandleRef::deserialize(at).ok())
}

/// Calls `found` for every handle in the value, however deep.
pub fn each_handle(value: &Value, found: &mut dyn FnMut(HandleRef)) {
    match value {
        Value::Array(items) => items.iter().for_each(|v| each_handle(v, found)),
        Value::Object(map) => match handle_ref(value) {
            Some(at) => found(at),
            None => map.values().for_each(|v| each_handle(v, found)),
        },
        _ => {}
    }
}

/// Replaces every sensitive value, however deep, by [`REDACTED`].
pub fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(map) if map.contains_key(SENSITIVE) => *value = json!(REDACTED),
        Value::Object(map) => map.values_mut().for_each(redact),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid() -> HandleRef {
        HandleRef { step: "init".into(), effect: 0, field: "pid".into() }
    }

    #[test]
    fn text_round_trips_and_is_redacted() {
        let text = Text(vec![Part::Literal("pid=".into()), Part::Handle(pid()), Part::Sensitive("hunter2".into())]);
        let mut value = encode(&text).expect("json");
        assert_eq!(decode::<Text>(value.clone()).expect("text"), text);
        assert_eq!(text.to_string(), "pid=‹init.pid›‹sensitive›");
        redact(&mut value);
        assert!(!value.to_string().contains("hunter2"));
        let mut seen = Vec::new();
        each_handle(&value, &mut |at| seen.push(at));
        assert_eq!(seen, [pid()]);
    }

    #[test]
    fn a_sensitive_value_survives_json_but_not_redaction_or_debug() {
        let secret = Sensitive("hunter2".to_owned());
        let mut value = encode(&secret).expect("json");
        assert_eq!(decode::<Sensitive<String>>(value.clone()).expect("plain"), secret);
        assert_eq!(format!("{secret:?} {secret}"), "‹sensitive› ‹sensitive›");
        redact(&mut value);
        assert_eq!(value, json!(REDACTED));
    }
}
