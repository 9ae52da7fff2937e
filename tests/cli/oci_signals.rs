//! Signals that come while a container is started, or just after: they are the program's as soon as there is one.

use std::fs;

use lifecycle_tests::harness::TestResult;
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::oci_scene::{Oci, eventually};

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
        config["hooks"] =
            json!({ "poststart": [{ "path": program::find("busybox"), "args": ["sh", "-c", script] }] });
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
