//! What says more than anybody can take: the engine stays small, and hears signals all the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use lifecycle_tests::While;
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::boxed::Boxed;
use crate::oci_scene::{Oci, eventually};
use crate::scene::Scene;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        oci_run_of_a_terminal_that_is_flooded_hears_signals,
        oci_create_with_a_hook_that_floods_hears_signals,
        a_run_whose_steps_print_without_end_stays_small_and_hears_signals,
        a_run_whose_container_prints_without_end_stays_small_and_hears_signals,
        a_container_that_outlives_its_engine_holds_no_file_of_the_hosts,
    ];
    tests.into_iter().map(|test| test.within("floods").needs(&[Root, Program("busybox")])).collect()
}

/// More than any pipe or terminal holds, and than is kept of it, in bytes.
const MUCH: u64 = 8 << 20;

/// A command that runs, whose output nobody looks at.
struct Flooded(Child);

impl Flooded {
    fn new(command: &mut Command) -> std::io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Self)
    }

    /// Waits until so much has been said to it; then it must have stayed small.
    fn hears(&self, bytes: u64) -> TestResult {
        eventually("the flood", || Ok(said_to(self.0.id())? > bytes))?;
        let memory = number(self.0.id(), "status", "VmRSS:").ok_or("it has ended")?;
        assert!(memory < 64 << 10, "the engine has {} MiB", memory >> 10);
        Ok(())
    }

    /// While it goes on. The exit code, 128 + n for a signal.
    fn tell(mut self, signal: Signal) -> Result<i32, Box<dyn std::error::Error>> {
        kill_process(Pid::from_child(&self.0), signal)?;
        let status = self.0.wait()?;
        Ok(status.code().unwrap_or(128 + status.signal().unwrap_or_default()))
    }
}

/// A number that the kernel says of a process, proc_pid_status(5) or proc_pid_io(5).
fn number(pid: u32, file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// What every process of this lab has said so far, in bytes: all but the test and the engine.
fn said_to(engine: u32) -> lifecycle_tests::Result<u64> {
    let entries = fs::read_dir("/proc").when(|| "listing /proc".into())?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let others = pids.filter(|pid| ![1, engine].contains(pid));
    Ok(others.filter_map(|pid| number(pid, "io", "wchar:")).sum())
}

pub fn oci_run_of_a_terminal_that_is_flooded_hears_signals(lab: &Lab) -> TestResult {
    let script = "trap 'exit 7' TERM; for n in 1 2 3 4; do yes 0123456789abcdef0123456789abcdef & done; while :; do sleep 0.05; done";
    let mut oci = Oci::new(lab, &["sh", "-c", script])?;
    oci.edit(|config| config["process"]["terminal"] = json!(true))?;
    let run = Flooded::new(&mut oci.command(&["run", "-b", "bundle", &oci.id]))?;
    run.hears(MUCH)?;
    assert_eq!(run.tell(Signal::TERM)?, 7);
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_create_with_a_hook_that_floods_hears_signals(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    // On the host, and inside: in the container there is a shell, too.
    for (stage, path) in [("createRuntime", "/bin/sh"), ("createContainer", "/bin/sh"), ("startContainer", "/bin/sh")] {
        oci.edit(|config| {
            config["hooks"] =
                json!({ stage: [{ "path": path, "args": ["sh", "-c", "yes 0123456789abcdef0123456789abcdef"] }] });
        })?;
        // The last runs when the container is started, while the engine of `run` is there.
        let run = Flooded::new(&mut oci.command(&["--debug", "run", "-b", "bundle", &oci.id]))?;
        run.hears(MUCH)?;
        // The program that would get it has not begun.
        assert_eq!(run.tell(Signal::TERM)?, 1, "{stage}");
        oci.scene.nothing_left()?;
    }
    Ok(())
}

/// Prints without end, on the host and in a container.
const ENDLESS: &str = r#"
plan: endless
params: { inside: { type: bool } }
run: endless
steps:
  host: { uses: command.run, if: "!params.inside", with: { args: [sh, -c, 'while :; do yes 0123456789abcdef0123456789abcdef; done'] } }
  init: { uses: process.clone, if: params.inside, with: { new: [pid], stdio: log } }
  exec: { uses: process.exec, if: params.inside, site: "${init}", with: { args: [sh, -c, 'for n in 1 2 3; do yes 0123456789abcdef0123456789abcdef & done; wait'] } }
  wait: { uses: process.wait, if: params.inside, with: { process: "${init.process}" } }
"#;

fn endless(lab: &Lab, inside: bool) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("endless.yaml", ENDLESS)?;
    scene.begins_here()?;
    let run = Flooded::new(&mut scene.command(&["run", "endless.yaml", "-p", &format!("inside={inside}")]))?;
    run.hears(MUCH)?;
    // Where it is kept for `logs` is memory, too.
    let log = fs::metadata(lab.state_root().join("endless/log"))?.len();
    assert!(log <= (16 << 20) + (64 << 10), "the log has {} MiB", log >> 20);
    assert_eq!(run.tell(Signal::TERM)?, 143);
    Ok(scene.nothing_left()?)
}

pub fn a_run_whose_steps_print_without_end_stays_small_and_hears_signals(lab: &Lab) -> TestResult {
    endless(lab, false)
}

pub fn a_run_whose_container_prints_without_end_stays_small_and_hears_signals(lab: &Lab) -> TestResult {
    endless(lab, true)
}

/// Changes what its output is, and then prints more than is kept of it.
const GRASPS: &str = "chmod 666 /proc/self/fd/1; truncate -s 1T /proc/self/fd/1; : >>/proc/self/fd/1; \
                      head -c 30000000 /dev/zero; echo; touch /tmp/printed; exec sleep 1000";

/// The same in a process of a plan, whose output is a step's.
const LOGGED: &str = r#"
plan: grasps
params: { script: { type: string } }
run: grasps
steps:
  init: { uses: process.clone, with: { new: [pid], stdio: log } }
  exec: { uses: process.exec, site: "${init}", with: { args: [sh, -c, "${params.script}"], env: [PATH=/usr/bin:/bin] } }
"#;

pub fn a_container_that_outlives_its_engine_holds_no_file_of_the_hosts(lab: &Lab) -> TestResult {
    let mut container = Boxed::runs(lab, GRASPS)?;
    container.edit(|config| config["root"]["readonly"] = json!(false))?;
    let printed = lab.dir().join("printed");
    container.scene.write("grasps.yaml", LOGGED)?;
    container.scene.begins_here()?;
    let detached = container.plan("oci/run", &["--detach"]).ended(0).out.trim().to_owned();
    let script = format!("script={}", GRASPS.replace("/tmp/printed", &printed.to_string_lossy()));
    container.scene.told(&["run", "grasps.yaml", "--keep", "-p", &script]).ended(0);
    let in_container = container.bundle.rootfs().join("tmp/printed");
    eventually("both to print", || Ok(in_container.exists() && printed.exists()))?;
    for run in [&detached, "grasps"] {
        let mut kept = 0;
        for entry in fs::read_dir(lab.state_root().join(run))? {
            let entry = entry?;
            let about = entry.metadata()?;
            assert_eq!(about.mode() & 0o077, 0, "{}", entry.path().display());
            if entry.file_name().to_string_lossy().starts_with("output") {
                eventually("the end of what is kept", || {
                    Ok(entry.metadata().when(|| "stat".into())?.len() >= 16 << 20)
                })?;
                kept = entry.metadata()?.len();
            }
        }
        assert!(((16 << 20)..(16 << 20) + 4096).contains(&kept), "{run}: {kept} bytes are kept");
        eventually("a word that there was more", || {
            Ok(container.scene.told(&["logs", run]).ended(0).out.contains("is not kept"))
        })?;
        container.scene.told(&["undo", run]).ended(0);
    }
    fs::remove_file(in_container)?;
    fs::remove_file(printed)?;
    Ok(container.scene.nothing_left()?)
}
