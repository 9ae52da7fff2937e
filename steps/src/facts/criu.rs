//! What CRIU can do here: the fact `criu:criu`, found out only for plans that need it.
//!
//! To ask a program is to execute it. A fact is read for a look at a plan too, which may be anybody's, so it tells of the caller's own criu alone.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The fact's name.
pub(crate) const NAME: &str = "criu:criu";

/// A criu that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Criu {
    /// What it calls its version.
    pub version: String,
    /// Why it cannot work on this kernel, in the words of `criu check`. Empty: it can.
    pub problems: Vec<String>,
}

impl Criu {
    /// The one that is used unless another is named: what the caller's PATH has.
    pub(crate) const USUAL: &str = "criu";

    /// Executes it. `None`: there is no such program.
    pub(crate) fn ask(program: &str) -> Option<Self> {
        let run = |argument: &str| Command::new(program).arg(argument).stdin(Stdio::null()).output();
        let told = run("--version").ok()?;
        let version = String::from_utf8_lossy(&told.stdout)
            .lines()
            .find_map(|l| l.strip_prefix("Version:").map(str::trim).map(str::to_owned));
        let problems = match run("check") {
            Ok(check) if check.status.success() => Vec::new(),
            Ok(check) => said(&String::from_utf8_lossy(&check.stderr)),
            Err(e) => vec![e.to_string()],
        };
        Some(Self { version: version.unwrap_or_else(|| "unknown".to_owned()), problems })
    }

    /// What is wrong with what was found under that name, and what to do.
    pub(crate) fn check(found: Option<&Self>, program: &str) -> Result<(), (String, &'static str)> {
        match found {
            None => Err((
                format!("there is no program {program:?}"),
                "checkpoint and restore need CRIU: install Debian's package criu, or name the program by --criu",
            )),
            Some(found) if !found.problems.is_empty() => Err((
                format!("CRIU {} cannot work on this machine: {}", found.version, found.problems.join("; ")),
                "`criu check` says this; a newer criu, or another kernel, may do",
            )),
            Some(_) => Ok(()),
        }
    }
}

/// Null where there is no criu.
pub(super) fn criu() -> Value {
    json!(Criu::ask(Criu::USUAL))
}

/// The errors of a check that failed; it may have failed without a word.
fn said(stderr: &str) -> Vec<String> {
    let lines: Vec<String> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() { vec!["`criu check` fails".to_owned()] } else { lines }
}
