use std::fmt::Write as _;

use super::*;
use crate::diag::{Diagnostics, Sources, Style};
use crate::expr::Template;

/// Reads a plan without mistakes.
fn plan(text: &str) -> Plan {
    let mut found = Diagnostics::default();
    let plan = parse(text, FileId::default(), &mut found).unwrap();
    assert!(found.is_empty(), "{found:?}");
    plan
}

const WHOLE: &str = r#"
plan: oci/create
about: Create a container.
params:
  id: { type: name, about: Container id }
  bundle: { type: path, default: . }
  names: { type: list(string), required: false }
  key: { type: string, sensitive: true }
run: "${params.id}"
steps:
  spec:
    uses: spec.load
    with: { bundle: "${params.bundle}" }
  link:
    uses: net.veth
    for_each: "${params.names}"
    if: spec.network != null && ${each.key} != 'lo'
    with: { name: "v-${each.value}", alias: 'a "${params.id}"' }
    timeout: 5s
    retry: { count: 3, backoff: 250ms }
    continue-on-error: true
  init:
    uses: process.clone
    needs: [link]
  pivot:
    uses: rootfs.pivot
    site: ${init}
outputs:
  init: "${init}"
main: pivot
"#;

#[test]
fn every_key_of_the_language_is_read() {
    let plan = plan(WHOLE);
    assert_eq!((&*plan.name.value, &*plan.about), ("oci/create", "Create a container."));
    assert_eq!(
        plan.params.iter().map(|p| (p.required, p.sensitive, p.ty.value.to_string())).collect::<Vec<_>>(),
        [
            (true, false, "name".to_owned()),
            (false, false, "path".to_owned()),
            (false, false, "list(string)".to_owned()),
            (true, true, "string".to_owned())
        ]
    );
    let link = &plan.steps[1];
    let extras = link.extras.as_ref().unwrap();
    assert_eq!(extras.condition.as_ref().unwrap().value.to_string(), "(spec.network != null) && (each.key != \"lo\")");
    assert_eq!(extras.timeout.as_ref().unwrap().value, Duration::from_secs(5));
    assert_eq!(extras.retry.as_ref().unwrap().value, Retry { count: 3, backoff: Duration::from_millis(250) });
    assert!(extras.continue_on_error.as_ref().unwrap().value);
    assert_eq!(plan.steps[2].needs[0].value, "link".into());
    assert_eq!(&*plan.main[0].value, "pivot");
    assert!(plan.run.is_some() && plan.outputs.len() == 1);
}

#[test]
fn every_reference_knows_its_place_in_the_file() {
    let plan = plan(WHOLE);
    let mut seen = Vec::new();
    for step in &plan.steps {
        step.with.iter().for_each(|(_, arg)| arg.references(&mut |r| seen.push((r.to_string(), r.span))));
        if let Some(condition) = step.extras.as_ref().and_then(|e| e.condition.as_ref()) {
            condition.value.references(&mut |r| seen.push((r.to_string(), r.span)));
        }
    }
    assert_eq!(seen.len(), 5);
    for (text, span) in seen {
        assert_eq!(&WHOLE[span.range()], text);
    }
}

#[test]
fn a_literal_reference_sign_is_text() {
    let plan = plan("plan: p\nsteps:\n  a: { uses: x.y, with: { text: \"$${HOME}\" } }\n");
    assert_eq!(plan.steps[0].with[0].1.kind, ArgKind::Text(Template::Literal("${HOME}".into())));
}

#[test]
fn an_escaped_text_points_at_the_whole_value() {
    let text = "plan: p\nsteps:\n  a: { uses: x.y, with: { text: \"a\\n${b.c}\" } }\n";
    let plan = plan(text);
    let mut span = None;
    plan.steps[0].with[0].1.references(&mut |r| span = Some(r.span));
    assert_eq!(&text[span.unwrap().range()], "\"a\\n${b.c}\"");
}

#[test]
fn mistakes_in_a_plan_are_explained() {
    let step = |text: &str| format!("plan: p\nsteps:\n  a:\n    uses: x.y\n    {text}\n");
    let cases = [
        ("an empty file", String::new()),
        ("a list", "- a\n".to_owned()),
        ("nothing but a name", "plan: p\n".to_owned()),
        ("no name", "steps: {}\n".to_owned()),
        ("a bad name", "plan: 'a b'\nsteps: {}\n".to_owned()),
        ("unknown keys", "plan: p\non: push\njobs: {}\nstep: {}\ncolour: red\nsteps: {}\n".to_owned()),
        ("a list of steps", "plan: p\nsteps:\n  - uses: x.y\n".to_owned()),
        ("ids", "plan: p\nsteps:\n  each: { uses: x.y }\n  9a: { uses: x.y }\n  b: run it\n  c: {}\n".to_owned()),
        ("traps of a step", step("depends_on: [b]\n    when: x\n    kind: z\n    args: {}\n    name: n\n    env: {}\n    whit: {}")),
        ("needs", step("needs: [b, '${c}', b, 5]")),
        ("needs of another shape", step("needs: { b: c }")),
        ("a condition", step("if: a = b")),
        ("a condition of another shape", step("if: [a]")),
        ("durations", step("timeout: 5\n    retry: { backoff: soon, count: 1 }")),
        ("retry", step("retry: { backoff: 1s }")),
        ("retry too often", step("retry: 100000")),
        ("continue-on-error", step("continue-on-error: yes")),
        ("site", step("site: init")),
        ("for_each", step("for_each: 3")),
        ("with", step("with: [a]")),
        ("uses with a reference", "plan: p\nsteps: { a: { uses: \"${params.kind}\" } }\n".to_owned()),
        ("an open reference", step("with: { a: \"x ${b.c\" }")),
        ("parameters", "plan: p\nparams:\n  a: string\n  b: { type: list }\n  c: { type: lst(int) }\n  d: { type: 'a b' }\n  e: { default: 1, required: true }\n  f: { default: \"${params.a}\" }\n  g: { sensitive: 1, about: 5 }\n  h: { typ: int }\nsteps: {}\n".to_owned()),
        ("opens", "plan: p\nopens: { plan: oci/create }\nsteps: {}\n".to_owned()),
        ("opens of another shape", "plan: p\nopens: oci/create\nsteps: {}\n".to_owned()),
    ];
    let mut shown = String::new();
    for (name, text) in cases {
        let mut sources = Sources::default();
        let file = sources.add("plan.yaml", text.as_str());
        let mut found = Diagnostics::default();
        parse(&text, file, &mut found);
        assert!(!found.is_empty(), "{name} was accepted");
        write!(shown, "# {name}\n\n{}", found.into_report(sources).render(Style::PLAIN)).unwrap();
    }
    crate::testing::snapshot("diag/plan", &shown);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(plan|steps|uses|with|if|needs|params|retry|a|b|: |\n|\n  |\n    |- |\\[|\\]|\\{|\\}|\"|'|\\$\\{|&|\\*|!|1|,| ){0,60}") {
        let mut found = Diagnostics::default();
        let _ = parse(&text, FileId::default(), &mut found);
        let mut sources = Sources::default();
        sources.add("p", text.as_str());
        let _ = found.into_report(sources).render(Style::PLAIN);
    }
}
