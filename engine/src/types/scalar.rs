//! The plan language's own scalars, parsed once where they enter.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::marked;

/// A word that is safe as a file name: `[A-Za-z0-9_.+-]+`, 1 to 255 bytes, neither `.` nor `..`, and none that stands for a directory that is
/// being made or removed. What derives from it has to fit into a file name, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// What the names of directories begin with that are being made into a run's, or removed.
pub(crate) const NEW: &str = ".new-";
pub(crate) const GONE: &str = ".gone-";

impl Name {
    /// The longest name, in bytes: NAME_MAX.
    pub const MAX: usize = 255;

    /// Checks and keeps the text; the error says which byte is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a name cannot be empty".into());
        }
        if text.len() > Self::MAX {
            return Err(format!("a name has at most {} bytes, this one has {}", Self::MAX, text.len()));
        }
        if matches!(text, "." | "..") || [NEW, GONE].iter().any(|prefix| text.starts_with(prefix)) {
            return Err(format!("{text:?} means something else already"));
        }
        match text.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.+-".contains(*c)) {
            None => Ok(Self(text.to_owned())),
            Some(c) => Err(format!("a name holds letters, digits and `_ . + -`, not {c:?}")),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path on the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostPath(pub PathBuf);

impl std::ops::Deref for HostPath {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Bytes. Text may end in `K`, `M`, `G` or `T` (powers of 1024, an `i` or `B` after it is accepted).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Size(pub u64);

impl Size {
    /// Reads `65536`, `64K`, `1.5G`, `64MiB`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a size: write bytes, or a number with K, M, G or T, such as \"64M\"");
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let shift = match unit.trim_end_matches('B').trim_end_matches('i').to_ascii_uppercase().as_str() {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(bad()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(1 << shift).map(Self).ok_or_else(|| format!("{text:?} does not fit in 64 bits"));
        }
        let number: f64 = number.parse().map_err(|_| bad())?;
        Ok(Self((number * (1u64 << shift) as f64) as u64))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A span of time in milliseconds. Text is a number with `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// Reads `250ms`, `5s`, `1.5m`, `2h`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a duration: write a number with ms, s, m or h, such as \"5s\"");
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, unit) = text.split_at(split);
        let factor = match unit {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            _ => return Err(bad()),
        };
        let number: f64 = number.parse().map_err(|_| bad())?;
        Ok(Self((number * factor) as u64))
    }

    /// The same span for the standard library.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0s"),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// File permissions, `0` to `07777`. In YAML they are quoted octal: a bare `0755` is a decimal to some parsers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Mode {
    /// Reads `0755`, `755`, `0o755`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        match u32::from_str_radix(digits, 8) {
            Ok(mode) if mode <= 0o7777 && !digits.starts_with('+') => Ok(Self(mode)),
            _ => Err(format!("{text:?} is not a file mode: write it as quoted octal, such as \"0755\"")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Accepts text through `parse`, and integers where `number` allows them.
struct Scalar<T> {
    what: &'static str,
    text: fn(&str) -> Result<T, String>,
    number: Option<fn(u64) -> T>,
}

impl<T> Visitor<'_> for Scalar<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, n: u64) -> Result<T, E> {
        self.number.map(|make| make(n)).ok_or_else(|| E::invalid_type(de::Unexpected::Unsigned(n), &self))
    }
    fn visit_i64<E: de::Error>(self, n: i64) -> Result<T, E> {
        match (self.number, u64::try_from(n)) {
            (Some(make), Ok(n)) => Ok(make(n)),
            _ => Err(E::invalid_type(de::Unexpected::Signed(n), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_str(Scalar { what: "a name", text: Self::parse, number: None })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Scalar { what: "a size, such as \"64M\"", text: Self::parse, number: Some(Size) })
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Scalar { what: "a duration, such as \"5s\"", text: Self::parse, number: Some(Millis) })
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Scalar {
            what: "a file mode in quoted octal, such as \"0755\"",
            text: Self::parse,
            number: None,
        })
    }
}

macro_rules! schema {
    ($($ty:ident $name:literal $schema:tt)*) => {$(
        impl JsonSchema for $ty {
            fn inline_schema() -> bool { true }
            fn schema_name() -> Cow<'static, str> { $name.into() }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                marked($name, json_schema!($schema).to_value())
            }
        }
    )*};
}

schema! {
    Name "name" { "type": "string", "pattern": "^[A-Za-z0-9_.+-]{1,255}$" }
    HostPath "path" { "type": "string" }
    Size "size" { "type": ["string", "integer"], "pattern": "^[0-9.]+[KMGT]?i?B?$" }
    Millis "duration" { "type": ["string", "integer"], "pattern": "^[0-9.]+(ms|s|m|h)$" }
    Mode "mode" { "type": "string", "pattern": "^(0o)?[0-7]{1,4}$" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_durations_and_modes_read_as_people_write_them() {
        assert_eq!(Size::parse("64M"), Ok(Size(64 << 20)));
        assert_eq!(Size::parse("1.5G"), Ok(Size(3 << 29)));
        assert_eq!(Size::parse("64MiB"), Ok(Size(64 << 20)));
        assert!(Size::parse("64X").is_err());
        assert!(Size::parse("99999999999T").is_err());
        assert_eq!(Millis::parse("5s"), Ok(Millis(5000)));
        assert!(Millis::parse("5").is_err());
        assert_eq!(Mode::parse("0755"), Ok(Mode(0o755)));
        assert!(Mode::parse("0899").is_err());
        assert!(Mode::parse("77777").is_err());
        assert_eq!(Size(64 << 20).to_string(), "64M");
        assert_eq!(Millis(90_000).to_string(), "90s");
    }

    #[test]
    fn a_bare_number_is_no_mode() {
        assert!(serde_json::from_str::<Mode>("755").is_err());
        assert_eq!(serde_json::from_str::<Mode>("\"0755\"").expect("octal"), Mode(0o755));
    }

    #[test]
    fn a_name_is_safe_as_a_file_name() {
        for bad in ["", ".", "..", "a/b", "a b", "a\n", "ä", ".new-1-a", ".gone-1-a", &"a".repeat(256)] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["web-1_a.b+c", "_x", "-a", "+", ".hidden", "...", &"a".repeat(255)] {
            assert!(Name::parse(good).is_ok(), "{good:?}");
        }
    }
}
