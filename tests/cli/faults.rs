//! Faults on purpose, interruptions, and what takes back what they leave.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use rustix::process::Signal;

use crate::scene::{Scene, Started};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::Root;
    let tests = lifecycle_tests::tests![
        a_fault_before_or_after_each_step_is_taken_back,
        a_crash_at_each_step_is_made_good_by_recover,
        every_step_of_hello_can_fail_and_leaves_nothing,
        a_signal_cancels_and_rolls_back_and_another_does_no_harm,
        a_killed_engine_is_made_good_by_recover,
        a_killed_engine_is_made_good_by_undo_too,
        recover_leaves_a_run_alone_that_is_going_on,
        undo_cancels_a_run_that_is_going_on,
        the_second_run_of_an_id_is_refused_at_once_and_names_the_first,
        a_step_that_fails_says_what_where_why_and_what_was_undone,
        an_undo_that_fails_is_stuck_and_can_be_tried_again,
        a_pause_tells_how_to_look_inside_and_goes_on_at_enter,
        an_interrupt_while_paused_takes_everything_back,
    ];
    tests.into_iter().map(|test| test.within("faults").needs(&[Root])).collect()
}

/// Two changes and something to wait for.
const WORK: &str = r#"
plan: work
about: A directory, a file in it, and a command to wait for.
params:
  id: { type: name, default: work }
  dir: { type: path }
  last: { type: list(string), default: ["true"] }
run: "${params.id}"
steps:
  outer:
    uses: command.run
    with: { args: [mkdir, -p, "${params.dir}"], undo: { args: [rm, -rf, "${params.dir}"] } }
  inner:
    uses: command.run
    needs: [outer]
    with: { args: [touch, "${params.dir}/made"], undo: { args: [rm, -f, "${params.dir}/made"] } }
  last:
    uses: command.run
    needs: [inner]
    with: { args: "${params.last}" }
"#;

/// A scene with the plan, and the directory that the plan makes.
fn work(lab: &Lab) -> lifecycle_tests::Result<(Scene<'_>, PathBuf)> {
    let mut scene = Scene::new(lab)?;
    scene.write("work.yaml", WORK)?;
    scene.begins_here()?;
    Ok((scene, lab.dir().join("made-by-work")))
}

fn arguments(dir: &str, more: &[&str]) -> Vec<String> {
    let fixed = ["run", "work.yaml", "-p"].map(String::from);
    fixed.into_iter().chain([format!("dir={dir}")]).chain(more.iter().map(|&word| String::from(word))).collect()
}

/// Starts the plan with a last step that takes long, and waits until it has come there.
fn started(scene: &Scene, dir: &std::path::Path, more: &[&str]) -> lifecycle_tests::Result<Started> {
    // It can begin only when it is in the journal, which then says no more.
    let last = format!("last=[sh, -c, 'touch {}/waiting; exec sleep 30']", dir.display());
    let run = scene.start(&arguments(&dir.to_string_lossy(), &[more, &["-p", &last]].concat()))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !dir.join("waiting").exists() {
        if Instant::now() > deadline {
            return Err(lifecycle_tests::Error::new("waiting for the plan's last step", format!("{:?}", run.end()?)));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(run)
}

pub fn a_fault_before_or_after_each_step_is_taken_back(lab: &Lab) -> TestResult {
    let (scene, dir) = work(lab)?;
    for step in ["outer", "inner", "last"] {
        for place in ["", ":before", ":after"] {
            let at = format!("{step}{place}");
            let told = scene.told(&arguments(&dir.to_string_lossy(), &["--fail-at", &at])).ended(1);
            told.says(&[&format!("step `{step}` (command.run) failed"), "everything was taken back"]);
            scene.nothing_left()?;
        }
    }
    Ok(())
}

pub fn a_crash_at_each_step_is_made_good_by_recover(lab: &Lab) -> TestResult {
    let (scene, dir) = work(lab)?;
    for step in ["outer", "inner", "last"] {
        let at = format!("{step}:crash");
        scene.told(&arguments(&dir.to_string_lossy(), &["--fail-at", &at])).ended(137);
        assert_eq!(dir.exists(), step != "outer", "at {at}");
        assert!(lab.state_root().join("work/journal").exists(), "at {at}");
        scene.told(&["recover", "--dry-run"]).ended(0).prints(&["work: "]);
        assert_eq!(dir.exists(), step != "outer", "a dry run took something back");
        scene.told(&["recover"]).ended(0).prints(&["work: taken back\n"]);
        scene.nothing_left()?;
        scene.told(&["recover"]).ended(0).prints(&["nothing to recover\n"]);
    }
    Ok(())
}

pub fn every_step_of_hello_can_fail_and_leaves_nothing(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let plan: serde_json::Value =
        serde_json::from_str(&scene.told(&["plan", "hello", "--format", "json"]).ended(0).out)?;
    // Without a terminal those that are for one are skipped.
    let taken = plan["steps"].as_array().into_iter().flatten().filter(|step| step["skipped"] != true);
    let steps: Vec<&str> = taken.filter_map(|step| step["address"].as_str()).collect();
    assert!(steps.len() > 8, "{steps:?}");
    for step in steps {
        for place in ["before", "after", "crash"] {
            let at = format!("{step}:{place}");
            let told = scene.told(&["run", "hello", "--fail-at", &at, "--", "true"]);
            if place == "crash" {
                assert_eq!(told.code, 137, "at {at}: {}", told.err);
                scene.told(&["recover"]).ended(0);
            } else {
                assert_eq!(told.code, 1, "at {at}: {}", told.err);
                told.says(&[&format!("step `{step}`"), "everything was taken back"]);
            }
            scene.nothing_left().map_err(|error| format!("at {at}: {error}"))?;
        }
    }
    Ok(())
}

pub fn a_signal_cancels_and_rolls_back_and_another_does_no_harm(lab: &Lab) -> TestResult {
    let (scene, dir) = work(lab)?;
    for (signal, code, times) in [(Signal::INT, 130, 1), (Signal::TERM, 143, 1), (Signal::INT, 130, 5)] {
        let run = started(&scene, &dir, &[])?;
        for _ in 0..times {
            run.signal(signal)?;
        }
        run.end()?.ended(code).says(&["everything was taken back"]);
        scene.nothing_left()?;
    }
    Ok(())
}

pub fn a_killed_engine_is_made_good_by_recover(lab: &Lab) -> TestResult {
    let (scene, dir) = work(lab)?;
    let run = started(&scene, &dir, &[])?;
    run.signal(Signal::KILL)?;
    run.end()?.ended(137);
    assert!(dir.exists());
    assert!(scene.state_of("work")?.is_some());
    scene.told(&["recover"]).ended(0).prints(&["work: taken back\n"]);
    Ok(scene.nothing_left()?)
}

pub fn a_killed_engine_is_made_good_by_undo_too(lab: &Lab) -> TestResult {
    let (scene, dir) = work(lab)?;
    let run = started(&scene, &dir, &[])?;
    run.signal(Signal::KILL)?;
    run.end()?.ended(137);
    scene.told(&["undo", "work"]).ended(0);
    Ok(scene.nothing_left()?)
}

pub fn recover_leaves_a_run_alone_that_is_going_on(lab: &Lab) -> TestResult {
    let (scene, dir) = work(lab)?;
    let run = started(&scene, &dir, &[])?;
    scene.told(&["recover", "--dry-run"]).ended(0).prints(&["nothing to recover\n"]);
    scene.told(&["recover"]).ended(0).prints(&["nothing to recover\n"]);
    assert!(dir.join("made").exists());
    run.signal(Signal::TERM)?;
    run.end()?.ended(143);
    Ok(scene.nothing_left()?)
}

pub fn undo_cancels_a_run_that_is_going_on(lab: &Lab) -> TestResult {
    let (scene, dir) = work(lab)?;
    let run = started(&scene, &dir, &[])?;
    scene.told(&["undo", "work"]).ended(0);
    assert!(!dir.exists());
    run.end()?.says(&["taken back"]);
    Ok(scene.nothing_left()?)
}

pub fn the_second_run_of_an_id_is_refused_at_once_and_names_the_first(lab: &Lab) -> TestResult {
    let (scene, dir) = work(lab)?;
    let run = started(&scene, &dir, &[])?;
    let journal = std::fs::read(lab.state_root().join("work/journal"))?;
    let other = lab.dir().join("made-by-the-second");
    let told = scene.told(&arguments(&other.to_string_lossy(), &[])).ended(125);
    told.says(&["`work`", "plan work made it", &format!("pid {}", run.pid()), "is running", "lifecycle undo work"]);
    assert!(!other.exists());
    assert!(
        std::fs::read(lab.state_root().join("work/journal"))? == journal,
        "the second run wrote into the first's journal"
    );
    // Another id is another run.
    scene.told(&arguments(&other.to_string_lossy(), &["-p", "id=other"])).ended(0);
    run.signal(Signal::TERM)?;
    run.end()?.ended(143);
    Ok(scene.nothing_left()?)
}

pub fn a_step_that_fails_says_what_where_why_and_what_was_undone(lab: &Lab) -> TestResult {
    let (scene, dir) = work(lab)?;
    let last = "last=[sh, -c, 'echo first; echo the reason >&2; exit 9']";
    scene.told(&arguments(&dir.to_string_lossy(), &["-p", last])).ended(1).says(&[
        "work.yaml:17: step `last` (command.run) failed",
        "the reason",
        "status 9",
        "everything was taken back",
    ]);
    Ok(scene.nothing_left()?)
}

pub fn an_undo_that_fails_is_stuck_and_can_be_tried_again(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let gate = lab.dir().join("gate");
    let plan = r#"
plan: stubborn
params: { gate: { type: path }, dir: { type: path } }
run: stubborn
steps:
  first: { uses: command.run, with: { args: [mkdir, -p, "${params.dir}"], undo: { args: [rm, -rf, "${params.dir}"] } } }
  second:
    uses: command.run
    needs: [first]
    with: { args: ["true"], undo: { args: [test, -e, "${params.gate}"] } }
"#;
    scene.write("stubborn.yaml", plan)?;
    scene.begins_here()?;
    let dir = lab.dir().join("made");
    let (gate_param, dir_param) = (format!("gate={}", gate.display()), format!("dir={}", dir.display()));
    let told = scene.told(&["run", "stubborn.yaml", "-p", &gate_param, "-p", &dir_param]).ended(125);
    told.says(&["stubborn", "could not be taken back", "second", "lifecycle undo stubborn"]);
    assert!(!dir.exists(), "the first step was not taken back because the second could not be");
    scene.told(&["undo", "stubborn"]).ended(1).says(&["second"]);
    scene.told(&["recover"]).ended(1).prints(&["stubborn: stuck", "second"]);
    scene.told(&["runs"]).ended(0).prints(&["stubborn", "stuck"]);
    std::fs::write(&gate, "")?;
    scene.told(&["recover"]).ended(0).prints(&["stubborn: taken back"]);
    std::fs::remove_file(&gate)?;
    Ok(scene.nothing_left()?)
}

pub fn a_pause_tells_how_to_look_inside_and_goes_on_at_enter(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let mut run = scene.start(&["run", "hello", "--pause-at", "exec", "--", "echo", "went on"])?;
    run.wait_for("Enter goes on")?;
    std::thread::sleep(Duration::from_millis(100));
    run.type_in("\n", true)?;
    let told = run.end()?.ended(0).prints(&["went on\n"]);
    told.says(&[
        "paused before `exec`",
        "process of `init`: pid ",
        "ls -l /proc/",
        "nsenter -t ",
        "mountinfo",
        "/cgroup",
    ]);
    Ok(scene.nothing_left()?)
}

pub fn an_interrupt_while_paused_takes_everything_back(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let mut run = scene.start(&["run", "hello", "--pause-at", "wait", "--", "true"])?;
    run.wait_for("Enter goes on")?;
    run.signal(Signal::INT)?;
    run.end()?.ended(130).says(&["everything was taken back"]);
    Ok(scene.nothing_left()?)
}
