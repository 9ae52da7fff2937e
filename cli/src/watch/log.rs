//! What a run's steps print, kept in the run's directory for `logs`.

use std::fs::File;
use std::io::Write;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::events::{Event, Watch};
use lifecycle_engine::journal::OwnDir;
use lifecycle_steps::spawn::LARGEST;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

/// Opens a file in a run's directory to add to it.
pub fn append(names: &RunNames, name: &str) -> std::io::Result<File> {
    let open = |dir: OwnDir| dir.open(name, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE);
    let file = OwnDir::of(names).and_then(open).map_err(std::io::Error::other)?;
    // Without O_NONBLOCK.
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

/// The log's name in the run's directory.
pub const LOG: &str = "log";

/// The last line of one that has got so long.
const FULL: &str = "the log is full: what is printed from here on is shown, and not kept";

/// A line of the log.
#[derive(Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// Microseconds since the epoch.
    pub at: u64,
    /// The step's address.
    pub step: String,
    /// What it printed, or what the engine warns of.
    pub line: String,
    /// Whether it is the engine that says it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warning: bool,
}

/// Writes output lines to the run's log. The run's directory exists by the time its first step begins.
pub struct LogFile {
    names: RunNames,
    file: Option<File>,
    written: u64,
}

impl LogFile {
    /// For that run.
    pub fn new(names: RunNames) -> Self {
        Self { names, file: None, written: 0 }
    }
}

impl Watch for LogFile {
    fn event(&mut self, event: &Event) {
        let (step, line, warning) = match event {
            Event::Output { step, line } => (step, line, false),
            Event::Warning { step, text } => (step, text, true),
            _ => return,
        };
        if self.written >= LARGEST {
            return;
        }
        if self.file.is_none() {
            self.file = append(&self.names, LOG).ok();
        }
        self.write(step, line, warning);
        if self.written >= LARGEST {
            self.write(step, FULL, true);
        }
    }
}

impl LogFile {
    fn write(&mut self, step: &str, line: &str, warning: bool) {
        let at = lifecycle_engine::site::now();
        let line = LogLine { at, step: step.to_owned(), line: line.to_owned(), warning };
        if let (Some(file), Ok(mut text)) = (&mut self.file, serde_json::to_vec(&line)) {
            text.push(b'\n');
            self.written += text.len() as u64;
            // The lines were shown; a full disk must not end the run for the sake of its log.
            let _ = file.write_all(&text);
        }
    }
}
