//! The log, as callers parse it: containerd and conmon take the last line of level `error` for the reason of a failure.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use lifecycle_cli::named::{self, Contents};
use lifecycle_engine::render::paint;
use serde_json::{Value, json};

use crate::args::{Global, LogFormat};

/// How long a message is at most, in bytes.
const LONGEST: usize = 950;

/// Where messages go.
#[derive(Debug)]
pub struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    /// As the caller wants it.
    pub fn new(global: &Global) -> Self {
        Self { file: global.log.clone(), format: global.log_format, debug: global.debug }
    }

    /// Opens the file once, which makes it: who asked for it must not find out at the end that nothing was written.
    pub fn begin(&self) -> io::Result<()> {
        self.file.as_deref().map_or(Ok(()), |path| named::open(path, Contents::Stay).map(drop))
    }

    /// Why the verb failed: in the log, and on stderr for whoever reads that instead.
    pub fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            // Nobody is left to be told.
            let _ = writeln!(io::stderr(), "{}", paint::lines(&paint::brief(message, LONGEST)));
        }
    }

    /// The same in the log alone, for what stderr is told otherwise.
    pub fn file_error(&self, message: &str) {
        if self.file.is_some() {
            self.write("error", message);
        }
    }

    /// Something that the caller should know, and that did not stop the verb.
    pub fn warn(&self, message: &str) {
        self.write("warning", message);
    }

    /// What is done, for `--debug`.
    pub fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    /// A log that cannot be written must not keep a container from being deleted.
    fn write(&self, level: &str, message: &str) {
        let line = self.line(level, message);
        let written = match &self.file {
            Some(path) => named::open(path, Contents::Stay).and_then(|mut file| file.write_all(line.as_bytes())),
            None => io::stderr().write_all(line.as_bytes()),
        };
        if let (Err(e), Some(path)) = (written, &self.file) {
            let _ = writeln!(io::stderr(), "cannot write the log {}: {e}", path.display());
        }
    }

    fn line(&self, level: &str, message: &str) -> String {
        let message = paint::brief(message, LONGEST);
        let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        match self.format {
            LogFormat::Json => format!("{}\n", harmless(&json!({ "level": level, "msg": message, "time": time }))),
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={}\n", harmless(&json!(message))),
        }
    }
}

/// JSON has no need of escapes for all that a terminal obeys.
fn harmless(value: &Value) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for c in value.to_string().chars() {
        if paint::is_hostile(c) {
            // Writing to a String cannot fail. All of these are in the first plane.
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text
}
