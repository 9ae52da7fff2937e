//! What a run's steps print, kept in the run's directory for `logs`.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use lifecycle_engine::events::{Event, Watch};
use serde::{Deserialize, Serialize};

/// The log's name in the run's directory.
pub const LOG: &str = "log";

/// A line of the log.
#[derive(Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// Microseconds since the epoch.
    pub at: u64,
    /// The step's address.
    pub step: String,
    /// What it printed.
    pub line: String,
}

/// Writes output lines to the run's log. The run's directory exists by the time its first step begins.
pub struct LogFile {
    dir: PathBuf,
    file: Option<File>,
}

impl LogFile {
    /// For the run whose directory this is.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, file: None }
    }
}

impl Watch for LogFile {
    fn event(&mut self, event: &Event) {
        let Event::Output { step, line } = event else { return };
        if self.file.is_none() {
            self.file = File::options().append(true).create(true).mode(0o600).open(self.dir.join(LOG)).ok();
        }
        let line = LogLine { at: lifecycle_engine::site::now(), step: step.to_string(), line: line.clone() };
        if let (Some(file), Ok(mut text)) = (&mut self.file, serde_json::to_vec(&line)) {
            text.push(b'\n');
            // The lines were shown; a full disk must not end the run for the sake of its log.
            let _ = file.write_all(&text);
        }
    }
}
