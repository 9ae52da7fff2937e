use std::fmt::Write as _;

use super::*;

fn steps(text: &str) -> String {
    format!("plan: p\nsteps:\n{text}")
}

#[test]
fn mistakes_in_steps_are_explained() {
    let init = "  init: { uses: process.clone }\n";
    let spec = "  spec: { uses: spec.load, with: { bundle: . } }\n";
    let cases = [
        ("an unknown kind", steps("  a: { uses: file.wriet }\n  b: { uses: magic }\n  c: { uses: oci/create }\n")),
        ("missing and unknown fields", steps("  a: { uses: file.write, with: { paht: /a, colour: red } }\n  b: { uses: noop, with: { x: 1 } }\n")),
        ("values of the wrong type", steps("  a:\n    uses: file.write\n    with:\n      path: 5\n      mode: 755\n      quota: lots\n      times: '3'\n      text: [a]\n      secret: { a: b }\n")),
        ("a wrong word", steps("  a: { uses: net.veth, with: { name: 'a b', kind: netwrok } }\n")),
        ("nested values", steps("  a: { uses: process.clone, with: { namespaces: [{ type: pid, paht: /x }, { path: /y }, pid] } }\n")),
        ("one where a list is wanted", steps(&format!("{init}  a: {{ uses: process.exec, site: \"${{init}}\", with: {{ args: sh }} }}\n"))),
        ("unknown steps and parameters", "plan: p\nparams: { id: { type: name } }\nsteps:\n  spec: { uses: spec.load, with: { bundle: '${params.idd}/${id}/${psec.bundle}/${nothing}' } }\n  b: { uses: noop, needs: [spce, other] }\nmain: c\n".to_owned()),
        ("unknown fields of outputs", steps(&format!("{spec}  a: {{ uses: file.write, with: {{ path: '${{spec.bundel}}', text: '${{spec.args.first}}/${{spec.hostname.x}}/${{spec.nonsense}}' }} }}\n  b: {{ uses: noop }}\n  c: {{ uses: file.write, with: {{ path: '${{b.x}}' }} }}\n"))),
        ("references of the wrong type", steps(&format!("{spec}{init}  a: {{ uses: file.write, with: {{ path: '${{spec.args}}', times: '${{spec.bundle}}', mode: '${{init}}' }} }}\n  b: {{ uses: process.wait, with: {{ process: '${{init}}' }} }}\n  c: {{ uses: process.wait, with: {{ process: '${{init.pid}}' }} }}\n  d: {{ uses: process.wait, with: {{ process: init }} }}\n"))),
        ("a handle where a value is wanted", steps(&format!("{init}  a: {{ uses: file.write, with: {{ path: '/proc/${{init.pid}}' }} }}\n  b: {{ uses: spec.load, with: {{ bundle: '/proc/${{init.pid}}', hostname: '${{init.pid}}' }} }}\n  c: {{ uses: file.write, with: {{ path: '/${{init}}' }} }}\n"))),
        ("what may be null", steps(&format!("{spec}  a: {{ uses: net.veth, with: {{ name: '${{spec.hostname}}' }} }}\n  b: {{ uses: net.veth, if: \"spec.hostname == 'x'\", with: {{ name: b }} }}\n  c: {{ uses: net.veth, with: {{ name: '${{b.name}}' }} }}\n  d: {{ uses: net.veth, continue-on-error: true, with: {{ name: d }} }}\n  e: {{ uses: net.veth, with: {{ name: '${{d.name}}' }} }}\n  f: {{ uses: file.write, with: {{ path: '/${{spec.annotations.x}}' }} }}\n"))),
        ("sensitive values", "plan: p\nparams: { key: { type: string, sensitive: true } }\nsteps:\n  a: { uses: file.write, with: { path: '${params.key}', text: 'a ${params.key}' } }\n  b: { uses: file.write, with: { path: '/${params.key}' } }\n".to_owned()),
        ("unused parameters", "plan: p\nparams: { id: { type: name }, other: { type: int, default: 3 } }\nsteps: {}\n".to_owned()),
        ("types of parameters", "plan: p\nparams: { a: { type: Namespase }, b: { type: nmae }, c: { type: int, default: x }, d: { type: mode, default: 755 } }\nsteps: { s: { uses: file.write, with: { path: '/${params.a}${params.b}${params.c}${params.d}' } } }\n".to_owned()),
        ("conditions", steps(&format!("{spec}  v: {{ uses: net.veth, with: {{ name: v }} }}\n  a: {{ uses: noop, if: \"v.kind == 'netwrok'\" }}\n  b: {{ uses: noop, if: spec.args == 3 }}\n  c: {{ uses: noop, if: spec.nothing }}\n  d: {{ uses: noop, if: (spec.args == spec.args) == true }}\n  e: {{ uses: noop, if: spec.bundle == 5 }}\n"))),
        ("for_each", steps(&format!("{spec}{init}  a: {{ uses: noop, for_each: '${{init.pid}}' }}\n  b: {{ uses: noop, for_each: '${{spec.bundle}}' }}\n  c: {{ uses: net.veth, with: {{ name: '${{each.key}}' }} }}\n  d: {{ uses: net.veth, for_each: [a], with: {{ name: '${{each.name}}' }} }}\n  e: {{ uses: file.write, with: {{ path: '${{d.name}}', text: '${{run.pid}}' }} }}\n"))),
        ("sites", steps(&format!("{init}  other: {{ uses: noop }}\n  a: {{ uses: rootfs.pivot }}\n  b: {{ uses: noop, site: '${{init}}' }}\n  c: {{ uses: rootfs.pivot, site: '${{other}}' }}\n  d: {{ uses: rootfs.pivot, site: '${{init}}', retry: 3, continue-on-error: true, if: init.pid == 5 }}\n"))),
        ("pure steps", steps(&format!("{init}  a: {{ uses: spec.load, needs: [init], timeout: 1s, if: init.pid == 5, with: {{ bundle: . }} }}\n"))),
        ("a cycle", steps("  a: { uses: noop, needs: [c] }\n  b: { uses: net.veth, needs: [a], with: { name: x } }\n  c: { uses: file.write, with: { path: '/${b.name}' } }\n  d: { uses: noop, needs: [c] }\n  e: { uses: noop, needs: [e] }\n")),
        ("a cycle beside other mistakes", "plan: p\nparams: { unused: { type: string } }\nsteps:\n  a: { uses: noop, needs: [b] }\n  b: { uses: noop, needs: [a, nothing] }\n  c: { uses: file.write, with: { path: '/x', mode: 0755 } }\n".to_owned()),
        ("a wait that cannot end", steps(&format!("{init}  exec: {{ uses: process.exec, site: '${{init}}', needs: [report], with: {{ args: [sh] }} }}\n  wait: {{ uses: process.wait, with: {{ process: '${{init.process}}' }} }}\n  report: {{ uses: noop, needs: [wait] }}\n"))),
        ("a step in a process that waits for its end", steps(&format!("{init}  wait: {{ uses: process.wait, with: {{ process: '${{init.process}}' }} }}\n  pivot: {{ uses: rootfs.pivot, site: '${{init}}', needs: [wait] }}\n"))),
        ("a step in a process that is another program by then", steps(&format!("{init}  exec: {{ uses: process.exec, site: '${{init}}', with: {{ args: [sh] }} }}\n  pivot: {{ uses: rootfs.pivot, site: '${{init}}', needs: [exec] }}\n  again: {{ uses: process.exec, site: '${{init}}', with: {{ args: [sh] }} }}\n"))),
        ("a cycle by the order of kinds", steps(&format!("{init}  pivot: {{ uses: rootfs.pivot, site: '${{init}}', needs: [priv] }}\n  priv: {{ uses: process.privileges, site: '${{init}}' }}\n"))),
    ];
    let mut shown = String::new();
    for (name, text) in cases {
        write!(shown, "# {name}\n\n{}", refused(&text, &[])).unwrap();
    }
    crate::testing::snapshot("diag/compile", &shown);
}

#[test]
fn mistakes_between_plans_are_explained() {
    let inner = "plan: inner\nparams: { id: { type: name, about: Its id. }, size: { type: size, required: false } }\nsteps: { a: { uses: net.veth, with: { name: '${params.id}' } }, b: { uses: file.write, with: { path: /, quota: '${params.size}' } } }\noutputs: { name: '${a.name}' }\n";
    let plans: &[(&str, &str)] = &[
        ("inner", inner),
        ("a", "plan: a\nsteps: { x: { uses: 'plan:b' } }\n"),
        ("b", "plan: b\nsteps: { y: { uses: 'plan:a' } }\n"),
        ("broken", "plan: broken\nsteps: { y: { uses: nothing.known } }\n"),
    ];
    let cases = [
        ("an unknown plan", steps("  a: { uses: 'plan:inenr' }\n  b: { uses: 'plan:create.yaml' }\n  c: { uses: 'plan:./nowhere.yaml' }\n  d: { uses: 'plan:oci/create' }\n")),
        ("its parameters", steps("  a: { uses: 'plan:inner' }\n  b: { uses: 'plan:inner', with: { idd: x, id: 5, size: '${a.name}', nothing: 1 } }\n  c: { uses: noop, needs: [a, b] }\n  d: { uses: net.veth, with: { name: '${a.nmae}' } }\n")),
        ("what is not for plans", steps("  a: { uses: 'plan:inner', retry: 2, timeout: 5s, continue-on-error: true, with: { id: x } }\n")),
        ("recursion", steps("  a: { uses: 'plan:a' }\n")),
        ("a mistake in a plan that is used", steps("  a: { uses: 'plan:broken' }\n  b: { uses: 'plan:broken' }\n")),
        ("a cycle through plans", steps("  a: { uses: 'plan:inner', with: { id: '${b.name}' } }\n  b: { uses: net.veth, with: { name: x }, needs: [a] }\n")),
        ("a site that leads nowhere", "plan: p\nparams: { process: { type: handle(process) } }\nsteps: { a: { uses: rootfs.pivot, site: '${params.process}' } }\n".to_owned()),
        ("run and opens", "plan: p\nrun: a\nopens: { run: b, plan: inner }\nsteps: {}\n".to_owned()),
    ];
    let mut shown = String::new();
    for (name, text) in cases {
        write!(shown, "# {name}\n\n{}", refused(&text, plans)).unwrap();
    }
    crate::testing::snapshot("diag/plans", &shown);
}

#[test]
fn files_are_found_beside_the_plan_that_uses_them() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    std::fs::create_dir(directory.path().join("parts")).unwrap();
    write("main.yaml", "plan: main\nsteps: { a: { uses: 'plan:./parts/one.yaml' } }\n");
    write("parts/one.yaml", "plan: one\nsteps: { b: { uses: 'plan:./two.yaml' } }\n");
    write("parts/two.yaml", "plan: two\nsteps: { c: { uses: noop } }\n");
    let registry = registry();
    let graph = file(&directory.path().join("main.yaml"), &registry, Library::default()).unwrap();
    assert_eq!(graph.order.iter().map(|item| graph.address(*item)).collect::<Vec<_>>(), ["a/b/c"]);
    write("parts/two.yaml", "plan: two\nsteps: { c: { uses: 'plan:../main.yaml' } }\n");
    let report = file(&directory.path().join("main.yaml"), &registry, Library::default()).unwrap_err();
    let message = &report.diagnostics()[0].message;
    assert!(message.starts_with("a plan uses itself: ") && message.matches(" → ").count() == 3, "{message}");
    let report = file(&directory.path().join("none.yaml"), &registry, Library::default()).unwrap_err();
    assert!(report.to_string().contains("No such file"), "{report}");
}
