//! What is printed reads back, and no text makes the parsers panic.

use proptest::prelude::*;

use super::template::{Part, Template};
use super::{Condition, ConditionKind, Reference, Segment, SegmentKind};
use crate::diag::Span;

fn identifier() -> impl Strategy<Value = Box<str>> {
    "[A-Za-z_][A-Za-z0-9_-]{0,6}".prop_map(Into::into)
}

fn segment() -> impl Strategy<Value = Segment> {
    prop_oneof![
        identifier().prop_map(SegmentKind::Field),
        any::<String>().prop_map(|key| SegmentKind::Key(key.into())),
        any::<u32>().prop_map(SegmentKind::Index),
    ]
    .prop_map(|kind| Segment { kind, span: Span::default() })
}

fn reference() -> impl Strategy<Value = Reference> {
    let words = |root: &str| matches!(root, "null" | "true" | "false");
    (identifier(), prop::collection::vec(segment(), 0..4))
        .prop_filter("a bare word is a literal", move |(root, path)| !path.is_empty() || !words(root))
        .prop_map(|(root, path)| Reference { root, path, span: Span::default(), root_span: Span::default() })
}

fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        Just(ConditionKind::Null),
        any::<bool>().prop_map(ConditionKind::Bool),
        any::<i64>().prop_map(ConditionKind::Int),
        any::<String>().prop_map(|text| ConditionKind::Str(text.into())),
        reference().prop_map(ConditionKind::Reference),
    ]
    .prop_map(boxless);
    leaf.prop_recursive(6, 40, 2, |inner| {
        let pair = (inner.clone(), inner.clone()).prop_map(|(a, b)| (Box::new(a), Box::new(b)));
        prop_oneof![
            inner.prop_map(|c| ConditionKind::Not(Box::new(c))),
            pair.clone().prop_map(|(a, b)| ConditionKind::Equal(a, b)),
            pair.clone().prop_map(|(a, b)| ConditionKind::NotEqual(a, b)),
            pair.clone().prop_map(|(a, b)| ConditionKind::And(a, b)),
            pair.prop_map(|(a, b)| ConditionKind::Or(a, b)),
        ]
        .prop_map(boxless)
    })
}

fn boxless(kind: ConditionKind) -> Condition {
    Condition { kind, span: Span::default() }
}

/// Templates as the parser makes them: no empty text, no two texts side by side, not one reference alone. A text before a reference does not
/// end in `$`, since `$${` is the escape; that such a text cannot be written is the price of it.
fn template() -> impl Strategy<Value = Template> {
    let text = "[a-z$ {}.]{1,8}".prop_filter("no `$` at an end", |t| !t.ends_with('$'));
    let text = text.prop_map(|text| Part::Text(text.into()));
    let part = || reference().prop_map(Part::Reference);
    prop_oneof![
        "[a-z ]{0,12}".prop_map(|text| Template::Literal(text.into())),
        reference().prop_map(|reference| Template::Reference(Box::new(reference))),
        (text.clone(), part(), text).prop_map(|(a, b, c)| Template::Parts(vec![a, b, c])),
        (part(), part()).prop_map(|(a, b)| Template::Parts(vec![a, b])),
    ]
}

proptest! {
    #[test]
    fn a_printed_reference_reads_back(reference in reference()) {
        prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
    }

    #[test]
    fn a_printed_template_reads_back(template in template()) {
        prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
    }

    #[test]
    fn a_printed_condition_reads_back(condition in condition()) {
        prop_assert_eq!(Condition::parse(&condition.to_string()), Ok(condition));
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in any::<String>()) {
        super::tests::all_parsers(&text);
    }

    #[test]
    fn nothing_that_looks_like_an_expression_makes_the_parsers_panic(text in "[a-c.$\\{}()!=&|\"'\\[\\]0-9 ä\\\\-]{0,40}") {
        super::tests::all_parsers(&text);
    }
}
