//! What went wrong when an effect was applied or undone, as a value that crosses processes and journals.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::render::paint::brief;

/// How long a message is at most, in bytes, and what is to be done about it: lists and names in them come from configs.
const WHAT: usize = 600;
const HELP: usize = 300;

/// An effect that failed. The engine adds the plan's file and line, the step and the effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectError {
    /// What failed: a sentence without the cause, or a system call with its arguments.
    pub what: String,
    /// The kernel's answer, if it was the kernel that refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// A likely cause and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The end of a command's or hook's output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// The run's exit code, if the failure determines one (126: cannot execute, 127: not found).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
}

impl EffectError {
    /// A failure that no system call reported.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: brief(what, WHAT), errno: None, help: None, output: Vec::new(), exit: None }
    }

    /// A failed system call, written with its arguments: `mkdirat("/run/x", 0755)`.
    pub fn call(what: impl Into<String>, errno: impl Into<std::io::Error>) -> Self {
        let io = errno.into();
        match io.raw_os_error() {
            Some(errno) => Self { errno: Some(errno), ..Self::new(what) },
            None => Self::new(format!("{}: {io}", what.into())),
        }
    }

    /// Adds a likely cause and what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(brief(help, HELP));
        self
    }

    /// Sets the exit code that the failure determines.
    #[must_use]
    pub fn exit(mut self, code: i32) -> Self {
        self.exit = Some(code);
        self
    }
}

/// The kernel's answer in words, with its name's number: `Permission denied (errno 13)`.
pub fn errno_in_words(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    format!("{words} (errno {errno})")
}

/// The same of an error that may not be the kernel's.
pub fn in_words(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), errno_in_words)
}

impl fmt::Display for EffectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.errno.map_or(Ok(()), |errno| write!(f, ": {}", errno_in_words(errno)))
    }
}

impl std::error::Error for EffectError {}

/// A step that cannot be planned: its input is well typed but makes no sense on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The field of the input to blame, such as `namespaces` or `mounts.3.destination`; empty for the whole step.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl PlanError {
    /// Blames one field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), help: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.field, self.message) }
    }
}

impl std::error::Error for PlanError {}
