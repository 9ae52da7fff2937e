use std::fmt::Write as _;

use serde_json::json;

use super::*;
use crate::compile::tests::{compiled, registry};
use crate::diag::Style;
use crate::facts::Recorded;
use crate::step::Registry;

fn facts() -> Facts {
    Facts::fixed(Recorded { host: [("cwd".to_owned(), json!("/work/dir"))].into(), ..Recorded::default() })
}

fn target() -> Target {
    Target { root: "/run/lifecycle".into(), id: "default".into(), opened: Value::Null }
}

fn plan_with(registry: &Registry, text: &str, plans: &[(&str, &str)], set: &[&str]) -> Result<Program, Report> {
    let graph = compiled(text, registry, plans);
    let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
    let bound = bind(&graph, Given { set: &set, ..Given::default() })?;
    program(&graph, &bound, &mut facts(), target())
}

fn planned(text: &str, plans: &[(&str, &str)], set: &[&str]) -> Program {
    plan_with(&registry(), text, plans, set).unwrap_or_else(|report| panic!("{}", report.render(Style::PLAIN)))
}

fn refused(text: &str, plans: &[(&str, &str)], set: &[&str]) -> String {
    match plan_with(&registry(), text, plans, set) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(report) => report.render(Style::PLAIN),
    }
}

fn addresses(program: &Program) -> Vec<&str> {
    program.nodes.iter().map(|node| &*node.address).collect()
}

fn after(program: &Program, address: &str) -> Vec<String> {
    let node = &program.nodes[program.node(address).unwrap() as usize];
    node.after.iter().map(|id| program.nodes[*id as usize].address.to_string()).collect()
}

#[test]
fn values_are_computed_and_handles_pass_through() {
    let program = planned(
        r#"
plan: p
params: { id: { type: name }, key: { type: string, sensitive: true }, bundle: { type: path, default: . } }
run: "${params.id}"
steps:
  spec: { uses: spec.load, with: { bundle: "${params.bundle}/x", hostname: "h-${params.id}" } }
  init: { uses: process.clone, with: { namespaces: "${spec.namespaces}" } }
  file: { uses: file.write, with: { path: "rel/${spec.hostname}", text: "${init.pid}:${params.key}:${spec.args[0]}" }, if: spec.hostname != null }
  opt: { uses: file.write, if: init.pid == 5 && spec.args, with: { path: /a } }
outputs: { inode: "${file.inode}", text: "pid ${init.pid}", hostname: "${spec.hostname}" }
main: file
"#,
        &[],
        &["id=c1", "key=hunter2"],
    );
    assert_eq!((program.runs[0].id.as_str(), program.main), ("c1", vec![2]));
    assert_eq!(
        program.nodes[0].output["bundle"], "/work/dir/x",
        "a parameter's path is the caller's, and so is one that is made of it"
    );
    assert_eq!(program.nodes[2].output["path"], "/work/dir/rel/h-c1");
    assert_eq!(program.outputs["inode"], json!({ "$handle": { "step": "file", "effect": 0, "field": "inode" } }));
    assert_eq!(program.outputs["text"]["$text"][0], "pid ");
    assert_eq!(
        program.nodes[3].when.as_ref().unwrap().to_string(),
        "‹init.pid› == 5",
        "what is known has been decided"
    );
    assert_eq!(program.nodes[2].origin.line, 8);
}

#[test]
fn what_is_skipped_has_null_outputs_and_no_effects() {
    let text = r#"
plan: p
params: { on: { type: bool, default: false } }
steps:
  a: { uses: net.veth, if: params.on, with: { name: x } }
  b: { uses: spec.load, with: { bundle: /, hostname: "${a.name}" } }
  c: { uses: net.veth, if: params.on, with: { name: "${a.name}" } }
  init: { uses: process.clone, if: params.on }
  pivot: { uses: rootfs.pivot, site: "${init}" }
outputs: { name: "${a.name}" }
"#;
    let program = planned(text, &[], &[]);
    assert_eq!(program.nodes.iter().map(|node| node.skipped).collect::<Vec<_>>(), [true, false, true, true, true]);
    assert_eq!((&program.nodes[1].output["hostname"], &program.outputs["name"]), (&Value::Null, &Value::Null));
    let program = planned(text, &[], &["on=true"]);
    assert_eq!((&program.nodes[1].output["hostname"], &program.outputs["name"]), (&json!("x"), &json!("x")));
    assert_eq!(program.nodes[4].site, Some(3));
}

#[test]
fn for_each_makes_a_node_for_every_entry_and_a_map_of_outputs() {
    let program = planned(
        r#"
plan: p
params: { names: { type: list(name), default: [a, b] }, more: { type: map(path), default: { x: /x } } }
steps:
  veth: { uses: net.veth, for_each: "${params.names}", if: "each.key != 'b'", with: { name: "v-${each.value}" } }
  file: { uses: file.write, for_each: "${params.more}", with: { path: "${each.value}/${each.key}" } }
  list: { uses: file.write, for_each: [{ p: /1 }, { p: /2 }], with: { path: "${each.value.p}" } }
  one: { uses: spec.load, with: { bundle: "${list['1'].path}", hostname: "${veth.a.name}" } }
outputs: { all: "${veth}" }
"#,
        &[],
        &["more={x: /x, 'y z': ./y}"],
    );
    assert_eq!(
        addresses(&program),
        ["veth[\"a\"]", "veth[\"b\"]", "file[\"x\"]", "file[\"y z\"]", "list[\"0\"]", "list[\"1\"]", "one"]
    );
    assert_eq!(program.nodes[3].output["path"], "/work/dir/y/y z");
    assert_eq!(program.nodes[6].output["hostname"], "v-a");
    assert_eq!(program.outputs["all"], json!({ "a": { "name": "v-a", "kind": "network" }, "b": null }));
    assert_eq!(after(&program, "one"), ["veth[\"a\"]", "veth[\"b\"]", "list[\"0\"]", "list[\"1\"]"]);
}

const CONTAINER: &str = r#"
plan: container
params: { id: { type: name }, after: { type: any, required: false } }
run: "${params.id}"
steps:
  init: { uses: process.clone }
  state: { uses: file.write, with: { path: "/state/${params.id}", text: "${init.pid}" } }
  exec: { uses: process.exec, site: "${init}", needs: [state], with: { args: [sh] } }
  wait: { uses: process.wait, if: params.after != 'no', with: { process: "${init.process}" } }
outputs: { process: "${init.process}", state: "${state.path}", init: "${init}" }
main: wait
"#;

#[test]
fn a_plan_for_each_entry_is_a_run_for_each_entry() {
    let program = planned(
        r#"
plan: pod
params: { names: { type: list(name), default: [a, b] } }
steps:
  net: { uses: net.veth, with: { name: x } }
  c: { uses: "plan:container", for_each: "${params.names}", needs: [net], with: { id: "${each.value}" } }
  last: { uses: file.write, with: { path: "${c['b'].state}" } }
  wait: { uses: noop, needs: [c] }
outputs: { states: "${c}" }
"#,
        &[("container", CONTAINER)],
        &[],
    );
    assert_eq!(program.runs.iter().map(|run| run.id.as_str()).collect::<Vec<_>>(), ["default", "a", "b"]);
    assert_eq!(program.scopes.iter().map(|scope| &*scope.address).collect::<Vec<_>>(), ["", "c[\"a\"]", "c[\"b\"]"]);
    let node = |address: &str| &program.nodes[program.node(address).unwrap() as usize];
    assert_eq!((node("c[\"b\"]/exec").run, node("c[\"b\"]/exec").scope), (2, 2));
    assert_eq!(node("c[\"b\"]/exec").site, program.node("c[\"b\"]/init"), "each entry has a process of its own");
    assert_eq!(after(&program, "c[\"a\"]/state"), ["c[\"a\"]/init"]);
    let waits = after(&program, "c[\"a\"]/exec");
    assert!(waits.contains(&"c[\"a\"]/state".to_owned()) && !waits.contains(&"c[\"b\"]/init".to_owned()), "{waits:?}");
    assert_eq!(after(&program, "wait").len(), 2, "{:?}", after(&program, "wait"));
    assert_eq!(program.outputs["states"]["b"]["state"], "/state/b");
    assert!(
        program.nodes.iter().zip(0..).all(|(node, id)| node.after.iter().all(|before| *before < id)),
        "each after all that it waits for"
    );
}

#[test]
fn a_plan_opens_the_run_that_a_step_before_it_makes() {
    let opens = "plan: opens\nparams: { id: { type: name } }\nopens: { run: '${params.id}', plan: container }\nsteps:\n  wait: { uses: process.wait, with: { process: '${run.process}' } }\n  note: { uses: file.write, with: { path: '${run.state}' } }\n";
    let plans = &[("container", CONTAINER), ("opens", opens)];
    let text = "plan: p\nsteps:\n  c: { uses: 'plan:container', with: { id: x, after: no } }\n  o: { uses: 'plan:opens', with: { id: x } }\n";
    let program = planned(text, plans, &[]);
    assert_eq!(program.runs.len(), 2);
    let wait = &program.nodes[program.node("o/wait").unwrap() as usize];
    assert_eq!(wait.run, 1);
    assert!(after(&program, "o/wait").contains(&"c/exec".to_owned()));
    assert!(program.nodes[program.node("c/wait").unwrap() as usize].skipped);
    let other = "plan: p\nsteps:\n  c: { uses: 'plan:container', with: { id: x } }\n  o: { uses: 'plan:opens', with: { id: y } }\n";
    assert!(refused(other, plans, &[]).contains("nothing in this program makes the run `y`"));
    // By itself it opens a run that exists.
    let registry = registry();
    let graph = compiled(opens, &registry, plans);
    let bound = bind(&graph, Given { set: &["id=c9".to_owned()], ..Given::default() }).unwrap();
    assert_eq!(run_id(&graph, &bound).unwrap(), RunId { id: Some("c9".to_owned()), opens: true, beside: false });
    let opened =
        json!({ "process": { "$handle": { "step": "init", "effect": 0, "field": "" } }, "state": "/state/c9" });
    let program = super::program(&graph, &bound, &mut facts(), Target { opened, ..target() }).unwrap();
    assert!(program.opens && program.nodes[1].output["path"] == "/state/c9");
}

#[test]
fn parameters_of_a_plan_are_checked_wherever_they_come_from() {
    let text = r#"
plan: p
params:
  id: { type: name, about: The id. }
  n: { type: int, default: 1 }
  list: { type: list(size), default: [] }
  any: { type: any, required: false }
  secret: { type: string, sensitive: true, default: none }
  number: { type: int, sensitive: true, default: 1 }
  process: { type: handle(process), required: false }
steps:
  a: { uses: file.write, with: { path: "/${params.id}/${params.n}", text: "${params.secret}${params.number}" } }
  b: { uses: noop, if: params.list == params.any }
  c: { uses: process.wait, if: params.process != null, with: { process: "${params.process}" } }
"#;
    let registry = registry();
    let graph = compiled(text, &registry, &[]);
    let mut shown = String::new();
    let cases: &[(&str, &[&str], Option<&str>)] = &[
        ("nothing given", &[], None),
        ("of the wrong type", &["id=a b", "n=many", "list=[64M, lots]", "process=5"], None),
        ("unknown, and not a pair", &["idd=x", "id"], None),
        ("not YAML", &["id=x", "list=[1", "any=*x"], None),
        ("in a file", &["id=x"], Some("n: '3'\nlist: 64M\nother: 1\nn: 4\n")),
        ("a file of another shape", &["id=x"], Some("- id\n")),
        ("secrets are not shown", &["id=x", "number=hunter2"], Some("secret: [hunter3]\nn: x\n")),
    ];
    for (name, set, file) in cases {
        let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
        let given = Given { set: &set, file: file.map(|text| ("params.yaml", text)), command: &[] };
        write!(shown, "# {name}\n\n{}", bind(&graph, given).unwrap_err().render(Style::PLAIN)).unwrap();
    }
    let command = ["sh".to_owned(), "-c".to_owned()];
    let given = Given { set: &["id=x".to_owned()], file: None, command: &command };
    write!(shown, "# a command that nobody takes\n\n{}", bind(&graph, given).unwrap_err().render(Style::PLAIN))
        .unwrap();
    assert!(!shown.contains("hunter"), "{shown}");
    crate::testing::snapshot("diag/params", &shown);

    let set = ["n=5".to_owned(), "n=6".to_owned(), "any={a: [1, x]}".to_owned()];
    let bound = bind(&graph, Given { set: &set, file: Some(("p.json", "{\"id\": \"${x}\", \"n\": 4}")), command: &[] });
    assert!(bound.is_err(), "a reference means nothing in a parameter, and is no name");
    let bound =
        bind(&graph, Given { set: &set, file: Some(("p.json", "{\"id\": \"y\", \"n\": 4}")), command: &[] }).unwrap();
    let values: Vec<&Value> = (0..5).filter_map(|index| bound.value(index)).collect();
    assert_eq!(
        values,
        [&json!("y"), &json!(6), &json!([]), &json!({ "a": [1, "x"] }), &json!({ "$sensitive": "none" })]
    );
}

#[test]
fn what_cannot_be_planned_is_reported_at_the_field() {
    let cases = [
        (
            "a step refuses its input, and what depends on it is silent",
            "plan: p\nsteps:\n  a: { uses: file.write, with: { path: /forbidden/x } }\n  b: { uses: file.write, with: { path: '${a.path}' } }\n  c: { uses: file.write, with: { path: /forbidden } }\n",
        ),
        (
            "a value turns out not to fit",
            "plan: p\nsteps:\n  spec: { uses: spec.load, with: { bundle: /x, hostname: 'a b' } }\n  a: { uses: net.veth, if: spec.hostname != null, with: { name: '${spec.hostname}' } }\n",
        ),
        (
            "an index past the end, and an entry that is not there",
            "plan: p\nsteps:\n  spec: { uses: spec.load, with: { bundle: / } }\n  a: { uses: net.veth, with: { name: '${spec.args[7]}' } }\n  b: { uses: net.veth, for_each: [x, y], with: { name: '${each.key}' } }\n  c: { uses: net.veth, with: { name: '${b.z.name}' } }\n",
        ),
        (
            "two entries of one name",
            "plan: p\nsteps:\n  b: { uses: net.veth, for_each: [x, x], with: { name: '${each.key}' } }\n",
        ),
        ("two runs of one name", "plan: p\nrun: x\nsteps:\n  c: { uses: 'plan:container', with: { id: x } }\n"),
    ];
    let mut shown = String::new();
    for (name, text) in cases {
        write!(shown, "# {name}\n\n{}", refused(text, &[("container", CONTAINER)], &[])).unwrap();
    }
    crate::testing::snapshot("diag/planning", &shown);
}
