//! What the program tells about itself: steps, schema, facts, completions, manual.

use std::process::{Command, Stdio};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use serde_json::Value;

use crate::scene::{self, Scene};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::Root;
    let tests = lifecycle_tests::tests![
        every_kind_is_documented_and_its_examples_are_plans,
        the_built_in_plans_fit_the_schema_and_wrong_ones_do_not,
        facts_are_found_whole_and_masked,
        completions_are_scripts_that_their_shells_take,
        the_manual_has_a_page_for_every_command_that_renders,
    ];
    tests.into_iter().map(|test| test.within("catalogue").needs(&[Root])).collect()
}

fn kinds(scene: &Scene) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let all: Value = serde_json::from_str(&scene.told(&["steps", "--format", "json"]).ended(0).out)?;
    let steps = all["steps"].as_array().into_iter().flatten();
    Ok(steps.filter_map(|step| step["kind"].as_str()).map(str::to_owned).collect())
}

pub fn every_kind_is_documented_and_its_examples_are_plans(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let list = scene.told(&["steps"]).ended(0).out;
    let kinds = kinds(&scene)?;
    // Those that the first release cannot do without.
    for kind in [
        "spec.load",
        "state.publish",
        "cgroup.create",
        "process.clone",
        "net.loopback",
        "net.veth",
        "net.bridge",
        "hooks.run",
        "rootfs.mount",
        "rootfs.overlay",
        "rootfs.pivot",
        "process.privileges",
        "seccomp.load",
        "fifo.wait",
        "process.exec",
        "process.wait",
        "command.run",
        "probe.http",
        "probe.tcp",
        "probe.command",
    ] {
        assert!(kinds.iter().any(|known| known == kind), "there is no {kind}");
    }
    for kind in &kinds {
        assert!(list.contains(kind.as_str()), "{kind} is not listed");
        let uses = format!("uses: {kind}");
        let one = scene.told(&["steps", kind]).ended(0).prints(&[kind, "changes", "reversed by", "Example", &uses]).out;
        // Examples are printed as they are written.
        let told = one.split_once("\nExample").map_or(one.as_str(), |(told, _)| told);
        assert!(told.lines().all(|line| line.chars().count() <= 80), "{kind}:\n{told}");
        let json: Value = serde_json::from_str(&scene.told(&["steps", kind, "--format", "json"]).ended(0).out)?;
        let examples = json["examples"].as_array().cloned().unwrap_or_default();
        assert!(!examples.is_empty(), "{kind} has no example: {json:#}");
        for example in examples {
            let plan = example["plan"].as_str().unwrap_or_else(|| panic!("{kind}: {example:#}"));
            scene.write("example.yaml", plan)?;
            scene.told(&["check", "example.yaml"]).ended(0);
        }
    }
    scene.told(&["steps", "cgroup.creat"]).ended(1).says(&["did you mean `cgroup.create`?"]);
    Ok(())
}

pub fn the_built_in_plans_fit_the_schema_and_wrong_ones_do_not(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let schema: Value = serde_json::from_str(&scene.told(&["schema"]).ended(0).out)?;
    let mut plans = Vec::new();
    for plan in ["hello", "oci/create", "oci/start", "oci/run", "oci/delete", "ci/container", "ci/service"] {
        let text = std::fs::read_to_string(program::source().join("plans").join(plan).with_extension("yaml"))?;
        plans.push((plan, yaml(&text)?));
    }
    for (name, plan) in &plans {
        check(&schema, &schema, plan, name).map_err(|why| format!("{name} does not fit the schema: {why}"))?;
    }
    let (_, hello) = &plans[0];
    let wrong = |change: fn(&mut Value)| {
        let mut plan = hello.clone();
        change(&mut plan);
        check(&schema, &schema, &plan, "plan").is_err()
    };
    assert!(wrong(|plan| plan["steps"]["init"]["uses"] = "process.clon".into()), "an unknown kind fits");
    assert!(wrong(|plan| plan["steps"]["names"]["with"]["hostnam"] = "x".into()), "an unknown field fits");
    assert!(wrong(|plan| plan["steps"]["names"]["need"] = Value::Array(vec![])), "an unknown key of a step fits");
    assert!(wrong(|plan| plan["step"] = "x".into()), "an unknown key of a plan fits");
    assert!(wrong(|plan| plan["steps"]["names"]["with"]["hostname"] = Value::Array(vec![])), "a wrong type fits");
    Ok(())
}

fn yaml(text: &str) -> Result<Value, Box<dyn std::error::Error>> {
    let value: Value = serde_yaml::from_str(text)?;
    Ok(value)
}

/// As much of JSON Schema as the schema of plans uses; a keyword that this does not know is an error, so that nothing is passed over.
fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(schema) => schema,
        other => return Err(format!("{at}: nothing fits {other}")),
    };
    for (keyword, wanted) in schema {
        let fits = |schema: &Value| check(root, schema, value, at);
        let list = || wanted.as_array().into_iter().flatten();
        match keyword.as_str() {
            "$ref" => {
                let pointer = wanted.as_str().and_then(|r| r.strip_prefix('#')).ok_or_else(|| format!("{wanted}"))?;
                fits(root.pointer(pointer).ok_or_else(|| format!("{at}: no {pointer}"))?)?;
            }
            "type" => {
                let is = |name: &Value| match name.as_str() {
                    Some("null") => value.is_null(),
                    Some("boolean") => value.is_boolean(),
                    Some("integer") => value.is_i64() || value.is_u64(),
                    Some("number") => value.is_number(),
                    Some("string") => value.is_string(),
                    Some("array") => value.is_array(),
                    Some("object") => value.is_object(),
                    _ => false,
                };
                if !(is(wanted) || list().any(is)) {
                    return Err(format!("{at}: not {wanted}: {value}"));
                }
            }
            "const" if value != wanted => return Err(format!("{at}: not {wanted}")),
            "enum" if !list().any(|one| one == value) => return Err(format!("{at}: {value} is none of {wanted}")),
            "allOf" => list().try_for_each(fits)?,
            "anyOf" if !list().any(|one| fits(one).is_ok()) => {
                let why: Vec<String> = list().filter_map(|one| fits(one).err()).collect();
                return Err(format!("{at}: fits none: {}", why.join("; ")));
            }
            "oneOf" if list().filter(|one| fits(one).is_ok()).count() != 1 => {
                let why: Vec<String> = list().filter_map(|one| fits(one).err()).collect();
                return Err(format!("{at}: does not fit exactly one: {}", why.join("; ")));
            }
            "not" if fits(wanted).is_ok() => return Err(format!("{at}: must not fit {wanted}")),
            "if" => {
                let branch = if fits(wanted).is_ok() { schema.get("then") } else { schema.get("else") };
                branch.map_or(Ok(()), fits)?;
            }
            "required" => {
                if let Some(missing) = value
                    .as_object()
                    .and_then(|map| list().find(|key| key.as_str().is_some_and(|k| !map.contains_key(k))))
                {
                    return Err(format!("{at}: lacks {missing}"));
                }
            }
            "properties" | "patternProperties" => object(root, schema, value, at)?,
            "propertyNames" => {
                for name in value.as_object().into_iter().flatten().map(|(name, _)| name) {
                    check(root, wanted, &Value::String(name.clone()), &format!("{at} name"))?;
                }
            }
            "items" => {
                for (k, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, wanted, item, &format!("{at}[{k}]"))?;
                }
            }
            "pattern" => {
                let pattern =
                    regex::Regex::new(wanted.as_str().unwrap_or_default()).map_err(|error| error.to_string())?;
                if value.as_str().is_some_and(|text| !pattern.is_match(text)) {
                    return Err(format!("{at}: {value} does not match {wanted}"));
                }
            }
            // What has been found to fit above, what is judged with another keyword, and what judges nothing.
            "$schema"
            | "$id"
            | "title"
            | "description"
            | "default"
            | "examples"
            | "$defs"
            | "format"
            | "markdownDescription"
            | "$comment"
            | "defaultSnippets"
            | "deprecated"
            | "enumDescriptions"
            | "markdownEnumDescriptions"
            | "then"
            | "else"
            | "additionalProperties"
            | "minimum"
            | "maximum"
            | "minLength"
            | "maxLength"
            | "minItems"
            | "maxItems"
            | "uniqueItems"
            | "minProperties"
            | "maxProperties"
            | "const"
            | "enum"
            | "anyOf"
            | "oneOf"
            | "not" => {}
            other => return Err(format!("{at}: this test does not know the keyword {other}")),
        }
    }
    if !schema.contains_key("properties") && !schema.contains_key("patternProperties") {
        object(root, schema, value, at)?;
    }
    Ok(())
}

/// `properties`, `patternProperties` and, for what neither knows, `additionalProperties`.
fn object(root: &Value, schema: &serde_json::Map<String, Value>, value: &Value, at: &str) -> Result<(), String> {
    let mut patterns = Vec::new();
    for (pattern, ruled) in schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten() {
        patterns.push((regex::Regex::new(pattern).map_err(|error| error.to_string())?, ruled));
    }
    for (name, one) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        if let Some(known) = schema.get("properties").and_then(|known| known.get(name)) {
            check(root, known, one, &at)?;
        } else if let Some((_, ruled)) = patterns.iter().find(|(pattern, _)| pattern.is_match(name)) {
            check(root, ruled, one, &at)?;
        } else if let Some(others) = schema.get("additionalProperties") {
            check(root, others, one, &at)?;
        }
    }
    Ok(())
}

pub fn facts_are_found_whole_and_masked(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.begins_here()?;
    let facts: Value = serde_json::from_str(&scene.told(&["facts", "--format", "json"]).ended(0).out)?;
    assert_eq!(facts["host"]["euid"], 0);
    assert_eq!(facts["host"]["cwd"], lab.dir().display().to_string());
    let release = program::output("uname", &["-r"])?;
    assert_eq!(facts["host"]["kernel.release"], release.trim());
    scene.told(&["facts"]).ended(0).prints(&["kernel.openat2", "cgroup.layout", "overlay.host"]);
    let one = scene.told(&["facts", "kernel.pidfd", "--mask", "kernel.pidfd"]).ended(0);
    assert_eq!(one.out, "kernel.pidfd  no\n");
    scene.told(&["facts", "kernel.pidf"]).ended(1).says(&["did you mean `kernel.pidfd`?"]);
    let user = scene::told(scene::as_nobody(&mut scene.command(&["facts", "--format", "json"])));
    let user: Value = serde_json::from_str(&user.ended(0).out)?;
    assert_eq!((&user["host"]["euid"], &user["host"]["caps.effective"]), (&65534.into(), &Value::Array(vec![])));
    Ok(scene.nothing_left()?)
}

/// Feeds a program and says how it ended.
fn fed(program: &str, arguments: &[&str], text: &str) -> Result<std::process::Output, Box<dyn std::error::Error>> {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let mut stdin = child.stdin.take();
    let text = text.to_owned();
    // The program may print before it has read everything.
    let writer = std::thread::spawn(move || stdin.as_mut().map_or(Ok(()), |stdin| stdin.write_all(text.as_bytes())));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| "the writer panicked")??;
    Ok(output)
}

pub fn completions_are_scripts_that_their_shells_take(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let mut taken = Vec::new();
    for (shell, parse) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = scene.told(&["completions", shell]).ended(0).prints(&["lifecycle", "recover", "fail-at"]).out;
        if program::find(shell).is_some() {
            let output = fed(shell, &[parse], &script)?;
            assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
            taken.push(shell);
        }
    }
    // bash is part of every Debian: there the completion is not only read but used.
    let script = scene.told(&["completions", "bash"]).ended(0).out;
    let ask = format!(
        "{script}\nCOMP_WORDS=(lifecycle reco) COMP_CWORD=1\n_lifecycle lifecycle reco lifecycle\necho \"${{COMPREPLY[@]}}\"\n"
    );
    let output = fed("bash", &["--norc"], &ask)?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "recover\n", "{}", String::from_utf8_lossy(&output.stderr));
    lifecycle_tests::harness::note(format!("read by {}", taken.join(", ")));
    Ok(())
}

pub fn the_manual_has_a_page_for_every_command_that_renders(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    scene.told(&["man", "pages"]).ended(0);
    let mut pages: Vec<_> = std::fs::read_dir(lab.dir().join("pages"))?.flatten().map(|entry| entry.path()).collect();
    pages.sort();
    for command in [
        "run",
        "plan",
        "check",
        "snapshot",
        "steps",
        "schema",
        "facts",
        "runs",
        "show",
        "logs",
        "undo",
        "recover",
        "audit",
        "completions",
        "man",
    ] {
        assert!(pages.iter().any(|page| page.ends_with(format!("lifecycle-{command}.1"))), "{command} has no page");
    }
    for page in &pages {
        let text = std::fs::read_to_string(page)?;
        assert!(
            text.contains(".TH ") && text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"),
            "{}",
            page.display()
        );
        if program::find("groff").is_some() {
            let output = fed("groff", &["-man", "-Tutf8", "-ww"], &text)?;
            let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", page.display());
        }
    }
    Ok(())
}
