//! What every command prints with: stdout without a panic on a closed pipe, and failures in one shape.

use std::fmt;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

use lifecycle_engine::render::paint;

use crate::args::{Global, When};

/// The exit code of a failure of our own, as in `docker run` and `env`.
pub const ENGINE_FAILED: u8 = 125;

/// Why a command could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// The report, ready to print.
    pub report: miette::Report,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// A failure with an exit code of its own.
    pub fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }
}

impl From<miette::Report> for Failure {
    fn from(report: miette::Report) -> Self {
        Self { report, code: ENGINE_FAILED }
    }
}

/// What is wrong with a plan or its parameters, ready to print.
#[derive(Debug)]
pub struct Problems(String);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problems {}
impl miette::Diagnostic for Problems {}

/// The plan is wrong.
pub fn problems(report: &lifecycle_engine::diag::Report, global: &Global) -> Failure {
    miette::Report::new(Problems(report.render(style(global)))).into()
}

/// Something could not be done, and the text says all of it.
pub fn plainly(text: &str) -> Failure {
    miette::Report::new(Problems(paint::lines(text))).into()
}

/// Something could not be done; `why` is what the system said.
pub fn failed(what: impl fmt::Display, why: &dyn fmt::Display) -> Failure {
    let text = paint::lines(&format!("{what}: {why}"));
    miette::miette!("{text}").into()
}

/// Something could not be done, and this is what to do about it.
pub fn refused(what: impl fmt::Display, help: impl fmt::Display) -> Failure {
    let (what, help) = (paint::lines(&what.to_string()), paint::lines(&help.to_string()));
    miette::miette!(help = help, "{what}").into()
}

/// Where a detached engine speaks: its stderr is its main process's own.
static ENGINE: OnceLock<File> = OnceLock::new();

/// From now on the engine speaks into this file, not to stderr.
pub fn speak_into(file: File) {
    // Once: the run has one directory.
    let _ = ENGINE.set(file);
}

/// What the engine has to say for itself. A reader that has gone does not stop a run.
pub fn say(text: &str) {
    let _ = match ENGINE.get() {
        Some(mut file) => file.write_all(text.as_bytes()),
        None => std::io::stderr().write_all(text.as_bytes()),
    };
}

/// Says why something could not be done.
pub fn failure(report: &miette::Report) {
    match report.downcast_ref::<Problems>() {
        // What is wrong with a plan has been put into words already, with its excerpts.
        Some(problems) => say(&problems.to_string()),
        None => say(&format!("{report:?}\n")),
    }
}

/// Writes to stdout. A reader that has gone (`| head`) has what it wants.
pub fn bytes(text: &[u8]) -> Result<ExitCode, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(failed("cannot write to stdout", &e)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes text to stdout, see [`bytes`].
pub fn text(text: &str) -> Result<ExitCode, Failure> {
    bytes(text.as_bytes())
}

/// JSON for people and programs alike.
pub fn pretty(value: &impl serde::Serialize) -> String {
    // Only our own types come here: text keys, and numbers that JSON has.
    format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default())
}

/// Whether stdout takes colour.
pub fn color(global: &Global) -> bool {
    wanted(global, std::io::stdout().is_terminal())
}

/// How problems look on stderr.
pub fn style(global: &Global) -> lifecycle_engine::diag::Style {
    lifecycle_engine::diag::Style { color: wanted(global, std::io::stderr().is_terminal()), width: width().max(90) }
}

fn wanted(global: &Global, terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    match global.color {
        When::Always => true,
        When::Never => false,
        When::Auto => terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb"),
    }
}

/// The columns of the terminal, between 60 and 120; 80 where there is none, so that files are the same everywhere.
pub fn width() -> usize {
    let columns = if std::io::stdout().is_terminal() {
        rustix::termios::tcgetwinsize(std::io::stdout()).map_or(80, |size| usize::from(size.ws_col))
    } else {
        80
    };
    columns.clamp(60, 120)
}
