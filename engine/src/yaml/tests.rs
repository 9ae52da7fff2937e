use std::fmt::Write as _;

use super::*;
use crate::diag::{Diagnostics, FileId, Sources, Style};

/// The tree as JSON, for short assertions.
pub(super) fn json(node: Node<'_, '_>) -> serde_json::Value {
    match node.kind() {
        Kind::Null => serde_json::Value::Null,
        Kind::Bool(value) => value.into(),
        Kind::Int(value) => value.into(),
        Kind::Float(value) => value.into(),
        Kind::Str(text) => text.text.clone().into(),
        Kind::Seq(items) => items.iter().map(json).collect(),
        Kind::Map(entries) => entries
            .iter()
            .map(|(key, node)| (key.text.clone().into_owned(), json(node)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

fn read(text: &str) -> serde_json::Value {
    let mut found = Diagnostics::default();
    let tree = parse(text, FileId::default(), &mut found).unwrap();
    assert!(found.is_empty(), "{found:?}");
    json(tree.root())
}

/// Every string's place, to see that places are exact.
fn places<'t>(text: &'t str, node: Node<'_, '_>, out: &mut Vec<&'t str>) {
    out.push(&text[node.span().range()]);
    match node.kind() {
        Kind::Seq(items) => items.iter().for_each(|node| places(text, node, out)),
        Kind::Map(entries) => {
            for (key, node) in entries.iter() {
                out.push(&text[key.span.range()]);
                places(text, node, out);
            }
        }
        _ => {}
    }
}

#[test]
fn scalars_follow_the_core_schema() {
    let text = "[null, ~, true, False, 12, -3, +4, 0x1f, 0o17, 1.5, 1e3, .5, 5., on, yes, no, '12', \"true\", 1_000, 0x, 1e, 64M, 5s, 10:30]";
    assert_eq!(
        read(text),
        serde_json::json!([
            null, null, true, false, 12, -3, 4, 31, 15, 1.5, 1000.0, 0.5, 5.0, "on", "yes", "no", "12", "true",
            "1_000", "0x", "1e", "64M", "5s", "10:30"
        ])
    );
}

#[test]
fn every_node_knows_its_bytes() {
    let text = "plan: ä\nsteps:\n  a: { uses: \"x.y\", with: ['q', 3] }\n";
    let mut found = Diagnostics::default();
    let tree = parse(text, FileId::default(), &mut found).unwrap();
    let mut all = Vec::new();
    places(text, tree.root(), &mut all);
    let whole = text.trim_end();
    let steps = "a: { uses: \"x.y\", with: ['q', 3] }";
    let a = "{ uses: \"x.y\", with: ['q', 3] }";
    assert_eq!(all, [whole, "plan", "ä", "steps", steps, "a", a, "uses", "\"x.y\"", "with", "['q', 3]", "'q'", "3"]);
}

#[test]
fn a_place_in_a_text_is_known_where_the_file_holds_the_text_as_it_is() {
    let text = "- plain\n- 'single'\n- \"double\"\n- 'it''s'\n- \"a\\nb\"\n- |\n  block\n";
    let mut found = Diagnostics::default();
    let tree = parse(text, FileId::default(), &mut found).unwrap();
    let Kind::Seq(items) = tree.root().kind() else { panic!() };
    for node in items.iter() {
        let Kind::Str(string) = node.kind() else { panic!() };
        match string.verbatim {
            Some(at) => assert_eq!(&text[at as usize..][..string.text.len()], string.text),
            None => assert!(["it's", "a\nb", "block\n"].contains(&&*string.text)),
        }
    }
}

#[test]
fn aliases_share_a_node() {
    assert_eq!(
        read("a: &x { b: [1, 2] }\nc: *x\nd: [*x, *x]\n"),
        serde_json::json!({"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": [{"b": [1, 2]}, {"b": [1, 2]}]})
    );
}

#[test]
fn an_empty_file_is_one_null() {
    assert_eq!(read(""), serde_json::Value::Null);
    assert_eq!(read("# only a comment\n"), serde_json::Value::Null);
    assert_eq!(read("\u{feff}a: 1\n"), serde_json::json!({"a": 1}));
}

#[test]
fn mistakes_in_yaml_are_explained() {
    let cases = [
        ("duplicate key", "steps:\n  a: 1\n  b: 2\n  a: 3\n"),
        ("two documents", "a: 1\n---\nb: 2\n"),
        ("tab", "a:\n\tb: 1\n"),
        ("leading zero", "mode: 0755\n"),
        ("too large", "n: 99999999999999999999\n"),
        ("not finite", "n: .inf\n"),
        ("merge key", "a: &x { b: 1 }\nc:\n  <<: *x\n  d: 2\n"),
        ("unknown alias", "a: *nothing\n"),
        ("alias inside its anchor", "a: &x [1, *x]\n"),
        ("tag", "a: !!str 5\nb: !secret x\n"),
        ("directive", "%YAML 1.1\n---\na: 1\n"),
        ("list as key", "? [1, 2]\n: x\n"),
        ("alias as key", "a: &x b\n*x : c\n"),
        ("unclosed quote", "a: \"never\nb: 1\n"),
        ("unclosed bracket", "a: [1, 2\nb: 1\n"),
        ("wrong bracket", "a: [1, 2}\n"),
        ("colon in a text", "about: one: two\n"),
        ("indentation", "a:\n    b: 1\n  c: 2\n"),
        ("reserved character", "a: @home\n"),
    ];
    let mut shown = String::new();
    for (name, text) in cases {
        let mut sources = Sources::default();
        let file = sources.add("plan.yaml", text);
        let mut found = Diagnostics::default();
        parse(text, file, &mut found);
        assert!(!found.is_empty(), "{name} was accepted");
        write!(shown, "# {name}\n\n{}", found.into_report(sources).render(Style::PLAIN)).unwrap();
    }
    crate::testing::snapshot("diag/yaml", &shown);
}
