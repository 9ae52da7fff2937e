//! Which devices a container may use: config-linux.md, "Allowed Device list".
//!
//! Rules are evaluated as cgroup v1 does it: there is a default, and a list of exceptions from it. A rule for all devices sets the default and
//! drops the exceptions; one that says what the default says takes exceptions away; any other adds one.

use std::fmt;

use lifecycle_engine::error::PlanError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::{DeviceRule, DeviceType};

/// The outcome of a list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceRules {
    /// Devices without an exception may be used.
    pub allow_all: bool,
    /// What is otherwise.
    pub exceptions: Vec<Exception>,
}

/// Devices that are treated otherwise than the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// `c` or `b`.
    pub kind: char,
    /// `None`: all.
    pub major: Option<u32>,
    /// `None`: all.
    pub minor: Option<u32>,
    /// Of `r`, `w` and `m`, in this order.
    pub access: String,
}

/// What every container may use: config-linux.md, "Default Devices"; and mknod of anything, since a node that cannot be opened does no harm.
const ALWAYS: [(char, Option<u32>, Option<u32>, &str); 10] = [
    ('c', None, None, "m"),
    ('b', None, None, "m"),
    ('c', Some(1), Some(3), "rwm"), // null
    ('c', Some(1), Some(5), "rwm"), // zero
    ('c', Some(1), Some(7), "rwm"), // full
    ('c', Some(1), Some(8), "rwm"), // random
    ('c', Some(1), Some(9), "rwm"), // urandom
    ('c', Some(5), Some(0), "rwm"), // tty
    ('c', Some(5), Some(2), "rwm"), // ptmx
    ('c', Some(136), None, "rwm"),  // pts/*
];

/// One rule as both versions take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everything is allowed, or nothing.
    All(bool),
    /// Some devices are.
    Some(bool, Exception),
}

/// The config's rules in order, then the default devices. Nothing is allowed at first: an allow-list, not a deny-list.
pub fn rules(given: &[DeviceRule]) -> Result<Vec<Rule>, PlanError> {
    let mut rules = vec![Rule::All(false)];
    for (index, rule) in given.iter().enumerate() {
        let rule = read(rule).map_err(|message| PlanError::new(format!("resources.devices.{index}"), message))?;
        if rules.last() != Some(&rule) {
            rules.push(rule);
        }
    }
    let always =
        |(kind, major, minor, access): (char, _, _, &str)| Exception { kind, major, minor, access: access.into() };
    rules.extend(ALWAYS.into_iter().map(|device| Rule::Some(true, always(device))));
    Ok(rules)
}

fn read(rule: &DeviceRule) -> Result<Rule, String> {
    let letters = rule.access.as_deref().unwrap_or("rwm");
    let access: String = "rwm".chars().filter(|letter| letters.contains(*letter)).collect();
    let (major, minor) = (number(rule.major)?, number(rule.minor)?);
    let kind = match rule.kind {
        None | Some(DeviceType::A) if access == "rwm" && major.is_none() && minor.is_none() => {
            return Ok(Rule::All(rule.allow));
        }
        None | Some(DeviceType::A) => {
            return Err("a rule without a type covers all devices with all access; name the type, b or c".into());
        }
        Some(DeviceType::B) => 'b',
        Some(DeviceType::C | DeviceType::U) => 'c',
        Some(DeviceType::P) => return Err("a FIFO is not a device; no rule applies to it".into()),
    };
    Ok(Rule::Some(rule.allow, Exception { kind, major, minor, access }))
}

/// -1 and absence are "all".
fn number(given: Option<i64>) -> Result<Option<u32>, String> {
    match given {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| format!("{n} is no device number")),
    }
}

impl DeviceRules {
    /// What the rules come to. One that takes away a part of an earlier, wider one is refused: the kernel would ignore it in silence.
    pub fn of(rules: &[Rule]) -> Result<Self, PlanError> {
        let mut state = Self::default();
        for rule in rules {
            match rule {
                Rule::All(allow) => state = Self { allow_all: *allow, exceptions: Vec::new() },
                Rule::Some(allow, exception) if *allow == state.allow_all => state.take_away(exception)?,
                Rule::Some(_, exception) => state.add(exception),
            }
        }
        Ok(state)
    }

    /// What version 1 takes, by file and in order.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&'static str, String)> {
        let (default, other) =
            if self.allow_all { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
        let exceptions = self.exceptions.iter().map(move |exception| (other, exception.to_string()));
        std::iter::once((default, "a".to_owned())).chain(exceptions)
    }

    fn add(&mut self, new: &Exception) {
        match self.exceptions.iter_mut().find(|e| e.same_devices(new)) {
            Some(old) => {
                old.access = "rwm".chars().filter(|l| old.access.contains(*l) || new.access.contains(*l)).collect();
            }
            None => self.exceptions.push(new.clone()),
        }
    }

    fn take_away(&mut self, gone: &Exception) -> Result<(), PlanError> {
        if let Some(wider) = self.exceptions.iter().find(|e| !e.within(gone) && e.overlaps(gone)) {
            let message = format!("`{gone}` takes away a part of `{wider}`, which cgroups cannot express");
            return Err(PlanError::new("resources.devices", message).help("say what is allowed in narrower rules"));
        }
        for exception in self.exceptions.iter_mut().filter(|e| e.within(gone)) {
            exception.access.retain(|letter| !gone.access.contains(letter));
        }
        self.exceptions.retain(|e| !e.access.is_empty());
        Ok(())
    }
}

impl Exception {
    fn same_devices(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// All its devices are among the other's.
    fn within(&self, other: &Self) -> bool {
        let fits = |mine: Option<u32>, others: Option<u32>| others.is_none() || mine == others;
        self.kind == other.kind && fits(self.major, other.major) && fits(self.minor, other.minor)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind
            && meet(self.major, other.major)
            && meet(self.minor, other.minor)
            && self.access.chars().any(|letter| other.access.contains(letter))
    }
}

/// As version 1's files take it: `c 1:3 rwm`.
impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(f, "{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}

impl fmt::Display for DeviceRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allow_all { "allow all" } else { "deny all" })?;
        let but: Vec<String> = self.exceptions.iter().map(Exception::to_string).collect();
        if but.is_empty() { Ok(()) } else { write!(f, " but {}", but.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: char, major: i64, minor: i64, access: &str) -> DeviceRule {
        let kind = match kind {
            'b' => Some(DeviceType::B),
            'c' => Some(DeviceType::C),
            _ => None,
        };
        DeviceRule { allow, kind, major: Some(major), minor: Some(minor), access: Some(access.into()) }
    }

    fn state(given: &[DeviceRule]) -> Result<String, PlanError> {
        DeviceRules::of(&rules(given)?).map(|state| state.to_string())
    }

    #[test]
    fn without_rules_only_the_default_devices_are_allowed() {
        let default = state(&[]).expect("rules");
        assert!(default.starts_with("deny all but c *:* m, b *:* m, c 1:3 rwm"), "{default}");
        assert_eq!(state(&[rule(false, 'a', -1, -1, "rwm")]).expect("rules"), default);
    }

    #[test]
    fn rules_count_in_their_order() {
        let open = [rule(true, 'a', -1, -1, "rwm"), rule(false, 'b', 8, 0, "w")];
        assert_eq!(state(&open).expect("rules"), "allow all but b 8:0 w");
        let twice = [rule(true, 'c', 10, 229, "r"), rule(true, 'c', 10, 229, "w")];
        assert!(
            state(&twice).expect("rules").contains(", c 10:229 rw,")
                || state(&twice).expect("rules").contains("but c 10:229 rw,")
        );
        let closed = [rule(true, 'c', 10, 229, "rw"), rule(false, 'c', 10, -1, "w")];
        assert!(state(&closed).expect("rules").contains("c 10:229 r,"));
    }

    #[test]
    fn a_rule_that_the_kernel_would_ignore_is_refused() {
        let hole = [rule(true, 'c', 10, -1, "rwm"), rule(false, 'c', 10, 229, "w")];
        let error = state(&hole).expect_err("a hole");
        assert!(error.message.contains("`c 10:229 w`"), "{error}");
        assert!(rules(&[rule(true, 'a', 1, -1, "rwm")]).is_err());
        assert!(rules(&[rule(true, 'b', -2, 0, "r")]).is_err());
    }
}
