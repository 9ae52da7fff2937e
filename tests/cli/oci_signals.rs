//! Signals that come while a container is started, or just after: they are the program's as soon as there is one.

use std::fs;
use std::time::{Duration, Instant};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::oci_scene::{Oci, eventually, reap_later};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        oci_exec_that_is_cancelled_sends_the_signal_to_its_program,
        oci_run_and_exec_send_a_signal_on_that_comes_right_after_the_start,
        oci_run_sends_signals_on_that_come_while_poststart_hooks_run,
        oci_run_that_is_killed_leaves_nothing_once_the_container_is_deleted,
        oci_start_that_is_cancelled_in_a_start_container_hook_has_started_the_container,
        oci_start_that_is_killed_in_a_start_container_hook_has_started_the_container,
        oci_start_that_is_cancelled_in_a_poststart_hook_stops_the_container,
        oci_delete_force_ends_a_paused_container_whose_engine_was_killed,
        oci_delete_says_who_does_not_reap_what_keeps_the_container,
        oci_kill_ends_all_of_a_container_without_a_pid_namespace,
    ];
    tests.into_iter().map(|test| test.within("oci_signals").needs(&[Root, Program("busybox")])).collect()
}

/// What a program does that takes a signal in its own time.
const TRAPS: &str = "trap 'echo caught; exit 3' TERM USR1; echo ready; while :; do sleep 0.05; done";

pub fn oci_exec_that_is_cancelled_sends_the_signal_to_its_program(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    oci.running(&[]);
    for signal in [Signal::TERM, Signal::USR1] {
        let mut exec = oci.start(&["exec", &oci.id, "sh", "-c", TRAPS])?;
        exec.wait_for("ready")?;
        exec.signal(signal)?;
        exec.end()?.ended(3).prints(&["caught"]);
    }
    Ok(oci.gone()?)
}

/// With its first process a pid namespace ends. The rest of a container that shares one would go on without anybody who knows of it.
pub fn oci_kill_ends_all_of_a_container_without_a_pid_namespace(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "sleep 601 & exec sleep 600"])?;
    oci.edit(|config| config["linux"]["namespaces"].as_array_mut().expect("a list").retain(|n| n["type"] != "pid"))?;
    oci.running(&[]);
    let others = || -> lifecycle_tests::Result<Vec<i32>> {
        let told = oci.told(&["ps", "--format", "json", &oci.id]).ended(0).out;
        serde_json::from_str(&told).map_err(|e| lifecycle_tests::Error::new("reading pids", e.to_string()))
    };
    eventually("its child", || Ok(others()?.len() == 2))?;
    let all = others()?;
    // What asks for less than the end is for the first process alone.
    oci.told(&["kill", &oci.id, "CONT"]).ended(0);
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    let dead = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    eventually("the end of both", || Ok(all.iter().all(dead)))?;
    oci.wait_for_status("stopped")?;
    Ok(oci.gone()?)
}

/// No sooner can a signal come than from the program itself: its engine may not have begun to wait for it, nor even heard that it is there.
pub fn oci_run_and_exec_send_a_signal_on_that_comes_right_after_the_start(lab: &Lab) -> TestResult {
    const AT_ONCE: &str = "trap 'exit 3' TERM; kill -TERM $PPID; while :; do sleep 0.05; done";
    let mut oci = Oci::new(lab, &["sh", "-c", AT_ONCE])?;
    // With the host's pids it can name its engine.
    let shared = |config: &mut Value| {
        let all = config["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        config["linux"]["namespaces"] = all.into_iter().filter(|n| n["type"] != "pid").collect();
    };
    oci.edit(shared)?;
    for round in 0..15 {
        let told = oci.told(&["run", "--bundle", "bundle", &oci.id]);
        assert_eq!((told.code, told.err.as_str()), (3, ""), "run {round}");
        oci.scene.nothing_left()?;
    }
    oci.edit(|config| config["process"]["args"] = json!(["sleep", "600"]))?;
    oci.running(&[]);
    for round in 0..15 {
        let told = oci.told(&["exec", &oci.id, "sh", "-c", AT_ONCE]);
        assert_eq!((told.code, told.err.as_str()), (3, ""), "exec {round}");
    }
    Ok(oci.gone()?)
}

/// While its poststart hooks run, a program is there already.
pub fn oci_run_sends_signals_on_that_come_while_poststart_hooks_run(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", TRAPS])?;
    let (begun, go_on) = (lab.dir().join("begun"), lab.dir().join("go-on"));
    let script = format!("touch {}; until [ -e {} ]; do sleep 0.05; done", begun.display(), go_on.display());
    oci.edit(|config| {
        config["hooks"] = json!({ "poststart": [{ "path": program::find("busybox"), "args": ["sh", "-c", script] }] });
    })?;
    for signal in [Signal::TERM, Signal::USR1] {
        let mut run = oci.start(&["run", "--bundle", "bundle", &oci.id])?;
        run.wait_for("ready")?;
        eventually("the hook", || Ok(begun.exists()))?;
        run.signal(signal)?;
        fs::write(&go_on, "")?;
        run.end()?.ended(3).prints(&["caught"]);
        for file in [&begun, &go_on] {
            fs::remove_file(file)?;
        }
        oci.scene.nothing_left()?;
    }
    Ok(())
}

/// Nobody is left to end the run around the container: whoever deletes that ends both.
pub fn oci_run_that_is_killed_leaves_nothing_once_the_container_is_deleted(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sh", "-c", "echo ready; sleep 60"])?;
    let mut run = oci.start(&["run", "--bundle", "bundle", &oci.id])?;
    run.wait_for("ready")?;
    run.signal(Signal::KILL)?;
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    run.end()?;
    assert_eq!(fs::read_dir(lab.state_root()).map_or(0, Iterator::count), 0, "runs are left");
    Ok(oci.scene.nothing_left()?)
}

/// A container whose start takes until `go-on` is there, in a hook of this stage.
fn held<'a>(lab: &'a Lab, stage: &str) -> Result<Oci<'a>, Box<dyn std::error::Error>> {
    let mut oci = Oci::new(lab, &["sh", "-c", TRAPS])?;
    oci.edit(|config| {
        config["root"]["readonly"] = json!(false);
        let script = |dir: &str| format!("touch {dir}/begun; until [ -e {dir}/go-on ]; do sleep 0.05; done");
        let (path, dir) = if stage == "startContainer" {
            (json!("/bin/busybox"), "/tmp".to_owned())
        } else {
            (json!(program::find("busybox")), lab.dir().join("bundle/rootfs/tmp").display().to_string())
        };
        config["hooks"] = json!({ stage: [{ "path": path, "args": ["sh", "-c", script(&dir)] }] });
    })?;
    Ok(oci)
}

/// What has become of a container whose start was cancelled while a hook of this stage ran.
fn cancelled<'a>(lab: &'a Lab, stage: &str, signal: Signal) -> Result<Oci<'a>, Box<dyn std::error::Error>> {
    let oci = held(lab, stage)?;
    oci.create(&[]);
    let start = oci.start(&["start", &oci.id])?;
    eventually("the hook", || Ok(oci.bundle.rootfs().join("tmp/begun").exists()))?;
    start.signal(signal)?;
    start.end()?.ended(1).says(&["cancelled by signal", "the container had been let go"]);
    Ok(oci)
}

/// Its hook is the container's: that goes on, and the program after it. It is not to be started again.
pub fn oci_start_that_is_cancelled_in_a_start_container_hook_has_started_the_container(lab: &Lab) -> TestResult {
    for signal in [Signal::TERM, Signal::INT] {
        let oci = cancelled(lab, "startContainer", signal)?;
        assert_eq!(oci.state()?["status"], "running");
        oci.verb("start").ended(1).says(&["cannot start an already running container"]);
        fs::write(oci.bundle.rootfs().join("tmp/go-on"), "")?;
        let comm = format!("/proc/{}/cmdline", oci.pid()?);
        eventually("the program", || {
            Ok(fs::read(&comm).is_ok_and(|line| String::from_utf8_lossy(&line).contains("trap")))
        })?;
        oci.told(&["exec", &oci.id, "true"]).ended(0);
        oci.told(&["kill", &oci.id, "TERM"]).ended(0);
        oci.wait_for_status("stopped")?;
        oci.verb("delete").ended(0);
        without_files(oci)?;
    }
    Ok(())
}

/// A start that is killed there leaves the same, and one that was cut off before it could say so is found out by the next.
pub fn oci_start_that_is_killed_in_a_start_container_hook_has_started_the_container(lab: &Lab) -> TestResult {
    let oci = held(lab, "startContainer")?;
    oci.create(&[]);
    let start = oci.start(&["start", &oci.id])?;
    eventually("the hook", || Ok(oci.bundle.rootfs().join("tmp/begun").exists()))?;
    start.signal(Signal::KILL)?;
    start.end()?.ended(137);
    assert_eq!(oci.state()?["status"], "running");
    oci.verb("start").ended(1).says(&["cannot start an already running container"]);
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    without_files(oci)
}

/// Nobody is to find it running without what the hook does: as where that fails by itself.
pub fn oci_start_that_is_cancelled_in_a_poststart_hook_stops_the_container(lab: &Lab) -> TestResult {
    let oci = cancelled(lab, "poststart", Signal::TERM)?;
    oci.wait_for_status("stopped")?;
    oci.verb("start").ended(1).says(&["cannot start a container that has stopped"]);
    oci.verb("delete").ended(0);
    without_files(oci)
}

/// Nothing is left but what the hooks wrote.
fn without_files(oci: Oci) -> TestResult {
    for file in ["begun", "go-on"] {
        match fs::remove_file(oci.bundle.rootfs().join("tmp").join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    oci.scene.nothing_left()?;
    Ok(fs::remove_dir_all(oci.bundle.dir())?)
}

/// Version 1 shows a frozen process no signal. Whoever takes its container back lets it go on, so that it can die.
pub fn oci_delete_force_ends_a_paused_container_whose_engine_was_killed(lab: &Lab) -> TestResult {
    for other in [false, true] {
        let oci = Oci::new(lab, &["sleep", "600"])?;
        let run = oci.start(&["run", "--bundle", "bundle", &oci.id])?;
        eventually("the program", || Ok(oci.verb("state").out.contains("\"running\"")))?;
        oci.verb("pause").ended(0);
        run.signal(Signal::KILL)?;
        run.end()?.ended(137);
        assert_eq!(oci.state()?["status"], "paused");
        let begun = Instant::now();
        if other {
            oci.scene.told(&["recover"]).ended(0);
        } else {
            oci.told(&["delete", "--force", &oci.id]).ended(0);
        }
        oci.verb("state").ended(1).says(&["does not exist"]);
        assert!(begun.elapsed() < Duration::from_secs(8), "it was waited for: {:?}", begun.elapsed());
        // The engine's own run, in which the container's lay, has nothing but its journal.
        oci.scene.told(&["recover"]).ended(0);
        oci.scene.nothing_left()?;
        fs::remove_dir_all(oci.bundle.dir())?;
    }
    Ok(())
}

/// What was executed in a container is its caller's child, and keeps the container's pid namespace until he reaps it.
pub fn oci_delete_says_who_does_not_reap_what_keeps_the_container(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    oci.running(&[]);
    oci.told(&["exec", "--detach", "--pid-file", "pid", &oci.id, "true"]).ended(0);
    let pid = fs::read_to_string(lab.dir().join("pid"))?;
    // Its engine has ended, so it is the test's, which is the first process of the lab.
    let who = format!("still has process {pid}, which has ended");
    let told = oci.told(&["delete", "--force", &oci.id]).ended(1);
    assert!(!told.err.contains("hangs in the kernel"), "{}", told.err);
    told.says(&["does not die of SIGKILL", &who, "process 1 (", "has to reap it"]);
    reap_later(pid.parse()?);
    oci.without(&["pid"])?;
    Ok(oci.gone()?)
}
