//! `run`: what goes into the container, what comes out, and the exit code.

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use rustix::process::Signal;
use serde_json::Value;

use crate::scene::{self, Scene};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::Root;
    let tests = lifecycle_tests::tests![
        hello_shows_the_container_from_inside_and_leaves_nothing,
        the_exit_code_is_the_containers,
        a_container_that_is_killed_is_137,
        stdin_and_stdout_are_the_containers_own,
        what_follows_two_dashes_is_the_command_word_by_word,
        parameters_come_from_a_file_and_the_command_line,
        parameters_whose_keys_look_like_marks_are_what_was_given,
        wrong_input_is_125_and_changes_nothing,
        every_event_is_a_line_of_json,
        a_trace_has_a_lane_for_the_host_and_one_for_init,
        hello_runs_without_each_of_the_newer_calls,
        a_stopped_engine_does_not_wait_for_its_container,
    ];
    tests.into_iter().map(|test| test.within("running").needs(&[Root])).collect()
}

pub fn hello_shows_the_container_from_inside_and_leaves_nothing(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    // Without a word, and by its file: the newcomer's first command.
    let plan = program::source().join("plans/hello.yaml");
    for arguments in [&["run"][..], &["run", &plan.to_string_lossy()]] {
        let told = scene.told(arguments).ended(0).prints(&[
            "hostname: hello\n",
            "user: uid=0(root)",
            " 1 ",
            "overlay / overlay",
        ]);
        assert_eq!(told.problems(), "");
        scene.nothing_left()?;
    }
    Ok(())
}

pub fn the_exit_code_is_the_containers(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    for code in [0, 1, 7, 125, 255] {
        let told = scene.told(&["run", "--", "sh", "-c", &format!("exit {code}")]).ended(code);
        assert_eq!(told.out, "", "exit {code}");
        assert_eq!(told.problems().is_empty(), code == 0, "exit {code}: {}", told.err);
    }
    scene
        .told(&["run", "--", "/etc/passwd"])
        .ended(126)
        .says(&["step `exec`", "execve(\"/etc/passwd\"): Permission denied"]);
    scene
        .told(&["run", "--", "no-such-program"])
        .ended(127)
        .says(&["exec: \"no-such-program\": executable file not found in $PATH"]);
    scene.told(&["run", "--", "/no/such/program"]).ended(127).says(&["/no/such/program", "No such file or directory"]);
    Ok(scene.nothing_left()?)
}

/// Process 1 of a PID namespace is deaf to every other signal that it does not handle, whoever sends it.
pub fn a_container_that_is_killed_is_137(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let mut run = scene.start(&["run", "--", "sh", "-c", "echo ready; exec sleep 30"])?;
    run.wait_for("ready")?;
    program::quiet("kill", &["-KILL", &process_in(run.pid())?.to_string()])?;
    run.end()?.ended(137);
    Ok(scene.nothing_left()?)
}

/// The first process of the container that an engine runs.
fn process_in(engine: i32) -> lifecycle_tests::Result<i32> {
    let children = format!("/proc/{engine}/task/{engine}/children");
    let text = std::fs::read_to_string(&children)
        .map_err(|error| lifecycle_tests::Error::new(format!("reading {children}"), error))?;
    let first = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
    first.ok_or_else(|| lifecycle_tests::Error::new(format!("reading {children}"), "no child"))
}

pub fn stdin_and_stdout_are_the_containers_own(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let mut run = scene.start(&["run", "--", "sh", "-c", "cat; echo problems >&2"])?;
    let text = "line\n".repeat(50_000);
    run.type_in(&text, true)?;
    let told = run.end()?.ended(0);
    assert_eq!(told.out.len(), text.len());
    assert_eq!((told.problems().as_str(), told.out), ("problems\n", text));
    Ok(scene.nothing_left()?)
}

pub fn what_follows_two_dashes_is_the_command_word_by_word(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let told =
        scene.told(&["run", "--", "printf", "%s|", "a b", "", "--help", "${params.hostname}", "-p", "ü"]).ended(0);
    assert_eq!(told.out, "a b||--help|${params.hostname}|-p|ü|");
    Ok(scene.nothing_left()?)
}

pub fn parameters_come_from_a_file_and_the_command_line(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("params.yaml", "hostname: from-file\ncommand: [hostname]\n")?;
    scene.write("wrong.yaml", "hostnam: from-file\n")?;
    scene.write("broken.yaml", "hostname: [\n")?;
    scene.begins_here()?;
    assert_eq!(scene.told(&["run", "hello", "-f", "params.yaml"]).ended(0).out, "from-file\n");
    let both = ["run", "hello", "-f", "params.yaml", "-p", "hostname=from-line"];
    assert_eq!(scene.told(&both).ended(0).out, "from-line\n");
    scene.told(&["run", "hello", "-f", "wrong.yaml"]).ended(125).says(&["wrong.yaml:1", "did you mean `hostname`?"]);
    scene.told(&["run", "hello", "-f", "broken.yaml"]).ended(125).says(&["broken.yaml"]);
    scene.told(&["run", "hello", "-f", "none.yaml"]).ended(125).says(&["cannot read none.yaml", "No such file"]);
    scene.told(&["run", "hello", "-p", "hostname=a/b"]).ended(125).says(&["hostname"]);
    Ok(scene.nothing_left()?)
}

/// 125 in every case: no answer of ours is mistaken for the container's.
pub fn parameters_whose_keys_look_like_marks_are_what_was_given(lab: &Lab) -> TestResult {
    const PLAN: &str = r#"
plan: marks
params:
  map: { type: map(string), default: { $sensitive: a, $text: b, $$handle: c } }
steps:
  seen: { uses: command.run, with: { args: [env], env: "${params.map}" } }
outputs:
  all: ${params.map}
  one: ${params.map["$text"]}
  seen: ${seen.stdout}
"#;
    let mut scene = Scene::new(lab)?;
    let plan = scene.write("marks.yaml", PLAN)?;
    scene.begins_here()?;
    let plan = plan.to_string_lossy();
    let told = scene.told(&["run", &plan]).ended(0);
    told.says(&[
        "all = {\"$sensitive\":\"a\",\"$text\":\"b\",\"$$handle\":\"c\"}",
        "one = \"b\"",
        "$$handle=c",
        "$sensitive=a",
        "$text=b",
    ]);
    scene.told(&["run", &plan, "-p", "map={ $handle: d }"]).ended(0).says(&["all = {\"$handle\":\"d\"}", "$handle=d"]);
    scene.told(&["plan", &plan]).ended(0).prints(&["$sensitive: a"]);
    Ok(scene.nothing_left()?)
}

pub fn wrong_input_is_125_and_changes_nothing(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    scene
        .told(&["run", "helo"])
        .ended(125)
        .says(&["there is no file and no built-in plan `helo`", "did you mean the built-in plan `hello`?"]);
    scene.told(&["run", "--no-such-option"]).ended(125).says(&["--no-such-option"]);
    scene.told(&["run", "hello", "--fail-at", "ini"]).ended(125).says(&["has no step `ini`", "did you mean `init`?"]);
    scene.told(&["run", "hello", "--fail-at", "init:never"]).ended(125).says(&["`never` is not a place to fail"]);
    scene.told(&["run", "hello", "--pause-at", "exe"]).ended(125).says(&["did you mean `exec`?"]);
    scene.told(&["run", "hello", "--mask", "kernel.clone4"]).ended(125).says(&["did you mean `kernel.clone3`?"]);
    scene.told(&["run", "hello", "--detach", "--pause-at", "exec"]).ended(125).says(&["cannot be used with"]);
    scene.told(&["run", "hello", "--events", "/no/such/dir/events"]).ended(125).says(&["/no/such/dir/events"]);
    scene
        .told(&["run", "hello", "--trace", "/no/such/dir/trace", "--", "true"])
        .ended(125)
        .says(&["/no/such/dir/trace"]);
    scene.told(&["run", "oci/run", "-p", "bundle=/no/such/bundle"]).ended(125).says(&["/no/such/bundle/config.json"]);
    scene.nothing_left()?;
    // Options for all commands may come first, and do not hide which command it is.
    let mut command = std::process::Command::new(program::lifecycle()?);
    scene::told(command.args(["--color", "never", "--root", "/nonexistent", "run", "--no-such-option"])).ended(125);
    let mut command = std::process::Command::new(program::lifecycle()?);
    scene::told(command.args(["--root", "run", "plan", "--no-such-option"])).ended(2);
    Ok(())
}

pub fn every_event_is_a_line_of_json(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("events", "")?;
    scene.told(&["run", "hello", "--events", "events", "--", "sh", "-c", "exit 3"]).ended(3);
    let text = std::fs::read_to_string(lab.dir().join("events"))?;
    let events = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let position = |event: &str, step: &str| {
        let found = events.iter().position(|e| e["event"] == event && e["step"] == step);
        found.unwrap_or_else(|| panic!("no {event} of {step}:\n{text}"))
    };
    assert!(position("began", "init") < position("done", "init"));
    assert!(position("done", "rootfs") < position("done", "exec"));
    assert!(position("failed", "wait") < position("undoing", "init"));
    assert!(position("undoing", "init") < position("undone", "init"));
    scene.begins_here()?;
    // On stdout they come between the container's own lines.
    let told = scene.told(&["run", "hello", "--events", "-", "--", "echo", "from inside"]).ended(0);
    let (ours, theirs): (Vec<&str>, Vec<&str>) = told.out.lines().partition(|line| line.starts_with('{'));
    assert_eq!(theirs, ["from inside"]);
    let ours = ours.into_iter().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    // That a step inside was left out is told when its turn comes, which may be after the end.
    let taken = |events: &[Value]| events.iter().filter(|event| event["event"] != "skipped").count();
    assert_eq!(taken(&ours), taken(&events));
    Ok(scene.nothing_left()?)
}

pub fn a_trace_has_a_lane_for_the_host_and_one_for_init(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    scene.told(&["run", "hello", "--trace", "trace.json", "--", "true"]).ended(0);
    let path = lab.dir().join("trace.json");
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    std::fs::remove_file(path)?;
    let events = trace["traceEvents"].as_array().cloned().unwrap_or_default();
    let names: Vec<&Value> =
        events.iter().filter(|e| e["ph"] == "M" && e["name"] == "process_name").map(|e| &e["args"]["name"]).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].as_str().is_some_and(|name| name.ends_with(": host")), "{names:?}");
    assert!(names[1].as_str().is_some_and(|name| name.ends_with(": inside ‹init›")), "{names:?}");
    // What Perfetto needs of every slice; and the lanes are the right ones.
    let slices: Vec<&Value> = events.iter().filter(|e| e["ph"] == "X").collect();
    for slice in &slices {
        assert!(slice["ts"].is_number() && slice["dur"].is_number() && slice["tid"].is_number(), "{slice}");
    }
    let lane = |step: &str| slices.iter().find(|s| s["name"] == step).map_or(Value::Null, |s| s["pid"].clone());
    assert_eq!((lane("init"), lane("wait"), lane("rootfs"), lane("exec")), (1.into(), 1.into(), 2.into(), 2.into()));
    Ok(scene.nothing_left()?)
}

/// Each of the older ways, alone, as on a kernel that has no other.
pub fn hello_runs_without_each_of_the_newer_calls(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    for fact in [
        "kernel.openat2",
        "kernel.clone3",
        "kernel.clone_into_cgroup",
        "kernel.mount_api",
        "kernel.mount_setattr",
        "kernel.close_range",
        "kernel.pidfd",
        "overlay.host",
        "overlay.host,overlay.userns",
    ] {
        let told = scene.told(&[
            "run",
            "hello",
            "--mask",
            fact,
            "--",
            "sh",
            "-c",
            "hostname; cat /etc/hostname > /tmp/x; echo $$",
        ]);
        assert_eq!((told.code, told.out.as_str()), (0, "hello\n1\n"), "without {fact}: {}", told.err);
    }
    Ok(scene.nothing_left()?)
}

/// The engine asks its container for nothing when it is told to stop: the signal is the person's, at the terminal or from a CI job.
pub fn a_stopped_engine_does_not_wait_for_its_container(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let script = "trap '' TERM INT HUP; echo ready; while :; do sleep 0.05; done";
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut run = scene.start(&["run", "--", "sh", "-c", script])?;
        run.wait_for("ready")?;
        run.signal(signal)?;
        run.end()?.ended(code).says(&["everything was taken back"]);
        scene.nothing_left()?;
    }
    Ok(())
}
