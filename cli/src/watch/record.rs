//! `--events` and `--trace`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use lifecycle_cli::named::{self, Contents};
use lifecycle_engine::events::{Event, Watch};
use lifecycle_engine::program::Program;

use crate::print::{Failure, failed};

/// Writes every event as a line of JSON.
pub struct EventFile {
    to: Box<dyn Write>,
    /// The first line that could not be written.
    error: Option<std::io::Error>,
}

impl EventFile {
    /// Opens the file; `-` is stdout.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let to: Box<dyn Write> = if path == Path::new("-") {
            Box::new(std::io::stdout())
        } else {
            Box::new(
                named::open(path, Contents::Go)
                    .map_err(|e| failed(format!("cannot write events to {}", path.display()), &e))?,
            )
        };
        Ok(Self { to, error: None })
    }

    /// Says whether every event was written.
    pub fn finish(self) -> Result<(), Failure> {
        match self.error {
            Some(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(failed("cannot write all events", &e)),
            _ => Ok(()),
        }
    }
}

impl Watch for EventFile {
    fn event(&mut self, event: &Event) {
        let written = serde_json::to_vec(event).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.to.write_all(&line)?;
            self.to.flush()
        });
        if let Err(e) = written {
            self.error.get_or_insert(e);
        }
    }
}

/// Keeps the events that a trace is made of: all but what the steps print, which has no end.
pub struct Record {
    to: File,
    path: PathBuf,
    events: Vec<Event>,
}

impl Record {
    /// Opens the file, so that one which cannot be written is found out before the run.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let to = named::open(path, Contents::Go).map_err(|e| unwritten(path, &e))?;
        Ok(Self { to, path: path.to_owned(), events: Vec::new() })
    }

    /// Writes the trace.
    pub fn finish(mut self, program: &Program) -> Result<(), Failure> {
        let text = lifecycle_engine::render::trace::print(program, &self.events);
        self.to.write_all(text.as_bytes()).map_err(|e| unwritten(&self.path, &e))
    }
}

fn unwritten(path: &Path, why: &std::io::Error) -> Failure {
    failed(format!("cannot write the trace to {}", path.display()), why)
}

impl Watch for Record {
    fn event(&mut self, event: &Event) {
        if !matches!(event, Event::Output { .. }) {
            self.events.push(event.clone());
        }
    }
}
