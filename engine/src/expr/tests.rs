use std::fmt::Write as _;

use super::template::Part;
use super::*;

/// What the fuzz targets run: every parser; what it accepts is printed, read again, and is the same; what it refuses points into the text.
pub(super) fn all_parsers(text: &str) {
    let inside = |error: SyntaxError| {
        assert!(text.get(error.span.range()).is_some(), "{text:?}: {error:?}");
    };
    match Reference::parse(text) {
        Ok(reference) => assert_eq!(Reference::parse(&reference.to_string()), Ok(reference)),
        Err(error) => inside(error),
    }
    match Condition::parse(text) {
        Ok(condition) => assert_eq!(Condition::parse(&condition.to_string()), Ok(condition)),
        Err(error) => inside(error),
    }
    match Template::parse(text) {
        Ok(template) => template.references(&mut |r| assert!(text.get(r.span.range()).is_some())),
        Err(error) => inside(error),
    }
}

#[test]
fn references_name_parameters_outputs_keys_and_entries() {
    for text in [
        "params.id",
        "spec.hooks.createRuntime",
        "veth[\"a\"].name",
        "each.key",
        "run.pid",
        "init",
        "a-b.c-d",
        "s.list[3].x[\"io.kubernetes/x\"]",
    ] {
        assert_eq!(Reference::parse(text).unwrap().to_string(), text);
    }
    let reference = Reference::parse("veth['a'].name").unwrap();
    assert_eq!(&*reference.root, "veth");
    assert_eq!(reference.path.iter().map(|s| s.span).collect::<Vec<_>>(), [Span::new(4, 9), Span::new(9, 14)]);
}

#[test]
fn a_text_that_is_one_reference_keeps_it() {
    let Ok(Template::Reference(reference)) = Template::parse("${init.pid}") else { panic!() };
    assert_eq!(reference.span, Span::new(2, 10));
    assert!(matches!(Template::parse(" ${init.pid}"), Ok(Template::Parts(parts)) if parts.len() == 2));
}

#[test]
fn a_text_may_hold_several_references() {
    let Ok(Template::Parts(parts)) = Template::parse("/run/${params.id}/${ spec.name }.sock") else { panic!() };
    let shown: Vec<String> = parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => text.to_string(),
            Part::Reference(reference) => format!("<{reference}>"),
        })
        .collect();
    assert_eq!(shown, ["/run/", "<params.id>", "/", "<spec.name>", ".sock"]);
}

#[test]
fn two_dollars_and_a_brace_are_a_literal() {
    for (text, literal) in
        [("$${HOME}", "${HOME}"), ("$HOME", "$HOME"), ("5$", "5$"), ("$$", "$$"), ("$$$${x}", "$$${x}")]
    {
        assert_eq!(Template::parse(text), Ok(Template::Literal(literal.into())), "{text}");
    }
}

#[test]
fn conditions_bind_as_everywhere() {
    for (text, printed) in [
        ("a.x == 1 && !b.y || c.z != 'q'", "((a.x == 1) && !b.y) || (c.z != \"q\")"),
        ("!(a || b) && ${c.d}", "!(a || b) && c.d"),
        ("a && b && c", "a && b && c"),
        ("a && (b && c)", "a && (b && c)"),
        ("x == -5", "x == -5"),
        ("x == null || x == true", "(x == null) || (x == true)"),
        ("!!a", "!!a"),
    ] {
        assert_eq!(Condition::parse(text).unwrap().to_string(), printed, "{text}");
    }
}

#[test]
fn depth_is_bounded() {
    for text in ["(".repeat(100_000), "!".repeat(100_000), format!("a{}", " && a".repeat(100_000))] {
        assert!(Condition::parse(&text).is_err());
    }
}

#[test]
fn mistakes_are_explained_where_they_are() {
    let mut shown = String::new();
    let templates = [
        "${",
        "${}",
        "${params.id",
        "${a b}",
        "${a.}",
        "${a == b}",
        "${9lives}",
        "${a.9}",
        "${a[}",
        "${a[x]}",
        "${a[99999999999]}",
        "${a[\"b}",
        "${a[\"\\x\"]}",
        "${.a}",
    ];
    let conditions = [
        "",
        "a =",
        "a = b",
        "a == b == c",
        "a & b",
        "a | b",
        "a < 3",
        "a b",
        "(a",
        "a)",
        "'open",
        "3x",
        "1.5",
        "${a",
        "&& a",
        "a == ",
    ];
    for (text, error) in templates
        .map(|text| (text, Template::parse(text).map(drop)))
        .into_iter()
        .chain(conditions.map(|text| (text, Condition::parse(text).map(drop))))
    {
        let error = error.expect_err(text);
        let span = error.span;
        let mark = format!(
            "{}{}",
            " ".repeat(text[..span.start as usize].chars().count()),
            "^".repeat(text[span.range()].chars().count().max(1))
        );
        write!(
            shown,
            "{text}\n{mark} {}{}\n\n",
            error.message,
            error.help.map(|h| format!(" ({h})")).unwrap_or_default()
        )
        .unwrap();
    }
    crate::testing::snapshot("diag/expressions", &shown);
}
