//! The types of the plan language: what a parameter, a step's field or a step's output may hold.
//!
//! Steps are written as plain Rust structs; [`Type::of`] reads their JSON Schema, so a field, its default and its
//! documentation are written once, in the struct.

use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

mod scalar;

pub(crate) use scalar::{GONE, NEW};
pub use scalar::{HostPath, Millis, Mode, Name, Size};

/// Marks a schema as one of the plan language's own types; the value is [`Type`]'s name for it.
const MARK: &str = "x-lifecycle-type";

/// A type of the plan language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Type {
    /// Whatever JSON can hold; accepted unchecked.
    Any,
    /// Text.
    String,
    /// Text into which a handle or a sensitive value may be written (see `value::Text`).
    Text,
    /// `[A-Za-z0-9_.+-]+`, at most 255 bytes: safe as a file name.
    Name,
    /// A path on the host; relative ones are resolved against the caller's working directory.
    Path,
    /// A signed 64-bit integer.
    Int,
    /// A number, fraction allowed.
    Float,
    /// `true` or `false`.
    Bool,
    /// Bytes: an integer, or text such as `64M` (powers of 1024).
    Size,
    /// A span of time, such as `5s` or `250ms`; kept in milliseconds.
    Duration,
    /// File permissions, quoted octal such as `"0755"`.
    Mode,
    /// One of a closed set of words.
    Enum(Arc<[String]>),
    /// A list of one type.
    List(Arc<Type>),
    /// A map from text to one type.
    Map(Arc<Type>),
    /// Named fields.
    Struct(Arc<Struct>),
    /// A value that only the kernel can tell: the typed outcome of another step's effect.
    Handle(Arc<str>),
    /// A value of the type, or a handle to one; the name is the handle's.
    Later(Arc<Type>, Arc<str>),
    /// A value of the type that is never shown and never journaled.
    Sensitive(Arc<Type>),
    /// A value of the type, or null.
    Nullable(Arc<Type>),
}

/// A structure's name, its fields in order, and whether other keys are accepted too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Struct {
    /// The Rust name, or the spec's.
    pub name: String,
    /// What it is, from the doc comment.
    pub about: String,
    /// The fields in the order of their declaration.
    pub fields: Vec<Field>,
    /// Unknown keys are accepted (OCI structures: "unknown properties must be ignored").
    pub open: bool,
}

/// A field of a [`Struct`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// The key in YAML and JSON.
    pub name: String,
    /// The doc comment.
    pub about: String,
    /// What it may hold.
    pub ty: Type,
    /// It has to be given.
    pub required: bool,
    /// What it is when it is not given.
    pub default: Option<Value>,
}

impl Struct {
    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }
}

impl Type {
    /// The type of a Rust type, read from its JSON Schema.
    pub fn of<T: JsonSchema>() -> Self {
        let mut generator = SchemaGenerator::default();
        let root = generator.subschema_for::<T>();
        let definitions = generator.take_definitions(true);
        Reader { definitions: &definitions }.read(root.as_value())
    }

    /// Strips [`Type::Nullable`].
    pub fn required(&self) -> &Self {
        match self {
            Self::Nullable(inner) => inner.required(),
            other => other,
        }
    }

    /// Whether null is a legal value.
    pub fn accepts_null(&self) -> bool {
        matches!(self, Self::Any | Self::Nullable(_))
    }

    /// The same type, null allowed.
    #[must_use]
    pub fn nullable(self) -> Self {
        if self.accepts_null() { self } else { Self::Nullable(Arc::new(self)) }
    }

    /// Whether a handle, or a structure that holds one, may be a value of this type.
    pub fn may_hold_handle(&self) -> bool {
        match self {
            Self::Handle(_) | Self::Later(..) | Self::Text | Self::Any => true,
            Self::List(t) | Self::Map(t) | Self::Sensitive(t) | Self::Nullable(t) => t.may_hold_handle(),
            Self::Struct(s) => s.fields.iter().any(|f| f.ty.may_hold_handle()),
            _ => false,
        }
    }

    /// Whether a value that has been made to fit `from` fits this type as it is, a relative path in it being absolute by then.
    pub fn is_met_by(&self, from: &Self) -> bool {
        match (self, from) {
            (Self::Nullable(want), Self::Nullable(have)) => want.is_met_by(have),
            (Self::Nullable(want), have) => want.is_met_by(have),
            (want, have) => want == have,
        }
    }

    /// Whether a value of type `from` may be put where `self` is wanted.
    #[expect(clippy::match_same_arms, reason = "a table, read line by line: the first that fits decides")]
    pub fn accepts(&self, from: &Self) -> bool {
        match (self, from) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Nullable(want), Self::Nullable(have)) => want.accepts(have),
            (Self::Nullable(want), have) => want.accepts(have),
            (_, Self::Nullable(_)) => false,
            (Self::Later(_, want), Self::Handle(have)) => want == have,
            (Self::Later(want, _), Self::Later(have, _)) => want.accepts(have),
            (Self::Later(want, _), have) => want.accepts(have),
            (Self::Handle(want), Self::Handle(have)) => want == have,
            (Self::Sensitive(want), Self::Sensitive(have)) => want.accepts(have),
            (Self::Sensitive(want), have) => want.accepts(have),
            (Self::Text, Self::Sensitive(have)) => have.is_scalar(),
            (Self::Text, Self::Handle(_)) => true,
            // Written as it would be within a longer text.
            (Self::Text, have) if have.is_scalar() => true,
            (Self::Text | Self::String, have) => have.is_text(),
            (Self::Path, have) => matches!(have, Self::String | Self::Path | Self::Name),
            (Self::Name, have) => matches!(have, Self::String | Self::Name | Self::Enum(_)),
            (Self::Size | Self::Float, Self::Int) | (Self::Int, Self::Size) => true,
            (Self::Enum(_) | Self::Size | Self::Duration | Self::Mode, Self::String) => true,
            (Self::Enum(want), Self::Enum(have)) => have.iter().all(|v| want.contains(v)),
            (Self::List(want), Self::List(have)) | (Self::Map(want), Self::Map(have)) => want.accepts(have),
            (Self::Map(want), Self::Struct(have)) => have.fields.iter().all(|f| want.accepts(&f.ty)),
            (Self::Struct(want), Self::Struct(have)) => want.name == have.name || want.takes_all_of(have),
            (want, have) => want == have,
        }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::String | Self::Text | Self::Name | Self::Path | Self::Enum(_) | Self::Mode)
    }

    /// A single value that text can hold (used where an expression is written inside a string).
    pub fn is_scalar(&self) -> bool {
        self.is_text() || matches!(self, Self::Int | Self::Float | Self::Bool | Self::Size | Self::Duration)
    }
}

impl Struct {
    fn takes_all_of(&self, have: &Self) -> bool {
        let fits = |f: &Field| match have.field(&f.name) {
            Some(given) => f.ty.accepts(&given.ty) || (!f.required && f.ty.clone().nullable().accepts(&given.ty)),
            None => !f.required,
        };
        self.fields.iter().all(fits) && (self.open || have.fields.iter().all(|f| self.field(&f.name).is_some()))
    }
}

/// How a message and the catalogue name the type.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::String => f.write_str("string"),
            Self::Text => f.write_str("text"),
            Self::Name => f.write_str("name"),
            Self::Path => f.write_str("path"),
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("number"),
            Self::Bool => f.write_str("bool"),
            Self::Size => f.write_str("size"),
            Self::Duration => f.write_str("duration"),
            Self::Mode => f.write_str("mode"),
            Self::Enum(words) => f.write_str(&words.join(" | ")),
            Self::List(t) => write!(f, "list({t})"),
            Self::Map(t) => write!(f, "map({t})"),
            Self::Struct(s) => f.write_str(&s.name),
            Self::Handle(name) => write!(f, "handle({name})"),
            Self::Later(t, _) => write!(f, "{t} or handle"),
            Self::Sensitive(t) => write!(f, "sensitive {t}"),
            Self::Nullable(t) => write!(f, "{t} or null"),
        }
    }
}

/// The schema of one of the plan language's own types, for hand-written `JsonSchema` implementations.
pub(crate) fn marked(name: &str, schema: Value) -> Schema {
    let mut object = match schema {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    object.insert(MARK.to_owned(), json!(name));
    Schema::from(object)
}

/// Converts JSON Schema as schemars writes it.
struct Reader<'a> {
    definitions: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn read(&self, schema: &Value) -> Type {
        let Some(object) = schema.as_object() else { return Type::Any };
        // A mark may stand beside the reference to what it is a mark of.
        if object.contains_key(MARK) {
            return self.named("", schema);
        }
        if let Some(name) = object.get("$ref").and_then(Value::as_str) {
            let name = name.rsplit('/').next().unwrap_or(name);
            return self.definitions.get(name).map_or(Type::Any, |s| self.named(name, s));
        }
        self.named(object.get("title").and_then(Value::as_str).unwrap_or(""), schema)
    }

    fn named(&self, name: &str, schema: &Value) -> Type {
        let Some(object) = schema.as_object() else { return Type::Any };
        if let Some(mark) = object.get(MARK).and_then(Value::as_str) {
            // schemars says "or null" of an inlined schema by adding to its list of types.
            let null = matches!(object.get("type"), Some(Value::Array(types)) if types.iter().any(|t| t == "null"));
            let ty = self.marked(mark, object);
            return if null { ty.nullable() } else { ty };
        }
        if let Some(words) = words(object) {
            return Type::Enum(words);
        }
        if let Some(options) = object.get("anyOf").or_else(|| object.get("oneOf")).and_then(Value::as_array) {
            return self.options(options);
        }
        match object.get("type") {
            Some(Value::Array(types)) => {
                let mut one = object.clone();
                let Some(first) = types.iter().find(|t| *t != "null") else { return Type::Any };
                if types.iter().filter(|t| *t != "null").count() > 1 {
                    return Type::Any;
                }
                one.insert("type".into(), first.clone());
                self.named(name, &Value::Object(one)).nullable()
            }
            Some(Value::String(kind)) => self.plain(name, kind, object),
            _ => Type::Any,
        }
    }

    fn plain(&self, name: &str, kind: &str, object: &Map<String, Value>) -> Type {
        match kind {
            "string" => Type::String,
            "integer" => Type::Int,
            "number" => Type::Float,
            "boolean" => Type::Bool,
            "array" => Type::List(Arc::new(object.get("items").map_or(Type::Any, |s| self.read(s)))),
            "object" => self.object(name, object),
            _ => Type::Any,
        }
    }

    fn object(&self, name: &str, object: &Map<String, Value>) -> Type {
        let Some(properties) = object.get("properties").and_then(Value::as_object) else {
            return match object.get("additionalProperties") {
                Some(values @ Value::Object(_)) => Type::Map(Arc::new(self.read(values))),
                _ => Type::Any,
            };
        };
        let required = object.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let fields = properties.iter().map(|(key, schema)| self.field(key, schema, &required)).collect();
        let open = object.get("additionalProperties") != Some(&Value::Bool(false));
        Type::Struct(Arc::new(Struct { name: name.to_owned(), about: about(object), fields, open }))
    }

    fn field(&self, key: &str, schema: &Value, required: &[Value]) -> Field {
        let object = schema.as_object();
        Field {
            name: key.to_owned(),
            about: object.map(about).unwrap_or_default(),
            ty: self.read(schema),
            required: required.iter().any(|r| r == key),
            default: object.and_then(|o| o.get("default")).cloned(),
        }
    }

    /// `anyOf`/`oneOf`: an optional type, or an enum whose words are documented one by one.
    fn options(&self, options: &[Value]) -> Type {
        let (null, some): (Vec<_>, Vec<_>) = options.iter().partition(|o| o.get("type") == Some(&json!("null")));
        let ty = match some.as_slice() {
            [one] => self.read(one),
            many => many
                .iter()
                .map(|o| o.as_object().and_then(words))
                .collect::<Option<Vec<_>>>()
                .map_or(Type::Any, |sets| Type::Enum(sets.iter().flat_map(|s| s.iter().cloned()).collect())),
        };
        if null.is_empty() { ty } else { ty.nullable() }
    }

    fn marked(&self, mark: &str, object: &Map<String, Value>) -> Type {
        let handle = || object.get("x-handle").and_then(Value::as_str).unwrap_or("value").into();
        let inner = || Arc::new(object.get("x-of").map_or(Type::Any, |s| self.read(s)));
        match mark {
            "text" => Type::Text,
            "name" => Type::Name,
            "path" => Type::Path,
            "size" => Type::Size,
            "duration" => Type::Duration,
            "mode" => Type::Mode,
            "later" => Type::Later(inner(), handle()),
            "sensitive" => Type::Sensitive(inner()),
            "handle" => Type::Handle(handle()),
            _ => Type::Any,
        }
    }
}

fn about(object: &Map<String, Value>) -> String {
    object.get("description").and_then(Value::as_str).unwrap_or("").to_owned()
}

fn words(object: &Map<String, Value>) -> Option<Arc<[String]>> {
    if let Some(word) = object.get("const").and_then(Value::as_str) {
        return Some(Arc::from([word.to_owned()]));
    }
    let words = object.get("enum")?.as_array()?;
    words.iter().map(|w| w.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    /// A link.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Link {
        /// Its name.
        name: Name,
        #[serde(default)]
        mtu: Option<u32>,
        #[serde(default = "up")]
        up: bool,
        #[serde(default)]
        kind: Kind,
        addresses: Vec<String>,
        quota: Size,
    }

    #[derive(Serialize, Deserialize, JsonSchema, Default)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        /// Both ends.
        #[default]
        Veth,
        /// A switch.
        Bridge,
    }

    fn up() -> bool {
        true
    }

    #[test]
    fn a_struct_becomes_a_type_with_its_docs_and_defaults() {
        let Type::Struct(link) = Type::of::<Link>() else { panic!("not a struct") };
        assert_eq!(link.name, "Link");
        assert_eq!(link.about, "A link.");
        assert!(!link.open);
        let field = |n: &str| link.field(n).expect("declared");
        assert_eq!(field("name").ty, Type::Name);
        assert_eq!(field("name").about, "Its name.");
        assert!(field("name").required);
        assert_eq!(field("mtu").ty, Type::Nullable(Arc::new(Type::Int)));
        assert!(!field("mtu").required);
        assert_eq!(field("up").default, Some(json!(true)));
        assert_eq!(field("kind").ty.to_string(), "veth | bridge");
        assert_eq!(field("addresses").ty.to_string(), "list(string)");
        assert_eq!(field("quota").ty, Type::Size);
    }

    #[test]
    fn nullable_is_accepted_only_where_null_is() {
        let int = Type::Int;
        assert!(int.clone().nullable().accepts(&int));
        assert!(!int.accepts(&int.clone().nullable()));
    }

    #[test]
    fn a_handle_fits_only_its_own_kind_or_text() {
        let pid = Type::Handle("process".into());
        assert!(pid.accepts(&pid));
        assert!(!pid.accepts(&Type::Handle("netns".into())));
        assert!(Type::Text.accepts(&pid));
        assert!(!Type::String.accepts(&pid));
    }
}
