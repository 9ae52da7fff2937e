//! D-Bus values and their types: D-Bus Specification, "Type System".

/// A value of any type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `y`
    Byte(u8),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Str(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a…`: the type of the items, and the items.
    Array(String, Vec<Value>),
    /// `(…)`
    Struct(Vec<Value>),
    /// `{…}`, in arrays only.
    Entry(Box<Value>, Box<Value>),
    /// `v`
    Variant(Box<Value>),
}

impl Value {
    /// The value's type.
    pub fn signature(&self) -> String {
        let plain = match self {
            Self::Bool(_) => "b",
            Self::Byte(_) => "y",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Double(_) => "d",
            Self::Str(_) => "s",
            Self::Path(_) => "o",
            Self::Signature(_) => "g",
            Self::Variant(_) => "v",
            Self::Array(of, _) => return format!("a{of}"),
            Self::Struct(items) => return format!("({})", items.iter().map(Self::signature).collect::<String>()),
            Self::Entry(key, value) => return format!("{{{}{}}}", key.signature(), value.signature()),
        };
        plain.to_owned()
    }

    /// A text.
    pub fn str(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    /// The value in a variant.
    pub fn variant(self) -> Self {
        Self::Variant(Box::new(self))
    }

    /// What a text, a path or a signature says; through a variant.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            Self::Variant(inner) => inner.as_str(),
            _ => None,
        }
    }

    /// The bytes of an array of bytes; through a variant.
    pub fn as_bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Array(of, items) if of == "y" => {
                items.iter().map(|item| if let Self::Byte(byte) = item { Some(*byte) } else { None }).collect()
            }
            Self::Variant(inner) => inner.as_bytes(),
            _ => None,
        }
    }
}

/// How deep types may nest: the specification allows 32 arrays and 32 structures.
pub(super) const DEEPEST: usize = 32;

/// Splits the first complete type off a signature. `None`: it is not well formed.
pub(super) fn first_type(signature: &str) -> Option<(&str, &str)> {
    let length = type_length(signature.as_bytes(), DEEPEST)?;
    Some(signature.split_at(length))
}

/// Whether the text is exactly one complete type.
pub(super) fn is_type(signature: &str) -> bool {
    first_type(signature).is_some_and(|(_, rest)| rest.is_empty())
}

fn type_length(signature: &[u8], depth: usize) -> Option<usize> {
    let depth = depth.checked_sub(1)?;
    match *signature.first()? {
        b'b' | b'y' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g' | b'h' | b'v' => Some(1),
        b'a' if signature.get(1) == Some(&b'{') => {
            let key = type_length(signature.get(2..)?, depth)?;
            let value = type_length(signature.get(2 + key..)?, depth)?;
            (key == 1 && signature.get(2 + key + value) == Some(&b'}')).then_some(3 + key + value)
        }
        b'a' => Some(1 + type_length(signature.get(1..)?, depth)?),
        b'(' => {
            let mut at = 1;
            while *signature.get(at)? != b')' {
                at += type_length(&signature[at..], depth)?;
            }
            (at > 1).then_some(at + 1)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_split_into_complete_types() {
        assert_eq!(first_type("a(sv)u"), Some(("a(sv)", "u")));
        assert_eq!(first_type("a{sv}"), Some(("a{sv}", "")));
        assert_eq!(first_type("aay"), Some(("aay", "")));
        for broken in ["", "a", "(", "()", "(s", "a{vs", "a{(s)v}", "{sv}", "z"] {
            assert_eq!(first_type(broken), None, "{broken}");
        }
        assert_eq!(first_type(&"a".repeat(200)), None);
        assert!(!is_type("su"));
    }
}
