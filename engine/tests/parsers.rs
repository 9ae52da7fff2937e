//! The parsers on random input: what the fuzz targets assert, and a second opinion on YAML.
#![expect(clippy::unwrap_used, reason = "this is all test code, functions outside of tests included")]

#[path = "../../fuzz/bodies.rs"]
mod bodies;

use std::fmt::Write;

use lifecycle_engine::diag::{Diagnostics, FileId};
use lifecycle_engine::yaml::{self, Kind, Node};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Text made of what YAML, plans and references are made of.
const PIECES: &str = "(plan|steps|uses|with|if|needs|params|for_each|each|a|b|0755|1.5|null|: |: \n|\n|\n  |\n    |- |- - |\\[|\\]|\\{|\\}|\"|'|\\$\\{|\\}|&a |\\*a|!|!!str |%|\\||>|#|---\n|\\.\\.\\.|\t|,|, | |==|&&|\\(|\\)|\\.|\\\\|ä|\u{feff}|\u{0}){0,40}";

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn yaml_is_read_or_refused(text in prop_oneof![any::<String>(), PIECES]) {
        bodies::yaml(&text);
    }

    #[test]
    fn expressions_are_read_or_refused(text in prop_oneof![any::<String>(), PIECES]) {
        bodies::expressions(&text);
    }

    #[test]
    fn plans_are_compiled_or_refused(text in prop_oneof![any::<String>(), PIECES]) {
        bodies::plan(&text);
    }

    #[test]
    fn documents_read_as_they_were_written_and_as_serde_yaml_reads_them(document in document()) {
        let mut text = String::new();
        document.write(&mut text, 0);
        // Whether a block at the very end of a file without a line break has one is where libyaml and others differ.
        text.push('\n');
        let mut found = Diagnostics::default();
        let tree = yaml::parse(&text, FileId::default(), &mut found);
        prop_assert!(found.is_empty(), "{text}\n{found:?}");
        let ours = tree.map(|tree| value(tree.root()));
        prop_assert_eq!(ours.as_ref(), Some(&document.value()), "{}", text);
        let theirs: Value = serde_yaml::from_str(&text).unwrap();
        prop_assert_eq!(ours, Some(theirs), "{}", text);
    }
}

fn value(node: Node<'_, '_>) -> Value {
    match node.kind() {
        Kind::Null => Value::Null,
        Kind::Bool(value) => value.into(),
        Kind::Int(value) => value.into(),
        Kind::Float(value) => value.into(),
        Kind::Str(text) => text.text.clone().into(),
        Kind::Seq(items) => items.iter().map(value).collect(),
        Kind::Map(entries) => {
            entries.iter().map(|(key, node)| (key.text.clone().into_owned(), value(node))).collect::<Map<_, _>>().into()
        }
    }
}

/// A document and how it is written.
#[derive(Clone, Debug)]
enum Document {
    /// A scalar that is not a string, as it is written.
    Bare(Value, String),
    /// A string and its style.
    Text(String, Style),
    /// A list, in brackets or in lines.
    List(Vec<Document>, bool),
    /// A mapping, in braces or in lines.
    Map(Vec<(String, Document)>, bool),
}

#[derive(Clone, Copy, Debug)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

fn document() -> impl Strategy<Value = Document> {
    let bare = prop_oneof![
        Just((Value::Null, "null".to_owned())),
        Just((Value::Null, "~".to_owned())),
        any::<bool>().prop_map(|value| (value.into(), value.to_string())),
        any::<i64>().prop_map(|value| (value.into(), value.to_string())),
        (-1_000_000i64..1_000_000, 1u32..100).prop_map(|(whole, part)| {
            let text = format!("{whole}.{part:02}");
            (json!(text.parse::<f64>().unwrap()), text)
        }),
        (0u32..100_000).prop_map(|value| (value.into(), format!("0x{value:x}"))),
    ]
    .prop_map(|(value, text)| Document::Bare(value, text));
    let plain = "[a-z][a-z0-9 _./-]{0,12}[a-z0-9]"
        .prop_filter("means something else", |text| !matches!(text.as_str(), "null" | "true" | "false"));
    let text = prop_oneof![
        plain.prop_map(|text| Document::Text(text, Style::Plain)),
        "[ -~äß€]{0,12}".prop_map(|text| Document::Text(text, Style::Single)),
        "[ -~\\n\\täß€\u{1}]{0,12}".prop_map(|text| Document::Text(text, Style::Double)),
        "([a-z][ -~]{0,8}\\n){1,3}".prop_map(|text| Document::Text(text, Style::Literal)),
    ];
    prop_oneof![bare, text].prop_recursive(4, 40, 5, |inner| {
        let entries = prop::collection::btree_map("[a-z_][a-z0-9_-]{0,6}", inner.clone(), 0..5);
        prop_oneof![
            (prop::collection::vec(inner, 0..5), any::<bool>()).prop_map(|(items, flow)| Document::List(items, flow)),
            (entries, any::<bool>()).prop_map(|(entries, flow)| Document::Map(entries.into_iter().collect(), flow)),
        ]
    })
}

impl Document {
    fn value(&self) -> Value {
        match self {
            Self::Bare(value, _) => value.clone(),
            Self::Text(text, _) => text.as_str().into(),
            Self::List(items, _) => items.iter().map(Self::value).collect(),
            Self::Map(entries, _) => {
                entries.iter().map(|(key, value)| (key.clone(), value.value())).collect::<Map<_, _>>().into()
            }
        }
    }

    /// Written after `- `, `key: `, or at the start.
    fn write(&self, out: &mut String, indent: usize) {
        let pad = " ".repeat(indent);
        match self {
            Self::List(items, false) if !items.is_empty() => {
                for item in items {
                    write!(out, "\n{pad}- ").unwrap();
                    item.write(out, indent + 2);
                }
            }
            Self::Map(entries, false) if !entries.is_empty() => {
                for (key, value) in entries {
                    write!(out, "\n{pad}\"{key}\": ").unwrap();
                    value.write(out, indent + 2);
                }
            }
            Self::Text(text, Style::Literal) => {
                out.push_str("|\n");
                for line in text.lines() {
                    writeln!(out, "{pad}  {line}").unwrap();
                }
                out.pop();
            }
            _ => self.flow(out),
        }
    }

    fn flow(&self, out: &mut String) {
        match self {
            Self::Bare(_, text) | Self::Text(text, Style::Plain) => out.push_str(text),
            Self::Text(text, Style::Single) => write!(out, "'{}'", text.replace('\'', "''")).unwrap(),
            // JSON's escapes are YAML's.
            Self::Text(text, Style::Double | Style::Literal) => out.push_str(&json!(text).to_string()),
            Self::List(items, _) => {
                out.push('[');
                for item in items {
                    item.flow(out);
                    out.push_str(", ");
                }
                out.push(']');
            }
            Self::Map(entries, _) => {
                out.push('{');
                for (key, value) in entries {
                    write!(out, "{key}: ").unwrap();
                    value.flow(out);
                    out.push_str(", ");
                }
                out.push('}');
            }
        }
    }
}
