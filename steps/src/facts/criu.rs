//! What CRIU can do here: the fact `criu:PROGRAM`, found out only for plans that need it.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The prefix of the fact's name; the program follows.
pub(crate) const PREFIX: &str = "criu:";

/// A criu that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Criu {
    /// What it calls its version.
    pub version: String,
    /// Why it cannot work on this kernel, in the words of `criu check`. Empty: it can.
    pub problems: Vec<String>,
}

/// Null where there is no such program.
pub(super) fn criu(program: &str) -> Value {
    let run = |argument: &str| Command::new(program).arg(argument).stdin(Stdio::null()).output();
    let Ok(told) = run("--version") else { return Value::Null };
    let version = String::from_utf8_lossy(&told.stdout)
        .lines()
        .find_map(|l| l.strip_prefix("Version:").map(str::trim).map(str::to_owned));
    let problems = match run("check") {
        Ok(check) if check.status.success() => Vec::new(),
        Ok(check) => said(&String::from_utf8_lossy(&check.stderr)),
        Err(e) => vec![e.to_string()],
    };
    json!(Criu { version: version.unwrap_or_else(|| "unknown".to_owned()), problems })
}

/// The errors of a check that failed; it may have failed without a word.
fn said(stderr: &str) -> Vec<String> {
    let lines: Vec<String> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() { vec!["`criu check` fails".to_owned()] } else { lines }
}
