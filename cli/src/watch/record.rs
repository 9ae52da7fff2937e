//! `--events` and `--trace`.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use lifecycle_engine::events::{Event, Watch};

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
            Box::new(File::create(path).map_err(|e| failed(format!("cannot write events to {}", path.display()), &e))?)
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
#[derive(Default)]
pub struct Record(pub Vec<Event>);

impl Watch for Record {
    fn event(&mut self, event: &Event) {
        if !matches!(event, Event::Output { .. }) {
            self.0.push(event.clone());
        }
    }
}
