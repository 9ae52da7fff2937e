//! How problems look on a terminal. The only module that knows miette.
//!
//! The excerpt is bounded whatever the file looks like: a label never spans more than the rest of its first line, and a line that is too long
//! for the terminal is cut to a window around the label.

use std::fmt;

use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan,
    SpanContents,
};

use super::{Diagnostic, Place, Report, Source, Span};

/// How to show problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether to use colors: only when writing to a terminal.
    pub color: bool,
    /// Width in columns to wrap text at.
    pub width: usize,
}

impl Style {
    /// For a file, a pipe, or a test: no color, 90 columns.
    pub const PLAIN: Self = Self { color: false, width: 90 };
}

/// How many problems are shown with their excerpts. A file that is wrong throughout would drown the first, which is likely the cause.
const SHOWN: usize = 100;

/// Lines longer than this are cut to a window around the label.
const LONG_LINE: usize = 160;

pub(super) fn report(report: &Report, style: Style) -> String {
    let theme = if style.color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(style.width)
        .with_links(false)
        .without_syntax_highlighting();
    let mut out = String::new();
    for diagnostic in report.diagnostics.iter().take(SHOWN) {
        let view = View::new(report, diagnostic);
        // Not as miette's related diagnostics, which it would head "Advice:".
        let all = std::iter::once(&view).chain(&view.elsewhere);
        if all.map(|view| handler.render_report(&mut out, view)).any(|result| result.is_err()) {
            // Writing to a String does not fail, so this is miette giving up on an excerpt: say it without one.
            out.push_str(&report.sources.locate(diagnostic.place));
            out.push_str(": ");
            out.push_str(&diagnostic.message);
            out.push('\n');
        }
        out.push('\n');
    }
    let count = report.diagnostics.len();
    if count > SHOWN { out + &format!("… and {} more problems\n", count - SHOWN) } else { out }
}

/// A diagnostic as miette wants it: labels in the diagnostic's own file, places in other files as diagnostics of their own.
#[derive(Debug)]
struct View<'a> {
    code: Option<&'a str>,
    message: &'a str,
    help: Option<&'a str>,
    excerpt: Excerpt<'a>,
    labels: Vec<LabeledSpan>,
    elsewhere: Vec<View<'a>>,
}

impl<'a> View<'a> {
    fn new(report: &'a Report, diagnostic: &'a Diagnostic) -> Self {
        let source = report.sources.get(diagnostic.place.file).as_ref();
        let mut labels = vec![label(source, diagnostic.place, &diagnostic.label, true)];
        let mut elsewhere = Vec::new();
        for related in &diagnostic.related {
            if related.place.file == diagnostic.place.file {
                labels.push(label(source, related.place, &related.text, false));
            } else {
                let source = report.sources.get(related.place.file).as_ref();
                elsewhere.push(Self {
                    code: None,
                    message: &related.text,
                    help: None,
                    excerpt: Excerpt(source),
                    labels: vec![label(source, related.place, "", true)],
                    elsewhere: Vec::new(),
                });
            }
        }
        Self {
            code: Some(diagnostic.code),
            message: &diagnostic.message,
            help: diagnostic.help.as_deref(),
            excerpt: Excerpt(source),
            labels,
            elsewhere,
        }
    }
}

/// A label, cut to its first line so that a whole mapping does not become the excerpt.
fn label(source: &Source, place: Place, text: &str, primary: bool) -> LabeledSpan {
    let text = (!text.is_empty()).then(|| text.to_owned());
    let span = clip(source, place.span);
    let span = SourceSpan::new((span.start as usize).into(), (span.end - span.start) as usize);
    if primary { LabeledSpan::new_primary_with_span(text, span) } else { LabeledSpan::new_with_span(text, span) }
}

fn clip(source: &Source, span: Span) -> Span {
    let start = (span.start as usize).min(source.text().len());
    let line = source.line_of(start);
    let end = (span.end as usize).min(source.line_end(line)).max(start);
    Span::new(start, end)
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)
    }
}

impl std::error::Error for View<'_> {}

impl miette::Diagnostic for View<'_> {
    fn code<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.code.map(|code| Box::new(code) as Box<dyn fmt::Display>)
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        self.help.map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn severity(&self) -> Option<miette::Severity> {
        // A place in another file is part of the error, not an error of its own.
        Some(if self.code.is_some() { miette::Severity::Error } else { miette::Severity::Advice })
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.excerpt)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

/// Excerpts by the index of lines: miette's own source would scan the file from its start for every label.
#[derive(Debug)]
struct Excerpt<'a>(&'a Source);

impl SourceCode for Excerpt<'_> {
    fn read_span<'b>(
        &'b self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'b> + 'b>, MietteError> {
        let source = self.0;
        let text = source.text();
        if span.offset() + span.len() > text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let (start_line, end_line) = (source.line_of(span.offset()), source.line_of(span.offset() + span.len()));
        let (mut from, mut to) = if before + after == 0 {
            (span.offset(), span.offset() + span.len())
        } else {
            let long = |line: usize| source.line_end(line) - source.line_start(line) > LONG_LINE;
            let first = (start_line.saturating_sub(before)..start_line)
                .rev()
                .take_while(|l| !long(*l))
                .last()
                .unwrap_or(start_line);
            let last = (end_line + 1..=end_line + after).take_while(|l| *l < source.starts().len() && !long(*l)).last();
            (source.line_start(first), source.line_end(last.unwrap_or(end_line)))
        };
        let context = before + after > 0;
        if context && span.offset() - from > LONG_LINE * 3 {
            from = floor(text, span.offset() - LONG_LINE / 4);
        }
        let end = span.offset() + span.len();
        if context && to - end > LONG_LINE * 3 {
            to = floor(text, end + LONG_LINE / 4);
        }
        let line = source.line_of(from);
        let column = text[source.line_start(line)..from].chars().count();
        let bytes = &text.as_bytes()[from..to];
        let lines = source.line_of(to) - line + 1;
        Ok(Box::new(MietteSpanContents::new_named(
            source.name().to_owned(),
            bytes,
            SourceSpan::new(from.into(), to - from),
            line,
            column,
            lines,
        )))
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::super::{Diagnostic, Diagnostics, Place, Sources, Span};
    use super::*;

    fn find(text: &str, part: &str) -> Span {
        let start = text.find(part).unwrap();
        Span::new(start, start + part.len())
    }

    #[test]
    fn a_line_of_a_megabyte_is_cut_to_a_window() {
        let text = format!("a: {}WRONG{}\nb: 2\n", "x".repeat(500_000), "y".repeat(500_000));
        let mut sources = Sources::default();
        let file = sources.add("long.yaml", text.as_str());
        let mut found = Diagnostics::default();
        found.push(Diagnostic::new("test", Place::new(file, find(&text, "WRONG")), "is wrong").label("here"));
        let shown = found.into_report(sources).render(Style::PLAIN);
        assert!(shown.contains("long.yaml:1:500004"), "{shown}");
        assert!(shown.contains("WRONG") && shown.contains("here"), "{shown}");
        assert!(shown.len() < 2_000, "{} bytes", shown.len());
    }

    #[test]
    fn thousands_of_problems_are_counted_not_all_shown() {
        let text = "wrong\n".repeat(5_000);
        let mut sources = Sources::default();
        let file = sources.add("many.yaml", text.as_str());
        let mut found = Diagnostics::default();
        for line in 0..5_000 {
            found.push(Diagnostic::new(
                "test",
                Place::new(file, Span::new(line * 6, line * 6 + 5)),
                format!("line {line}"),
            ));
        }
        let shown = found.into_report(sources).render(Style::PLAIN);
        assert!(shown.ends_with("… and 4900 more problems\n"));
    }

    #[test]
    fn a_place_in_another_file_has_its_own_excerpt() {
        let mut sources = Sources::default();
        let a = sources.add("a.yaml", "plan: a\nuses: plan:b\n");
        let b = sources.add("b.yaml", "plan: b\nuses: plan:a\n");
        let mut found = Diagnostics::default();
        found.push(
            Diagnostic::new("plan-recursion", Place::new(a, Span::new(8, 20)), "the plan uses itself")
                .related(Place::new(b, Span::new(8, 20)), "`b` uses `a` again here"),
        );
        let shown = found.into_report(sources).render(Style::PLAIN);
        assert!(shown.contains("a.yaml:2:1") && shown.contains("b.yaml:2:1"), "{shown}");
    }
}
