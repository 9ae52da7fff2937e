//! What is wrong with a plan, and where.
//!
//! Every pass that reads a plan pushes [`Diagnostic`]s into one [`Diagnostics`] and goes on, so that a file with ten mistakes gets ten
//! messages in one go. A diagnostic points at a [`Place`]: a byte range in one of the [`Sources`]. Lines and columns are worked out only when
//! something is printed, which keeps a place at 12 bytes. How it looks on a terminal is [`render`]'s business alone.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::render::paint::brief;

mod render;
mod suggest;

/// How long a problem's message is at most, in bytes, and what is said to do about it: names and values in them are the user's.
const MESSAGE: usize = 700;
const HELP: usize = 300;

pub use render::Style;
pub use suggest::{did_you_mean, listed};

/// A half-open byte range in a file. `u32` is enough: a plan is at most 16 MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl From<(u32, u32)> for Span {
    fn from((start, end): (u32, u32)) -> Self {
        Self { start, end }
    }
}

impl From<Span> for (u32, u32) {
    fn from(span: Span) -> Self {
        (span.start, span.end)
    }
}

impl Span {
    /// The range `start..end`.
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The range as `usize`, to slice a text with.
    #[must_use]
    pub const fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// A range given relative to this one's start.
    #[must_use]
    pub const fn sub(self, start: u32, end: u32) -> Self {
        Self { start: self.start + start, end: self.start + end }
    }

    /// From the start of this range to the end of another.
    #[must_use]
    pub const fn to(self, last: Self) -> Self {
        Self { start: self.start, end: last.end }
    }
}

/// One of the files in [`Sources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId(pub u32);

/// A byte range in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Which file.
    pub file: FileId,
    /// Where in it.
    pub span: Span,
}

impl Place {
    /// A place from its parts.
    #[must_use]
    pub const fn new(file: FileId, span: Span) -> Self {
        Self { file, span }
    }
}

/// A text that a plan was read from: a file, or a plan built into the program.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: Arc<str>,
    lines: OnceLock<Vec<u32>>,
}

impl Source {
    /// The path as the user wrote it, or the built-in plan's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte, both from 1; the column counts characters. A byte past the end is taken as the end.
    #[must_use]
    pub fn line_column(&self, byte: u32) -> (usize, usize) {
        let byte = (byte as usize).min(self.text.len());
        let line = self.line_of(byte);
        let start = self.line_start(line);
        let column = self.text.as_bytes()[start..byte].iter().filter(|b| (**b & 0xc0) != 0x80).count();
        (line + 1, column + 1)
    }

    fn starts(&self) -> &[u32] {
        self.lines.get_or_init(|| {
            let breaks = self.text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at as u32 + 1);
            std::iter::once(0).chain(breaks).collect()
        })
    }

    /// The line (from 0) that holds a byte.
    fn line_of(&self, byte: usize) -> usize {
        self.starts().partition_point(|start| *start as usize <= byte) - 1
    }

    fn line_start(&self, line: usize) -> usize {
        self.starts().get(line).map_or(self.text.len(), |start| *start as usize)
    }

    /// The end of a line (from 0), without its line break.
    fn line_end(&self, line: usize) -> usize {
        let end = self.starts().get(line + 1).map_or(self.text.len(), |next| *next as usize - 1);
        if end > self.line_start(line) && self.text.as_bytes()[end - 1] == b'\r' { end - 1 } else { end }
    }
}

/// All texts that a plan was read from. The first one is the plan that was asked for, the others are plans that it uses.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Arc<Source>>,
}

impl Sources {
    /// Adds a text and gives its id.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<Arc<str>>) -> FileId {
        self.files.push(Arc::new(Source { name: name.into(), text: text.into(), lines: OnceLock::new() }));
        FileId(self.files.len() as u32 - 1)
    }

    /// The text of an id that [`add`](Self::add) gave.
    #[must_use]
    pub fn get(&self, file: FileId) -> &Arc<Source> {
        &self.files[file.0 as usize]
    }

    /// Their names, by id.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.files.iter().map(|file| file.name())
    }

    /// `plans/hello.yaml:12:9`, as editors and terminals understand it.
    #[must_use]
    pub fn locate(&self, place: Place) -> String {
        let source = self.get(place.file);
        let (line, column) = source.line_column(place.span.start);
        format!("{}:{line}:{column}", source.name())
    }
}

/// A second place that explains the first: where a name was first used, one edge of a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// What is there.
    pub text: String,
}

/// One problem: what, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable name of the kind of problem, such as `unknown-kind`.
    pub code: &'static str,
    /// One sentence: what is wrong.
    pub message: String,
    /// Where it is.
    pub place: Place,
    /// Two or three words at the place itself; may be empty.
    pub label: Box<str>,
    /// What to do, if that is known.
    pub help: Option<String>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// A problem at a place.
    pub fn new(code: &'static str, place: Place, message: impl Into<String>) -> Self {
        // Several problems of one value stand on lines of their own.
        let message = message.into().split('\n').map(|line| brief(line, MESSAGE)).collect::<Vec<_>>().join("\n");
        Self { code, message, place, label: Box::default(), help: None, related: Vec::new() }
    }

    /// Words at the place itself.
    #[must_use]
    pub fn label(mut self, label: impl Into<Box<str>>) -> Self {
        self.label = label.into();
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(brief(help, HELP));
        self
    }

    /// What to do about it, if anything is known.
    #[must_use]
    pub fn help_if(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// A second place.
    #[must_use]
    pub fn related(mut self, place: Place, text: impl Into<String>) -> Self {
        self.related.push(Related { place, text: text.into() });
        self
    }
}

/// Every problem found so far.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    found: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Adds a problem.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How many problems there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// The problems, in the order in which they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.found.iter()
    }

    /// Orders by file and place, and drops what was said twice: two passes may meet the same mistake.
    pub fn sort(&mut self) {
        self.found.sort_by(|a, b| (a.place, a.code, &a.message).cmp(&(b.place, b.code, &b.message)));
        self.found.dedup_by(|a, b| a.place == b.place && a.code == b.code && a.message == b.message);
    }

    /// The problems together with the texts that they point into, ready to be shown or returned as an error.
    #[must_use]
    pub fn into_report(mut self, sources: Sources) -> Report {
        self.sort();
        Report { sources, diagnostics: self.found }
    }
}

impl<'d> IntoIterator for &'d Diagnostics {
    type Item = &'d Diagnostic;
    type IntoIter = std::slice::Iter<'d, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Problems and the texts that they point into. It is an error: [`fmt::Display`] shows every problem in one plain line.
#[derive(Clone, Debug)]
pub struct Report {
    sources: Sources,
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// The problems, by place.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The texts.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// For a person to read: every problem with its excerpt, its exact place and the likely correction.
    #[must_use]
    pub fn render(&self, style: Style) -> String {
        render::report(self, style)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnostic) in self.diagnostics.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {}", self.sources.locate(diagnostic.place), diagnostic.message)?;
            if let Some(help) = &diagnostic.help {
                write!(f, " ({help})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
