//! From the library's events to a [`Tree`].

use std::borrow::Cow;
use std::collections::HashMap;

use serde_saphyr::granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span as Marked, Tag, options,
};

use super::scalar::{Refused, resolve};
use super::{Key, MAX_DEPTH, MAX_NODES, Stored, StoredKind, Str, Tree};
use crate::diag::{Diagnostic, Diagnostics, FileId, Place, Span};

/// Reads one document. `None` if the text is not YAML at all or too much of it; what can be read around (a duplicate key, a tag) is reported
/// and the tree is still given, so that later passes find the other mistakes.
pub fn parse<'s>(text: &'s str, file: FileId, found: &mut Diagnostics) -> Option<Tree<'s>> {
    // A byte-order mark is no part of the document, and its three bytes would shift every column.
    let content = text.strip_prefix('\u{feff}').unwrap_or(text);
    let base = (text.len() - content.len()) as u32;
    let mut reader = Reader {
        text,
        base,
        file,
        found,
        nodes: Vec::new(),
        weights: Vec::new(),
        open: Vec::new(),
        anchors: HashMap::new(),
        root: None,
    };
    reader.run(content).then(|| {
        let root = reader.root.unwrap_or_else(|| reader.add(Span::default(), StoredKind::Null, 1));
        Tree { nodes: std::mem::take(&mut reader.nodes), root }
    })
}

fn limits() -> Options {
    let mut options = options! {
        disallow_directives: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
        emit_unresolved_aliases: true,
    };
    options.set_emit_comments(false);
    options
}

/// A collection that has been opened and not closed.
enum Open<'s> {
    Seq {
        start: u32,
        anchor: usize,
        items: Vec<u32>,
        weight: u64,
    },
    Map {
        start: u32,
        anchor: usize,
        pairs: Vec<(Key<'s>, u32)>,
        seen: HashMap<Cow<'s, str>, Span>,
        key: Option<(Key<'s>, bool)>,
        weight: u64,
    },
}

/// Below this many keys a scan of the pairs is faster than a hash table.
const FEW: usize = 12;

struct Reader<'s, 'd> {
    text: &'s str,
    base: u32,
    file: FileId,
    found: &'d mut Diagnostics,
    nodes: Vec<Stored<'s>>,
    /// How many nodes each node stands for once aliases are followed.
    weights: Vec<u64>,
    open: Vec<Open<'s>>,
    /// `None` while the anchored collection is still open.
    anchors: HashMap<usize, Option<u32>>,
    root: Option<u32>,
}

impl<'s> Reader<'s, '_> {
    fn run(&mut self, content: &'s str) -> bool {
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(content, limits()) {
            let (event, marks) = match event {
                Ok(event) => event,
                Err(error) => {
                    self.syntax(&error);
                    return false;
                }
            };
            let span = self.span(&marks);
            let ok = match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    documents == 1
                        || self.stop(
                            "yaml-documents",
                            span,
                            "a plan is one document, and a second one starts here",
                            "put it into a file of its own",
                        )
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.tag(tag.as_deref(), &marks, span);
                    self.scalar(text, style, anchor, span)
                }
                Event::SequenceStart(_, anchor, tag) => {
                    self.tag(tag.as_deref(), &marks, span);
                    self.begin(anchor, span, |start| Open::Seq { start, anchor, items: Vec::new(), weight: 1 })
                }
                Event::MappingStart(_, anchor, tag) => {
                    self.tag(tag.as_deref(), &marks, span);
                    let open = |start| Open::Map {
                        start,
                        anchor,
                        pairs: Vec::new(),
                        seen: HashMap::new(),
                        key: None,
                        weight: 1,
                    };
                    self.begin(anchor, span, open)
                }
                Event::SequenceEnd | Event::MappingEnd => self.end(span),
                Event::Alias(anchor) => self.alias(anchor, span),
                Event::UnresolvedAlias(name) => {
                    let message = format!("no anchor `&{name}` comes before this alias");
                    let help = "if the text should start with `*`, put it in quotes";
                    self.report("yaml-alias", span, message, help);
                    let id = self.add(span, StoredKind::Null, 1);
                    self.attach(id)
                }
                _ => true,
            };
            if !ok {
                return false;
            }
        }
        true
    }

    fn begin(&mut self, anchor: usize, span: Span, open: impl FnOnce(u32) -> Open<'s>) -> bool {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return self.stop(
                "yaml-key",
                span,
                "a key has to be a plain word, not a list or a mapping",
                "if this was meant as text, put it in quotes",
            );
        }
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        self.open.push(open(span.start));
        true
    }

    fn end(&mut self, span: Span) -> bool {
        let Some(open) = self.open.pop() else { return true };
        let (start, anchor, weight, kind, last) = match open {
            Open::Seq { start, anchor, items, weight } => {
                let last = items.last().copied();
                (start, anchor, weight, StoredKind::Seq(items.into()), last)
            }
            Open::Map { start, anchor, pairs, weight, .. } => {
                let last = pairs.last().map(|(_, id)| *id);
                (start, anchor, weight, StoredKind::Map(pairs.into()), last)
            }
        };
        // A block collection ends where the parser notices it, some lines below: end with the last entry instead.
        let content = last.map_or(start, |id| self.nodes[id as usize].span.end);
        let end = if span.end > span.start { span.end } else { content.max(start) };
        let id = self.add(Span { start, end }, kind, weight);
        if anchor != 0 {
            self.anchors.insert(anchor, Some(id));
        }
        self.attach(id)
    }

    fn scalar(&mut self, text: Cow<'s, str>, style: ScalarStyle, anchor: usize, span: Span) -> bool {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return self.key(text, style, span);
        }
        let kind =
            if style == ScalarStyle::Plain { self.plain(text, span) } else { StoredKind::Str(self.string(text, span)) };
        let id = self.add(span, kind, 1);
        if anchor != 0 {
            self.anchors.insert(anchor, Some(id));
        }
        self.attach(id)
    }

    fn plain(&mut self, text: Cow<'s, str>, span: Span) -> StoredKind<'s> {
        let (message, help) = match resolve(&text) {
            Ok(Some(kind)) => return kind,
            Ok(None) => return StoredKind::Str(self.string(text, span)),
            Err(Refused::LeadingZero) => (
                format!("`{text}` means {} to some YAML readers and {} to others", decimal(&text), octal(&text)),
                format!("for a file mode write it in quotes, \"{text}\"; for a number leave out the leading zero"),
            ),
            Err(Refused::TooLarge) => {
                (format!("`{text}` does not fit into 64 bits"), "if it is text, put it in quotes".to_owned())
            }
            Err(Refused::NotFinite) => {
                (format!("`{text}` is not a finite number"), "if it is text, put it in quotes".to_owned())
            }
        };
        self.report("yaml-number", span, message, help);
        StoredKind::Str(self.string(text, span))
    }

    fn string(&self, text: Cow<'s, str>, span: Span) -> Str<'s> {
        let raw = &self.text[span.range()];
        let quoted = raw.starts_with(['"', '\'']) && raw.len() >= 2;
        let verbatim = if raw == text {
            Some(span.start)
        } else if quoted && raw[1..raw.len() - 1] == text {
            Some(span.start + 1)
        } else {
            None
        };
        Str { text, verbatim }
    }

    fn key(&mut self, text: Cow<'s, str>, style: ScalarStyle, span: Span) -> bool {
        let merge = style == ScalarStyle::Plain && text == "<<";
        if merge {
            self.report(
                "yaml-merge",
                span,
                "merge keys (`<<`) are not part of YAML 1.2".to_owned(),
                "write the fields out, or use an alias for the whole value",
            );
        }
        let Some(Open::Map { pairs, seen, key, .. }) = self.open.last_mut() else { return true };
        let first = if pairs.len() < FEW {
            pairs.iter().find(|(k, _)| k.text == text).map(|(k, _)| k.span)
        } else {
            if seen.is_empty() {
                seen.extend(pairs.iter().map(|(k, _)| (k.text.clone(), k.span)));
            }
            let first = seen.get(&text).copied();
            if first.is_none() {
                seen.insert(text.clone(), span);
            }
            first
        };
        *key = Some((Key { text: text.clone(), span }, first.is_none() && !merge));
        if let Some(first) = first {
            let place = Place::new(self.file, span);
            self.found.push(
                Diagnostic::new("duplicate-key", place, format!("`{text}` is given twice"))
                    .label("again here")
                    .related(Place::new(self.file, first), "first here")
                    .help("remove or rename one of them"),
            );
        }
        true
    }

    fn alias(&mut self, anchor: usize, span: Span) -> bool {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return self.stop("yaml-key", span, "an alias cannot be a key", "write the key out");
        }
        match self.anchors.get(&anchor).copied().flatten() {
            Some(id) => self.attach(id),
            None => self.stop(
                "yaml-alias",
                span,
                "this alias stands inside its own anchor, so it would never end",
                "write the value out",
            ),
        }
    }

    /// Puts a node where it belongs: into the collection that is open, or at the root.
    fn attach(&mut self, id: u32) -> bool {
        let weight = self.weights[id as usize];
        let total = match self.open.last_mut() {
            None => {
                self.root = Some(id);
                weight
            }
            Some(Open::Seq { items, weight: sum, .. }) => {
                items.push(id);
                *sum += weight;
                *sum
            }
            Some(Open::Map { pairs, key, weight: sum, .. }) => {
                if let Some((key, true)) = key.take() {
                    pairs.push((key, id));
                }
                *sum += weight;
                *sum
            }
        };
        if total > MAX_NODES || self.nodes.len() as u64 > MAX_NODES {
            let span = self.nodes[id as usize].span;
            return self.stop(
                "yaml-size",
                span,
                format!("the document has more than {MAX_NODES} nodes once its aliases are followed"),
                "aliases of aliases multiply; write the values out, or use `for_each`",
            );
        }
        true
    }

    fn add(&mut self, span: Span, kind: StoredKind<'s>, weight: u64) -> u32 {
        self.nodes.push(Stored { span, kind });
        self.weights.push(weight);
        self.nodes.len() as u32 - 1
    }

    fn tag(&mut self, tag: Option<&Tag>, marks: &Marked, span: Span) {
        if tag.is_none() {
            return;
        }
        let at = marks.tag_span().map_or(span, |marks| self.span(&marks));
        let help = "a value's type follows from the field that it is for; put it in quotes if it is text";
        self.report("yaml-tag", at, "tags (`!…`) are not part of the plan language".to_owned(), help);
    }

    fn syntax(&mut self, error: &ScanError) {
        let at =
            error.marker().byte_offset().map_or(self.text.len(), |byte| byte + self.base as usize).min(self.text.len());
        let width = self.text[at..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
        let (message, help) = explain(error.kind());
        let place = Place::new(self.file, Span::new(at, at + width));
        self.found.push(Diagnostic::new("yaml-syntax", place, message).help_if(help.map(str::to_owned)));
    }

    fn report(&mut self, code: &'static str, span: Span, message: String, help: impl Into<String>) {
        self.found.push(Diagnostic::new(code, Place::new(self.file, span), message).help(help));
    }

    /// Reports what reading cannot go on from.
    fn stop(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: &str) -> bool {
        self.report(code, span, message.into(), help);
        false
    }

    fn span(&self, marks: &Marked) -> Span {
        let start = marks.start.byte_offset().unwrap_or(0) as u32 + self.base;
        let end = marks.end.byte_offset().unwrap_or(0) as u32 + self.base;
        Span { start, end: end.max(start) }
    }
}

fn decimal(text: &str) -> String {
    let sign = if text.starts_with('-') { "-" } else { "" };
    let digits = text.trim_start_matches(['+', '-']).trim_start_matches('0');
    format!("{sign}{}", if digits.is_empty() { "0" } else { digits })
}

fn octal(text: &str) -> String {
    i64::from_str_radix(text, 8).map_or_else(|_| "an error".to_owned(), |value| value.to_string())
}

/// The parser's own sentences are written for those who know its insides; the common mistakes get better ones.
fn explain(kind: &ErrorKind) -> (String, Option<&'static str>) {
    let (message, help) = match kind {
        ErrorKind::RecursionLimitExceeded => {
            (format!("nested deeper than {MAX_DEPTH} levels"), "no plan needs that; is a bracket left open?")
        }
        ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabNotAllowed
        | ErrorKind::TabAtBlockScalarStart => ("a tab where YAML wants spaces".to_owned(), "indent with spaces"),
        ErrorKind::UnclosedQuotedScalar => ("this quote is never closed".to_owned(), "close the quote"),
        ErrorKind::UnclosedFlowCollection { open } => (format!("this `{open}` is never closed"), "close the bracket"),
        ErrorKind::InvalidQuotedScalarIndent => (
            "a text in quotes is still open here, and this line ends its block".to_owned(),
            "close the quote on a line above, or indent the text",
        ),
        ErrorKind::InvalidColonPlacement => {
            ("a `:` inside brackets that are still open".to_owned(), "is a `]` or `}` missing on a line above?")
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            (format!("`{open}` is closed by `{close}`"), "brackets close in the order in which they open")
        }
        ErrorKind::DirectiveDisallowed => {
            ("directives (`%…`) are not part of the plan language".to_owned(), "remove the line")
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidSimpleKey | ErrorKind::SimpleKeyExpected => (
            "a `:` where no key can stand".to_owned(),
            "if it is part of a text, put the text in quotes; if it ends a key, look at the indentation",
        ),
        ErrorKind::ExpectedBlockMappingKey => {
            ("this does not line up with the keys above it".to_owned(), "look at the indentation")
        }
        ErrorKind::UnexpectedCharacter { character } => {
            (format!("{character:?} cannot start a value"), "if it is text, put it in quotes")
        }
        other => return (format!("not YAML: {other}"), None),
    };
    (message, Some(help))
}
