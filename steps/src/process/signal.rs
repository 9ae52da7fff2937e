//! Signals by name, as people and stop commands write them.

use std::borrow::Cow;
use std::fmt;

use nix::sys::signal::Signal as Named;
use rustix::process::Signal;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A signal: `SIGTERM`, `TERM`, or its number as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalName(pub Signal);

impl SignalName {
    /// Asks to end.
    pub const TERM: Self = Self(Signal::TERM);
    /// Ends.
    pub const KILL: Self = Self(Signal::KILL);

    /// Reads `SIGTERM`, `term`, `15`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        let number = text.parse().ok().or_else(|| full.parse::<Named>().ok().map(|s| s as i32));
        let signal = number.filter(|n| (1..=31).contains(n)).and_then(Signal::from_named_raw);
        signal
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no signal: write its name or number, such as SIGTERM or 15"))
    }
}

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Named::try_from(self.0.as_raw()) {
            Ok(named) => f.write_str(named.as_str()),
            Err(_) => write!(f, "signal {}", self.0.as_raw()),
        }
    }
}

impl Serialize for SignalName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SignalName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(d)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for SignalName {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "signal".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_people_write_them() {
        for text in ["SIGTERM", "TERM", "term", "sigterm", "15"] {
            assert_eq!(SignalName::parse(text), Ok(SignalName::TERM), "{text}");
        }
        for text in ["", "SIG", "0", "-9", "99", "TERMX"] {
            assert!(SignalName::parse(text).is_err(), "{text}");
        }
        assert_eq!(SignalName::KILL.to_string(), "SIGKILL");
    }
}
