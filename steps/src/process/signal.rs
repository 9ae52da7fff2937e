//! Signals by name, as people and stop commands write them.

use std::borrow::Cow;
use std::fmt;

use nix::sys::signal::Signal as Named;
use rustix::process::Signal;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::sys::signal::{REALTIME, realtime};

/// A signal: `SIGTERM`, `TERM`, `SIGRTMIN+3`, or its number as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalName(pub Signal);

impl SignalName {
    /// Asks to end.
    pub const TERM: Self = Self(Signal::TERM);
    /// Ends.
    pub const KILL: Self = Self(Signal::KILL);

    /// Reads `SIGTERM`, `term`, `15`, `SIGRTMIN+3`, `37`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = || match name {
            // Other names of the same numbers.
            "CLD" => Some(Named::SIGCHLD as i32),
            "POLL" => Some(Named::SIGIO as i32),
            _ => format!("SIG{name}").parse::<Named>().ok().map(|s| s as i32).or_else(|| realtime_number(name)),
        };
        let number = text.parse().ok().filter(|_| !text.starts_with('+')).or_else(named);
        let signal = number.and_then(|n| Signal::from_named_raw(n).or_else(|| realtime(n)));
        signal.map(Self).ok_or_else(|| {
            format!("unknown signal {text:?}: write its name or number, such as SIGTERM, 15 or SIGRTMIN+3")
        })
    }
}

/// `RTMIN`, `RTMIN+3`, `RTMAX-1`.
fn realtime_number(name: &str) -> Option<i32> {
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text[1..].parse::<u8>().ok().map(i32::from) };
    let (first, last) = (*REALTIME.start(), *REALTIME.end());
    let number = if let Some(more) = name.strip_prefix("RTMIN").filter(|m| m.is_empty() || m.starts_with('+')) {
        first + offset(more)?
    } else {
        last - offset(name.strip_prefix("RTMAX").filter(|m| m.is_empty() || m.starts_with('-'))?)?
    };
    REALTIME.contains(&number).then_some(number)
}

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Named::try_from(self.0.as_raw()) {
            Ok(named) => f.write_str(named.as_str()),
            // Whatever is no named one is a realtime one.
            Err(_) => match self.0.as_raw() - REALTIME.start() {
                0 => f.write_str("SIGRTMIN"),
                offset => write!(f, "SIGRTMIN+{offset}"),
            },
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
        let wrong =
            ["", "SIG", "0", "-9", "+9", "99", "TERMX", "32", "33", "65", "RTMIN-1", "RTMIN+", "RTMIN+31", "RTMAX+1"];
        for text in wrong {
            assert!(SignalName::parse(text).is_err(), "{text}");
        }
        for (text, number) in
            [("SIGRTMIN+3", 37), ("37", 37), ("rtmin", 34), ("RTMAX", 64), ("SIGRTMAX-14", 50), ("cld", 17)]
        {
            let signal = SignalName::parse(text).unwrap();
            assert_eq!(signal.0.as_raw(), number, "{text}");
            assert_eq!(SignalName::parse(&signal.to_string()), Ok(signal), "{text}");
        }
        assert_eq!(SignalName::KILL.to_string(), "SIGKILL");
    }
}
