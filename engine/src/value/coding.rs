//! Between typed data and the values that a plan passes on. There, a handle, a sensitive value and text with such parts are maps of one marked
//! key; a map whose keys somebody chose (an annotation's name, a parameter's) must never be taken for one of them. So a key of such a map that
//! begins with `$` is written with one more, and read with one less; and a mark is one only where [`decode`] reads it, never in a text from
//! outside.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor, value::StringDeserializer};
use serde::ser::{self, Serialize, Serializer};
use serde_json::value::Serializer as Plain;
use serde_json::{Error, Map, Value};

/// What a type that may be marked asks a deserializer for; only [`decode`]'s answers it.
const MARKED: &str = "$marked";

/// A key that somebody chose, as it stands in a value.
pub fn escaped(key: &str) -> Cow<'_, str> {
    if key.starts_with('$') { format!("${key}").into() } else { key.into() }
}

/// A key of a value as it was chosen.
pub fn unescaped(key: &str) -> &str {
    key.strip_prefix('$').filter(|rest| rest.starts_with('$')).unwrap_or(key)
}

/// A value whose handles are resolved, for others: every key as it was chosen.
pub fn for_others(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(for_others).collect(),
        Value::Object(map) => {
            map.into_iter().map(|(key, value)| (unescaped(&key).to_owned(), for_others(value))).collect()
        }
        scalar => scalar,
    }
}

/// The value of typed data. An error: it is no JSON, such as a map whose keys are not text.
pub fn encode(data: &(impl Serialize + ?Sized)) -> Result<Value, Error> {
    data.serialize(Encoder)
}

/// Typed data of a value.
pub fn decode<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Decoder(value))
}

/// Reads a type that a mark may stand for: `marked` from a value, `outside` from anything else.
pub(super) fn either<'de, D: Deserializer<'de>, T>(
    d: D,
    marked: fn(Value) -> Result<T, Error>,
    outside: fn(Value) -> Result<T, Error>,
) -> Result<T, D::Error> {
    d.deserialize_newtype_struct(MARKED, Either { marked, outside, of: PhantomData })
}

struct Either<T> {
    marked: fn(Value) -> Result<T, Error>,
    outside: fn(Value) -> Result<T, Error>,
    of: PhantomData<T>,
}

impl<'de, T> Visitor<'de> for Either<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<T, D::Error> {
        (self.marked)(de::Deserialize::deserialize(d)?).map_err(de::Error::custom)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<T, D::Error> {
        (self.outside)(de::Deserialize::deserialize(d)?).map_err(de::Error::custom)
    }
}

/// serde_json's, but for the keys of maps.
struct Encoder;

/// A map or a structure; of an enum's variant, within its name.
struct Entries {
    variant: Option<&'static str>,
    key: Option<String>,
    all: Map<String, Value>,
}

/// A list; of an enum's variant, within its name.
struct Items {
    variant: Option<&'static str>,
    items: Vec<Value>,
}

fn within(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        Some(name) => Value::Object(Map::from_iter([(name.to_owned(), value)])),
        None => value,
    }
}

impl Entries {
    fn new(variant: Option<&'static str>) -> Self {
        Self { variant, key: None, all: Map::new() }
    }

    /// A field's name is the program's own, and a mark is such a name.
    fn field(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.all.insert(name.to_owned(), encode(value)?);
        Ok(())
    }

    fn ended(self) -> Value {
        within(self.variant, Value::Object(self.all))
    }
}

impl Items {
    fn new(variant: Option<&'static str>, length: usize) -> Self {
        Self { variant, items: Vec::with_capacity(length) }
    }

    fn item(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.items.push(encode(value)?);
        Ok(())
    }

    fn ended(self) -> Value {
        within(self.variant, Value::Array(self.items))
    }
}

macro_rules! scalars {
    ($($name:ident: $type:ty),*) => {
        $(fn $name(self, value: $type) -> Result<Value, Error> { Plain.$name(value) })*
    };
}

impl Serializer for Encoder {
    type Ok = Value;
    type Error = Error;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Entries;

    scalars!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128, serialize_f32: f32, serialize_f64: f64, serialize_char: char, serialize_str: &str,
        serialize_bytes: &[u8], serialize_unit_struct: &'static str
    );

    fn serialize_unit(self) -> Result<Value, Error> {
        Ok(Value::Null)
    }

    fn serialize_none(self) -> Result<Value, Error> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Error> {
        encode(value)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value, Error> {
        Ok(Value::from(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Value, Error> {
        encode(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, Error> {
        encode(value).map(|value| within(Some(variant), value))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Items, Error> {
        Ok(Items::new(None, length.unwrap_or(0)))
    }

    fn serialize_tuple(self, length: usize) -> Result<Items, Error> {
        Ok(Items::new(None, length))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Items, Error> {
        Ok(Items::new(None, length))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Items, Error> {
        Ok(Items::new(Some(variant), length))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Entries, Error> {
        Ok(Entries::new(None))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Entries, Error> {
        Ok(Entries::new(None))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Entries, Error> {
        Ok(Entries::new(Some(variant)))
    }
}

impl ser::SerializeMap for Entries {
    type Ok = Value;
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key = Some(match key.serialize(Plain)? {
            Value::String(key) => escaped(&key).into_owned(),
            key @ (Value::Number(_) | Value::Bool(_)) => key.to_string(),
            _ => return Err(ser::Error::custom("the keys of a map have to be text")),
        });
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let key = self.key.take().ok_or_else(|| ser::Error::custom("a value without its key"))?;
        self.all.insert(key, encode(value)?);
        Ok(())
    }

    fn end(self) -> Result<Value, Error> {
        Ok(self.ended())
    }
}

macro_rules! collects {
    ($($trait:ident for $type:ident: $add:ident($($name:ident: $key:ty)?) by $by:ident),*) => {$(
        impl ser::$trait for $type {
            type Ok = Value;
            type Error = Error;

            fn $add<T: Serialize + ?Sized>(&mut self, $($name: $key,)? value: &T) -> Result<(), Error> {
                self.$by($($name,)? value)
            }

            fn end(self) -> Result<Value, Error> {
                Ok(self.ended())
            }
        }
    )*};
}

collects!(
    SerializeSeq for Items: serialize_element() by item,
    SerializeTuple for Items: serialize_element() by item,
    SerializeTupleStruct for Items: serialize_field() by item,
    SerializeTupleVariant for Items: serialize_field() by item,
    SerializeStruct for Entries: serialize_field(name: &'static str) by field,
    SerializeStructVariant for Entries: serialize_field(name: &'static str) by field
);

/// serde_json's, but for the keys of maps, and for what may be marked.
struct Decoder(Value);

impl IntoDeserializer<'_, Error> for Decoder {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Decoder {
    fn map<'de, V: Visitor<'de>>(map: Map<String, Value>, key: fn(String) -> String, v: V) -> Result<V::Value, Error> {
        let mut entries = MapDeserializer::new(map.into_iter().map(|(name, value)| (key(name), Self(value))));
        let visited = v.visit_map(&mut entries)?;
        entries.end()?;
        Ok(visited)
    }
}

fn chosen(key: String) -> String {
    if key.starts_with("$$") { key[1..].to_owned() } else { key }
}

impl<'de> Deserializer<'de> for Decoder {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Self));
                let visited = v.visit_seq(&mut items)?;
                items.end()?;
                Ok(visited)
            }
            Value::Object(map) => Self::map(map, chosen, v),
            scalar => scalar.deserialize_any(v),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        if self.0.is_null() { v.visit_none() } else { v.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, v: V) -> Result<V::Value, Error> {
        if name == MARKED { v.visit_some(self.0) } else { v.visit_newtype_struct(self) }
    }

    /// A field's name is the program's own: what is escaped is none.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        v: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(map) => Self::map(map, |key| key, v),
            _ => self.deserialize_any(v),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        v: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(word) => StringDeserializer::<Error>::new(word).deserialize_enum(name, variants, v),
            Value::Object(map) if map.len() == 1 => {
                let entries = MapDeserializer::new(map.into_iter().map(|(name, value)| (name, Self(value))));
                v.visit_enum(MapAccessDeserializer::new(entries))
            }
            other => other.deserialize_enum(name, variants, v),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::super::{Handle, HandleRef, Later, Part, Sensitive, Text, each_handle, redact};
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    struct Data {
        annotations: BTreeMap<String, String>,
        free: Value,
        token: Sensitive<String>,
        text: Text,
        pid: Later<i64>,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    enum Kind {
        None,
        One(u8),
        Two(u8, BTreeMap<String, u8>),
        Three { a: Option<bool>, b: Text },
    }

    fn names() -> BTreeMap<String, String> {
        ["$sensitive", "$handle", "$text", "$", "$$x", "a$b", ""].map(|name| (name.to_owned(), "x".to_owned())).into()
    }

    fn data(kind: Kind) -> Data {
        let at = HandleRef { step: "init".into(), effect: 0, field: "pid".into() };
        Data {
            annotations: names(),
            free: json!({ "$handle": { "step": "a", "effect": 0, "field": "" }, "b": [{ "$sensitive": 1 }] }),
            token: Sensitive("hunter2".to_owned()),
            text: Text(vec![Part::Literal("pid ".into()), Part::Handle(at.clone()), Part::Sensitive("s3".into())]),
            pid: Later::Handle(Handle::new(at)),
            kind,
        }
    }

    #[test]
    fn typed_data_round_trips_and_what_somebody_chose_is_no_mark() {
        let few = BTreeMap::from([("$text".to_owned(), 7)]);
        for kind in [Kind::None, Kind::One(7), Kind::Two(1, few), Kind::Three { a: None, b: "$text".into() }] {
            let data = data(kind);
            let mut value = encode(&data).expect("a value");
            assert_eq!(decode::<Data>(value.clone()).expect("data"), data);
            let mut handles = 0;
            each_handle(&value, &mut |at| {
                assert_eq!(&*at.step, "init");
                handles += 1;
            });
            assert_eq!(handles, 2, "{value}");
            redact(&mut value);
            let shown = value.to_string();
            assert!(!shown.contains("hunter2") && !shown.contains("s3"), "{shown}");
            let left: Data = decode(value).expect("redacted data");
            assert_eq!((left.annotations, left.free), (data.annotations, data.free));
        }
    }

    #[test]
    fn a_mark_in_a_text_from_outside_is_data() {
        let secret = serde_json::from_str::<Sensitive<String>>(r#"{ "$sensitive": "x" }"#);
        assert!(secret.is_err(), "{secret:?}");
        let text = serde_json::from_str::<Text>(r#"{ "$text": ["x"] }"#);
        assert!(text.is_err(), "{text:?}");
        let later = serde_json::from_str::<Later<i64>>(r#"{ "$handle": { "step": "a", "effect": 0, "field": "" } }"#);
        assert!(later.is_err(), "{later:?}");
        let chosen = encode(&json!({ "$handle": { "step": "a", "effect": 0, "field": "" } })).expect("a value");
        assert!(decode::<Later<i64>>(chosen.clone()).is_err() && decode::<Handle<i64>>(chosen.clone()).is_err());
        assert!(decode::<Text>(chosen).is_err());
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        let wrong = BTreeMap::from([(vec![1], 2)]);
        assert!(encode(&wrong).is_err());
    }
}
