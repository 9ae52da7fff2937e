//! A saved plan: `plan -o FILE` writes it, `run FILE` plans again and runs only what was shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::diff::{FactChange, facts};
use super::model::DryRun;
use super::{diff, json};
use crate::facts::sha256;

/// The version of the file's format.
pub const VERSION: u32 = 1;

/// A plan as it was shown, with all that is needed to plan it again, save sensitive parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// [`VERSION`].
    pub lifecycle_saved_plan: u32,
    /// The plan as the caller named it: a built-in one's name, or the absolute path of a file.
    pub plan: String,
    /// The plan files, the first being the one above. Built-in plans have none.
    pub sources: Vec<Source>,
    /// The parameters that the caller gave, without the sensitive ones.
    pub params: BTreeMap<String, Value>,
    /// The sensitive parameters that the caller gave, by name: `run FILE` asks for them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensitive: Vec<String>,
    /// The command after `--`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The facts that were masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<String>,
    /// [`digest`] of the dry run.
    pub digest: String,
    /// What was shown. Its facts are those that planning read.
    pub dry_run: DryRun,
}

/// A file that a plan was read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Absolute.
    pub path: PathBuf,
    /// The digest of its text.
    pub sha256: String,
}

impl Source {
    /// The source with this text.
    pub fn of(path: PathBuf, text: &str) -> Self {
        Self { path, sha256: sha256(text.as_bytes()) }
    }
}

/// The digest of what a dry run shows, in hexadecimal.
pub fn digest(run: &DryRun) -> String {
    sha256(json::print(run).as_bytes())
}

/// Why a saved plan is not run.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The plan files that changed, each with what happened to it.
    pub sources: Vec<String>,
    /// The facts that changed.
    pub facts: Vec<FactChange>,
    /// The difference in what would happen, if there is one.
    pub effects: String,
}

impl Saved {
    /// The file's text.
    pub fn print(&self) -> String {
        // As in `json::print`: nothing in here that JSON cannot hold.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads what [`Saved::print`] wrote. A file whose dry run was edited is refused: what runs must be what was shown.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        match value.get("lifecycle_saved_plan").and_then(Value::as_u64) {
            None => return Err("not a saved plan: it has no `lifecycle_saved_plan`".into()),
            Some(version) if version != u64::from(VERSION) => {
                return Err(format!("a saved plan of format {version}; this program reads format {VERSION}"));
            }
            Some(_) => {}
        }
        let saved: Self = serde_json::from_value(value).map_err(|e| format!("a damaged saved plan: {e}"))?;
        if saved.dry_run.scopes.is_empty() {
            return Err("a damaged saved plan: its dry run has no scope".into());
        }
        if digest(&saved.dry_run) != saved.digest {
            return Err("the saved plan was edited: its digest is not that of what it shows".into());
        }
        Ok(saved)
    }

    /// Compares with what would happen now. `sources` are the plan files as they are now.
    pub fn check(&self, now: &DryRun, sources: &[Source]) -> Result<(), Box<Refused>> {
        let changed = changed_sources(&self.sources, sources);
        let facts = facts(&self.dry_run.facts, &now.facts);
        if changed.is_empty() && facts.is_empty() && digest(now) == self.digest {
            return Ok(());
        }
        let effects = diff::text(&self.dry_run, now, &diff::Look { facts: false, ..diff::Look::default() });
        Err(Box::new(Refused { sources: changed, facts, effects: effects.unwrap_or_default() }))
    }
}

fn changed_sources(then: &[Source], now: &[Source]) -> Vec<String> {
    let gone = then.iter().filter_map(|old| match now.iter().find(|new| new.path == old.path) {
        None => Some(format!("{} is no longer part of the plan", old.path.display())),
        Some(new) if new.sha256 != old.sha256 => Some(format!("{} was edited", old.path.display())),
        Some(_) => None,
    });
    let new = now.iter().filter(|new| !then.iter().any(|old| old.path == new.path));
    gone.chain(new.map(|s| format!("{} is new in the plan", s.path.display()))).collect()
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the saved plan is no longer what would happen")?;
        if !self.sources.is_empty() {
            write!(f, "\nplan files:")?;
            self.sources.iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        }
        if !self.facts.is_empty() {
            write!(f, "\nfacts that changed:")?;
            self.facts.iter().try_for_each(|change| write!(f, "\n  {change}"))?;
        }
        match self.effects.trim_end() {
            "" => write!(f, "\nThe effects would be the same."),
            effects => write!(f, "\nwhat would happen differently:\n{effects}"),
        }
    }
}

impl std::error::Error for Refused {}
