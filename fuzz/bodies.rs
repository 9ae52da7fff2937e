//! What the fuzz targets assert. The engine's tests run the same on random input (`engine/tests/parsers.rs`), so that it is tested without a fuzzer.
#![allow(dead_code, clippy::allow_attributes, reason = "each target uses one of these")]

use lifecycle_engine::diag::{Diagnostics, FileId, Report, Sources, Style};
use lifecycle_engine::expr::{Condition, Reference, SyntaxError, Template};
use lifecycle_engine::yaml::{self, Kind, Node};
use lifecycle_engine::{compile, step::Registry};

/// No text makes the reader of YAML panic; every place of what it accepts is in the text, and a part lies within its whole unless an alias leads out.
pub fn yaml(text: &str) {
    let mut found = Diagnostics::default();
    if let Some(tree) = yaml::parse(text, FileId::default(), &mut found) {
        let mut budget = 10_000;
        places(text, tree.root(), &mut budget);
    }
    shown(text, found);
}

fn places(text: &str, node: Node<'_, '_>, budget: &mut u32) {
    assert!(text.get(node.span().range()).is_some(), "{:?}", node.span());
    // Aliases make a tree of a few bytes as large as the limit.
    if *budget == 0 {
        return;
    }
    *budget -= 1;
    match node.kind() {
        Kind::Str(string) => {
            if let Some(at) = string.verbatim {
                assert_eq!(&text[at as usize..at as usize + string.text.len()], string.text);
            }
        }
        Kind::Seq(items) => items.iter().for_each(|item| places(text, item, budget)),
        Kind::Map(entries) => {
            for (key, value) in entries.iter() {
                assert!(text.get(key.span.range()).is_some(), "{:?}", key.span);
                places(text, value, budget);
            }
        }
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => {}
    }
}

/// What is accepted prints as what reads back the same; what is refused points into the text.
pub fn expressions(text: &str) {
    let inside = |error: SyntaxError| assert!(text.get(error.span.range()).is_some(), "{error:?}");
    match Reference::parse(text) {
        Ok(reference) => assert_eq!(Reference::parse(&reference.to_string()), Ok(reference)),
        Err(error) => inside(error),
    }
    match Condition::parse(text) {
        Ok(condition) => assert_eq!(Condition::parse(&condition.to_string()), Ok(condition)),
        Err(error) => inside(error),
    }
    match Template::parse(text) {
        Ok(template) => template.references(&mut |reference| assert!(text.get(reference.span.range()).is_some())),
        Err(error) => inside(error),
    }
}

/// No text makes the compiler panic, and what it refuses can be shown.
pub fn plan(text: &str) {
    let registry = Registry::new([], []);
    if let Err(report) = compile::text("plan.yaml", text, &registry, compile::Library::default()) {
        assert!(!report.diagnostics().is_empty());
        show(&report);
    }
}

fn shown(text: &str, found: Diagnostics) {
    let mut sources = Sources::default();
    sources.add("plan.yaml", text);
    show(&found.into_report(sources));
}

fn show(report: &Report) {
    let rendered = report.render(Style::PLAIN);
    assert_eq!(rendered.is_empty(), report.diagnostics().is_empty());
}
