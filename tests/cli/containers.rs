//! Containers from bundles: `oci/create`, `oci/start`, `oci/run`, `oci/delete`.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use lifecycle_tests::bundle::{Bundle, rootless_spec, spec};
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use serde_json::{Value, json};

use crate::scene::{self, NOBODY, Scene, Started};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        a_bundle_runs_with_its_own_exit_code_and_stdio,
        death_by_signal_is_128_and_its_number,
        created_started_and_deleted_like_with_any_runtime,
        every_step_of_a_container_can_fail_and_leaves_nothing,
        #[needs(Program("script"))]
        a_terminal_is_the_containers_own,
        a_rootless_bundle_runs_for_root_and_for_a_user,
        a_config_that_cannot_be_is_refused_with_its_field,
    ];
    tests.into_iter().map(|test| test.within("containers").needs(&[Root, Program("busybox")])).collect()
}

/// A bundle and a container's id, which is part of the cgroup's name.
fn bundle<'a>(lab: &'a Lab, arguments: &[&str]) -> lifecycle_tests::Result<(Scene<'a>, Bundle, String)> {
    let mut scene = Scene::new(lab)?;
    let bundle = Bundle::create(lab.dir().join("bundle"))?;
    bundle.runs(arguments)?;
    scene.begins_here()?;
    Ok((scene, bundle, format!("{}-c1", lab.token())))
}

fn params(plan: &str, id: &str) -> Vec<String> {
    ["run", plan, "-p", &format!("id={id}"), "-p", "bundle=bundle"].map(String::from).into()
}

pub fn a_bundle_runs_with_its_own_exit_code_and_stdio(lab: &Lab) -> TestResult {
    let (scene, bundle, id) = bundle(lab, &["sh", "-c", "cat; hostname; id -u; echo problems >&2; exit 42"])?;
    let mut run = scene.start(&params("oci/run", &id))?;
    run.type_in("typed\n", true)?;
    let told = run.end()?.ended(42);
    assert_eq!(told.out, "typed\nrunc\n0\n");
    assert!(told.err.starts_with("problems\n"), "{}", told.err);
    scene.nothing_left()?;
    // By its directory alone.
    bundle.runs(&["echo", "by its directory"])?;
    bundle.in_cgroup(&format!("/{}/c1", lab.token()))?;
    assert_eq!(scene.told(&["run", "bundle"]).ended(0).out, "by its directory\n");
    bundle.runs(&["echo", "something"])?;
    bundle.runs(&["no-such-program"])?;
    scene.told(&["run", "bundle"]).ended(127).says(&["no-such-program"]);
    bundle.runs(&["/etc/passwd"])?;
    scene.told(&["run", "bundle"]).ended(126).says(&["/etc/passwd", "Permission denied"]);
    let mut files = std::fs::read_dir(bundle.rootfs().join("dev"))?;
    assert!(files.next().is_none(), "something was made in the root's own /dev");
    Ok(())
}

pub fn death_by_signal_is_128_and_its_number(lab: &Lab) -> TestResult {
    let (scene, bundle, id) = bundle(lab, &["true"])?;
    // Without a PID namespace of its own a process is deaf to no signal.
    bundle.edit(|config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "pid");
        }
    })?;
    let mut scene = scene;
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("USR1", 138), ("SEGV", 139)] {
        bundle.runs(&["sh", "-c", &format!("kill -{signal} $$")])?;
        scene.begins_here()?;
        scene.told(&params("oci/run", &id)).ended(code);
        scene.nothing_left()?;
    }
    Ok(())
}

pub fn created_started_and_deleted_like_with_any_runtime(lab: &Lab) -> TestResult {
    let script = "echo started; read line < /proc/self/fd/0; exec sleep 30";
    let (scene, _, id) = bundle(lab, &["sh", "-c", script])?;
    let state = || -> Result<Value, Box<dyn std::error::Error>> {
        Ok(serde_json::from_str(&std::fs::read_to_string(lab.state_root().join(&id).join("state.json"))?)?)
    };
    let create = [params("oci/create", &id), vec!["--keep".into()]].concat();
    let container = scene.start(&create)?;
    let told = container.end()?.ended(0);
    assert!(!told.out.contains("started"), "{}", told.out);
    assert_eq!((&state()?["status"], &state()?["id"]), (&json!("created"), &json!(id)));
    let pid = state()?["pid"].to_string();
    assert!(PathBuf::from("/proc").join(&pid).exists());
    // Kept on purpose: recover has no business with it.
    scene.told(&["recover"]).ended(0).prints(&["nothing to recover\n"]);
    assert!(PathBuf::from("/proc").join(&pid).exists());
    scene.told(&create).ended(125).says(&[&id, "it was kept"]);
    let by_id = |plan: &str, more: &[&str]| {
        let fixed = ["run", plan, "-p", &format!("id={id}")].map(String::from).to_vec();
        scene.told(&[fixed, more.iter().map(|&word| word.to_owned()).collect()].concat())
    };
    let armed = [params("oci/create", "other"), ["--fail-at", "exec"].map(String::from).to_vec()].concat();
    scene.told(&armed).ended(125).says(&["step `exec` happens when the container is started"]);
    by_id("oci/start", &["--keep"]).ended(0);
    assert_eq!(state()?["status"], "running");
    by_id("oci/start", &["--keep"]).ended(1).says(&["created"]);
    by_id("oci/delete", &[]).ended(1).says(&["running"]);
    assert!(PathBuf::from("/proc").join(&pid).exists(), "a refused delete ended the container");
    scene.told(&["recover"]).ended(0).prints(&["nothing to recover\n"]);
    by_id("oci/delete", &["-p", "force=true"]).ended(0);
    by_id("oci/delete", &[]).ended(125).says(&[&id]);
    by_id("oci/start", &[]).ended(125).says(&[&id, "lifecycle runs"]);
    Ok(scene.nothing_left()?)
}

pub fn every_step_of_a_container_can_fail_and_leaves_nothing(lab: &Lab) -> TestResult {
    let (scene, _, id) = bundle(lab, &["true"])?;
    let plan = [vec!["plan".to_owned()], params("oci/run", &id)[1..].to_vec(), vec!["--format=json".into()]].concat();
    let plan: Value = serde_json::from_str(&scene.told(&plan).ended(0).out)?;
    let steps = plan["steps"].as_array().cloned().unwrap_or_default();
    assert!(steps.len() > 20);
    for step in steps.iter().filter(|step| step["skipped"] != true) {
        let address = step["address"].as_str().unwrap_or_else(|| panic!("{step:#}"));
        for place in ["before", "after", "crash"] {
            let at = format!("{address}:{place}");
            let told = scene.told(&[params("oci/run", &id), vec!["--fail-at".into(), at.clone()]].concat());
            let wanted = if place == "crash" { 137 } else { 1 };
            assert_eq!(told.code, wanted, "at {at}: {}{}", told.out, told.err);
            scene.told(&["recover"]).ended(0);
            scene.nothing_left().map_err(|error| format!("at {at}: {error}"))?;
        }
    }
    Ok(())
}

/// As `runc spec` writes it, a terminal and all.
pub fn a_terminal_is_the_containers_own(lab: &Lab) -> TestResult {
    let (mut scene, bundle, id) = bundle(lab, &["sh"])?;
    bundle.edit(|config| *config = spec())?;
    scene.begins_here()?;
    let mut arguments = params("oci/run", &id);
    arguments.insert(1, format!("--root={}", lab.state_root().display()));
    let line = format!("{} {}", program::lifecycle()?.display(), arguments.join(" "));
    let mut command = Command::new("script");
    let mut run = Started::new(command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").current_dir(lab.dir()))?;
    run.wait_for("#")?;
    run.type_in("tty; echo $((6 * 7)) from $(hostname)\n", false)?;
    run.wait_for("42 from runc")?;
    // The container's, not the engine's: its shell takes it, and goes on.
    // What speaks is in the foreground by then: an interrupt before that would be the shell's.
    run.type_in("sh -c 'echo sleeping $((1 + 1)); exec sleep 1000'\n", false)?;
    run.wait_for("sleeping 2")?;
    run.type_in("\u{3}", false)?;
    run.type_in("echo still $((40 + 3)); exit 5\n", false)?;
    run.end()?.ended(5).prints(&["/dev/pts/0", "still 43"]);
    Ok(scene.nothing_left()?)
}

/// As `runc spec --rootless` writes it, by root and by somebody who is not.
pub fn a_rootless_bundle_runs_for_root_and_for_a_user(lab: &Lab) -> TestResult {
    let (mut scene, bundle, id) = bundle(lab, &["true"])?;
    let script =
        "id -u; id -g; hostname; grep -q ' /sys ro,' /proc/self/mountinfo && echo read-only; cat /proc/self/uid_map";
    let configure = |owner: u32| {
        bundle.edit(|config| {
            *config = rootless_spec();
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = json!(["sh", "-c", script]);
            for mappings in ["uidMappings", "gidMappings"] {
                config["linux"][mappings][0]["hostID"] = json!(owner);
            }
        })
    };
    configure(0)?;
    scene.begins_here()?;
    let told = scene.told(&params("oci/run", &id)).ended(0);
    assert_eq!(told.out.split_whitespace().collect::<Vec<_>>().join(" "), "0 0 runc read-only 0 0 1");
    scene.nothing_left()?;
    configure(NOBODY)?;
    let home = lab.dir().join("home");
    std::fs::create_dir(&home)?;
    chown(&home, Some(NOBODY), Some(NOBODY))?;
    chown(bundle.rootfs(), Some(NOBODY), Some(NOBODY))?;
    scene.begins_here()?;
    let mut command = Command::new(program::lifecycle()?);
    command.args(params("oci/run", &id)).current_dir(lab.dir()).env("XDG_RUNTIME_DIR", &home);
    let told = scene::told(scene::as_nobody(&mut command)).ended(0);
    assert_eq!(
        told.out.split_whitespace().collect::<Vec<_>>().join(" "),
        "0 0 runc read-only 0 65534 1",
        "{}",
        told.err
    );
    Ok(())
}

/// What makes a configuration wrong.
type Change = fn(&mut Value);

pub fn a_config_that_cannot_be_is_refused_with_its_field(lab: &Lab) -> TestResult {
    let (mut scene, bundle, id) = bundle(lab, &["true"])?;
    let changes: &[(Change, &[&str])] = &[
        (|config| config["process"]["cwd"] = json!("relative"), &["cwd"]),
        (|config| config["process"]["args"] = json!([]), &["args"]),
        (|config| config["ociVersion"] = json!("9.0.0"), &["ociVersion", "9.0.0"]),
        (|config| config["linux"]["namespaces"][0]["type"] = json!("pidd"), &["pidd"]),
        (
            |config| config["process"]["user"]["uid"] = json!("root"),
            &["config.json:6:14: process.user.uid: invalid type: string \"root\", expected u32"],
        ),
        (|config| config["mounts"][0]["destination"] = Value::Null, &["destination"]),
    ];
    for (change, words) in changes {
        bundle.edit(|config| *config = spec())?;
        bundle.edit(change)?;
        scene.begins_here()?;
        scene.told(&params("oci/run", &id)).ended(125).says(&["config.json"]).says(words);
        scene.nothing_left()?;
    }
    std::fs::write(bundle.dir().join("config.json"), "{ \"ociVersion\": ")?;
    scene.begins_here()?;
    scene.told(&params("oci/run", &id)).ended(125).says(&["config.json:1:16: this is not JSON"]);
    std::fs::remove_file(bundle.dir().join("config.json"))?;
    scene.begins_here()?;
    scene.told(&params("oci/run", &id)).ended(125).says(&["config.json", "No such file"]);
    Ok(scene.nothing_left()?)
}
