use super::*;

const CREATE: &str = r#"
plan: oci/create
params:
  id: { type: name }
run: "${params.id}"
steps:
  spec: { uses: spec.load, with: { bundle: . } }
  init: { uses: process.clone, with: { namespaces: "${spec.namespaces}" } }
  pivot: { uses: rootfs.pivot, site: "${init}" }
  exec: { uses: process.exec, site: "${init}", with: { args: "${spec.args}" } }
  fifo: { uses: fifo.wait, site: "${init}" }
  privileges: { uses: process.privileges, site: "${init}", needs: [fifo] }
  state: { uses: file.write, with: { path: /state, text: "${init.pid}" } }
outputs:
  process: "${init.process}"
  init: "${init}"
"#;

const START: &str = r#"
plan: oci/start
params:
  id: { type: name }
opens: { run: "${params.id}", plan: oci/create }
steps:
  release: { uses: fifo.release, with: { process: "${run.process}" } }
  poststart: { uses: hooks.poststart, needs: [release] }
"#;

const PLANS: &[(&str, &str)] = &[("oci/create", CREATE), ("oci/start", START)];

fn order(graph: &Graph<'_>) -> Vec<String> {
    graph.order.iter().map(|item| graph.address(*item)).collect()
}

/// What a leaf waits for, with the reasons.
fn waits(graph: &Graph<'_>, address: &str) -> Vec<(String, Why)> {
    let item = (0..graph.items.len() as u32).find(|item| graph.address(*item) == address).unwrap();
    graph.edges.of(item).iter().map(|edge| (graph.address(edge.from), edge.why)).collect()
}

#[test]
fn leaves_come_after_what_they_wait_for_and_else_in_the_order_of_the_file() {
    let registry = registry();
    let graph = compiled(CREATE, &registry, &[]);
    assert_eq!(order(&graph), ["spec", "init", "pivot", "state", "fifo", "privileges", "exec"]);
    assert_eq!(
        waits(&graph, "exec"),
        [
            ("spec".to_owned(), Why::Reference),
            ("init".to_owned(), Why::Site),
            ("fifo".to_owned(), Why::Kind),
            ("privileges".to_owned(), Why::Kind)
        ]
    );
}

#[test]
fn what_follows_the_arming_step_is_armed_and_its_commit_waits_there() {
    let registry = registry();
    let graph = compiled(CREATE, &registry, &[]);
    let armed: Vec<String> =
        (0..graph.items.len() as u32).filter(|i| graph.items[*i as usize].armed).map(|i| graph.address(i)).collect();
    assert_eq!(armed, ["exec", "privileges"]);
    assert!(waits(&graph, "fifo").contains(&("state".to_owned(), Why::Commit)));
}

const CONTAINER: &str = r#"
steps:
  init: { uses: process.clone }
  cable: { uses: file.write, with: { path: /cable, text: "${init.pid}" } }
  exec: { uses: process.exec, site: "${init}", with: { args: [sh] } }
  a: { uses: noop }
  b: { uses: noop, needs: [a] }
  after: { uses: noop, needs: [exec] }
  wait: { uses: process.wait, with: { process: "${init.process}" } }
  report: { uses: noop, needs: [wait] }
"#;

#[test]
fn a_commit_of_a_run_that_stays_waits_for_the_last_of_what_can_be_taken_back() {
    let registry = registry();
    let graph = compiled(&format!("plan: p\nrun: web{CONTAINER}"), &registry, &[]);
    let of = |from: &str, why| (from.to_owned(), why);
    assert_eq!(waits(&graph, "exec"), [of("init", Why::Site), of("cable", Why::Commit), of("b", Why::Commit)]);
    assert_eq!(order(&graph), ["init", "cable", "a", "b", "exec", "after", "wait", "report"]);
}

#[test]
fn the_exec_of_a_container_that_the_run_ends_waits_only_for_what_is_done_to_its_process() {
    let registry = registry();
    let graph = compiled(&format!("plan: p{CONTAINER}"), &registry, &[]);
    let of = |from: &str, why| (from.to_owned(), why);
    assert_eq!(waits(&graph, "exec"), [of("init", Why::Site), of("cable", Why::Commit)]);
    // Others see what a hook does, so it waits for all.
    let text = format!("plan: p{CONTAINER}  hook: {{ uses: hooks.poststart, needs: [exec] }}\n");
    let graph = compiled(&text, &registry, &[]);
    let waited = waits(&graph, "hook");
    assert_eq!(waited[1..], [of("exec", Why::Needs), of("b", Why::Commit), of("after", Why::Commit)]);
    // To end it is nobody else's business either.
    let text =
        format!("plan: p{CONTAINER}  kill: {{ uses: process.kill, with: {{ process: '${{init.process}}' }} }}\n");
    assert_eq!(waits(&compiled(&text, &registry, &[]), "kill"), [of("init", Why::Reference)]);
}

#[test]
fn what_waits_for_a_program_comes_after_its_exec() {
    let registry = registry();
    let graph = compiled(&format!("plan: p{CONTAINER}"), &registry, &[]);
    let of = |from: &str, why| (from.to_owned(), why);
    assert_eq!(waits(&graph, "wait"), [of("init", Why::Reference), of("exec", Why::Program)]);
    // Through a plan's outputs; where another plan releases the exec, after that and after the step which arms it.
    let text = r#"
plan: p
steps:
  create: { uses: "plan:oci/create", with: { id: a } }
  start: { uses: "plan:oci/start", with: { id: a } }
  wait: { uses: process.wait, with: { process: "${create.process}" } }
  report: { uses: noop, needs: [wait] }
"#;
    let graph = compiled(text, &registry, PLANS);
    assert_eq!(
        waits(&graph, "wait"),
        [of("create/init", Why::Reference), of("create/fifo", Why::Program), of("start/release", Why::Program)]
    );
    // Another run releases it: nothing here can be waited for but that it is armed.
    let text = "plan: p\nsteps:\n  create: { uses: 'plan:oci/create', with: { id: a } }\n  wait: { uses: process.wait, with: { process: '${create.process}' } }\n  report: { uses: noop, needs: [wait] }\n";
    let graph = compiled(text, &registry, PLANS);
    assert_eq!(waits(&graph, "wait"), [of("create/init", Why::Reference), of("create/fifo", Why::Program)]);
}

#[test]
fn a_commit_does_not_wait_for_what_follows_a_wait() {
    let registry = registry();
    // What `answers` waits for may be the very program: nothing in the plan says that it is not.
    let text = r#"
plan: p
run: web
steps:
  other: { uses: process.clone }
  init: { uses: process.clone }
  exec: { uses: process.exec, site: "${init}", with: { args: [sh] } }
  answers: { uses: process.wait, with: { process: "${other.process}" } }
  client: { uses: noop, needs: [answers] }
"#;
    let graph = compiled(text, &registry, &[]);
    let of = |from: &str, why| (from.to_owned(), why);
    assert_eq!(waits(&graph, "exec"), [of("other", Why::Commit), of("init", Why::Site)]);
}

#[test]
fn two_containers_each_with_a_step_after_its_exec_do_not_wait_for_each_other() {
    let registry = registry();
    let one = |n: u32| {
        format!(
            "  init{n}: {{ uses: process.clone }}\n  exec{n}: {{ uses: process.exec, site: \"${{init{n}}}\", with: {{ args: [sh] }} }}\n  after{n}: {{ uses: noop, needs: [exec{n}] }}\n"
        )
    };
    let graph = compiled(&format!("plan: p\nrun: both\nsteps:\n{}{}", one(1), one(2)), &registry, &[]);
    assert_eq!(graph.order.len(), 6);
    assert!(waits(&graph, "exec1").contains(&("init2".to_owned(), Why::Commit)));
    assert!(waits(&graph, "exec2").contains(&("init1".to_owned(), Why::Commit)));
}

#[test]
fn a_plan_as_a_step_is_ordered_by_what_it_uses_of_others_and_others_of_it() {
    let registry = registry();
    let text = r#"
plan: oci/run
params:
  id: { type: name }
steps:
  before: { uses: net.veth, with: { name: "${params.id}" } }
  create: { uses: "plan:oci/create", with: { id: "${params.id}" }, needs: [before] }
  start: { uses: "plan:oci/start", with: { id: "${params.id}" } }
  wait: { uses: process.wait, with: { process: "${create.process}" } }
  last: { uses: noop, needs: [create] }
main: wait
"#;
    let graph = compiled(text, &registry, PLANS);
    assert_eq!(
        order(&graph),
        [
            "before",
            "create/spec",
            "create/init",
            "create/pivot",
            "create/state",
            "create/fifo",
            "create/privileges",
            "create/exec",
            "last",
            "start/release",
            "start/poststart",
            "wait"
        ]
    );
    assert!(waits(&graph, "create/spec").contains(&("before".to_owned(), Why::Needs)));
    assert!(waits(&graph, "start/release").contains(&("create/init".to_owned(), Why::Reference)));
    assert!(waits(&graph, "start/release").contains(&("create/fifo".to_owned(), Why::Opens)));
    assert!(
        !waits(&graph, "last").iter().any(|(from, _)| from == "create/exec"),
        "what another run releases is not waited for"
    );
    assert_eq!(
        waits(&graph, "wait"),
        [
            ("create/init".to_owned(), Why::Reference),
            ("create/fifo".to_owned(), Why::Program),
            ("start/release".to_owned(), Why::Program)
        ]
    );
}

#[test]
fn a_site_is_found_through_parameters_and_outputs() {
    let registry = registry();
    let text = r#"
plan: p
steps:
  create: { uses: "plan:oci/create", with: { id: a } }
  pivot: { uses: rootfs.pivot, site: "${create.init}" }
  nested: { uses: "plan:inside", with: { process: "${create.process}" } }
"#;
    let inside = "plan: inside\nparams: { process: { type: handle(process) } }\nsteps: { a: { uses: rootfs.pivot, site: \"${params.process}\" } }\n";
    let graph = compiled(text, &registry, &[PLANS[0], ("inside", inside)]);
    let init = (0..graph.items.len() as u32).find(|item| graph.address(*item) == "create/init").unwrap();
    let inside: Vec<String> = (0..graph.items.len() as u32)
        .filter(|i| graph.items[*i as usize].site == init)
        .map(|i| graph.address(i))
        .collect();
    assert_eq!(inside, ["pivot", "create/pivot", "create/exec", "create/fifo", "create/privileges", "nested/a"]);
    assert!(graph.items.iter().all(|item| item.site == NONE || item.site == init));
}

#[test]
fn a_plan_used_often_is_kept_once() {
    let registry = registry();
    let uses = (0..100).fold(String::new(), |uses, n| {
        uses + &format!("  c{n}: {{ uses: 'plan:oci/create', with: {{ id: c{n} }} }}\n")
    });
    let graph = compiled(&format!("plan: p\nsteps:\n{uses}"), &registry, PLANS);
    assert_eq!((graph.units.len(), graph.scopes.len(), graph.order.len()), (2, 101, 700));
}

#[test]
fn outputs_that_use_outputs_twice_take_linear_time() {
    let registry = registry();
    let mut plans = vec![(
        "l0".to_owned(),
        "plan: l0\nsteps: { a: { uses: net.veth, with: { name: x } } }\noutputs: { x: \"${a.name}\" }\n".to_owned(),
    )];
    for level in 1..30 {
        let text = format!(
            "plan: l{level}\nsteps: {{ a: {{ uses: 'plan:l{}' }} }}\noutputs: {{ x: \"${{a.x}}${{a.x}}\" }}\n",
            level - 1
        );
        plans.push((format!("l{level}"), text));
    }
    let plans: Vec<(&str, &str)> = plans.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let text = "plan: p\nsteps:\n  a: { uses: 'plan:l29' }\n  b: { uses: net.veth, with: { name: \"${a.x}\" } }\n";
    assert_eq!(compiled(text, &registry, &plans).order.len(), 2);
}

#[test]
fn plans_that_multiply_are_refused() {
    let mut plans = vec![("l0".to_owned(), "plan: l0\nsteps: { a: { uses: noop } }\n".to_owned())];
    for level in 1..30 {
        let below = level - 1;
        plans.push((
            format!("l{level}"),
            format!("plan: l{level}\nsteps: {{ a: {{ uses: 'plan:l{below}' }}, b: {{ uses: 'plan:l{below}' }} }}\n"),
        ));
    }
    let plans: Vec<(&str, &str)> = plans.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert!(refused("plan: p\nsteps: { a: { uses: 'plan:l29' } }\n", &plans).contains("more than 1000000 steps"));
}
