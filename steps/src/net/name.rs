//! Names of links: what the caller may choose, and what we choose.

use std::borrow::Cow;
use std::fmt;

use lifecycle_engine::effect::RunNames;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// The name of a link: 1 to 15 bytes, without `/`, `:` and white space, neither `.` nor `..` (the kernel's dev_valid_name).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct LinkName(String);

impl LinkName {
    /// The longest name, in bytes: IFNAMSIZ without its null.
    pub const MAX: usize = 15;

    /// Checks and keeps the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > Self::MAX {
            return Err(format!("{text:?} has {} bytes, the name of a link has 1 to {}", text.len(), Self::MAX));
        }
        if text == "."
            || text == ".."
            || text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
        {
            return Err(format!("{text:?} cannot be the name of a link: it holds no `/`, `:` or white space"));
        }
        Ok(Self(text.to_owned()))
    }

    /// `eth0`: what a container's first interface is called everywhere.
    pub fn eth0() -> Self {
        Self("eth0".to_owned())
    }

    /// `lo`: the interface that every network namespace has.
    pub fn lo() -> Self {
        Self("lo".to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the link that a step makes. It derives from the state root, the run, the step and the end of the link (one letter), so that
    /// even without a journal it can be told whose it is.
    pub fn of(run: &RunNames, step: &str, end: char) -> Self {
        // The same hash that tells runs apart, one level deeper: a step within a run.
        let within = RunNames { root: run.dir(), id: format!("{step}\0{end}") };
        Self(format!("lc{}{end}", within.tag()))
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LinkName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for LinkName {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "link name".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": Self::MAX, "pattern": "^[^/:\\s]+$" })
    }
}

/// The alias that says in full whose link it is. The kernel takes 255 bytes.
pub fn alias(run: &RunNames, step: &str) -> String {
    let mut alias = format!("lifecycle:{}:{step}", run.id);
    alias.truncate((0..=255).rev().find(|n| alias.is_char_boundary(*n)).unwrap_or(0));
    alias
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str) -> RunNames {
        RunNames { root: "/run/lifecycle".into(), id: id.into() }
    }

    #[test]
    fn our_names_fit_and_tell_runs_steps_and_ends_apart() {
        let names = [
            LinkName::of(&run("a"), "veth", 'h'),
            LinkName::of(&run("b"), "veth", 'h'),
            LinkName::of(&run("a"), "veth[\"x\"]", 'h'),
            LinkName::of(&run("a"), "veth", 'b'),
        ];
        for (k, name) in names.iter().enumerate() {
            assert_eq!(LinkName::parse(name.as_str()), Ok(name.clone()));
            assert!(!names[..k].contains(name));
        }
        assert_eq!(names[0], LinkName::of(&run("a"), "veth", 'h'));
    }

    #[test]
    fn what_the_kernel_refuses_is_no_name() {
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "abcdefghijklmnop"] {
            assert!(LinkName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(LinkName::parse("abcdefghijklmno").is_ok());
    }

    #[test]
    fn a_long_alias_is_cut_at_a_character() {
        let long = alias(&run("web"), &"ü".repeat(200));
        assert!(long.len() <= 255 && long.starts_with("lifecycle:web:ü"));
    }
}
