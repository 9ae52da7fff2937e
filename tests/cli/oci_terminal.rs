//! What a program has written to its terminal last, when it has ended before all of that could be shown.

use std::fs;
use std::io::{PipeReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::json;

use crate::oci_scene::{Oci, eventually};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        oci_run_shows_what_the_terminal_still_holds_when_its_program_has_ended,
        oci_exec_shows_what_the_terminal_still_holds_when_its_program_has_ended,
        oci_exec_tty_ends_although_another_holds_the_terminal,
        oci_exec_tty_goes_on_when_nobody_reads_any_more,
    ];
    tests.into_iter().map(|test| test.within("oci_terminal").needs(&[Root, Program("busybox")])).collect()
}

/// As many lines as a terminal takes when nobody reads it.
const LINES: usize = 600;

/// Starts it with a stdout that takes nothing, until it is read.
fn start(command: &mut Command) -> Result<(Child, PipeReader), Box<dyn std::error::Error>> {
    let (read, mut write) = std::io::pipe()?;
    fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    while write.write(&[0; 4096]).is_ok() {}
    fcntl(&write, FcntlArg::F_SETFL(OFlag::empty()))?;
    let child = command.stdout(Stdio::from(write)).stdin(Stdio::null()).spawn()?;
    command.stdout(Stdio::null());
    Ok((child, read))
}

/// All that it writes.
fn lines(mut read: PipeReader) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut text = Vec::new();
    read.read_to_end(&mut text)?;
    let text = String::from_utf8(text)?;
    Ok(text.trim_start_matches('\0').lines().map(|line| line.trim_end().to_owned()).collect())
}

fn counted() -> Vec<String> {
    (1..=LINES).map(|n| n.to_string()).collect()
}

pub fn oci_run_shows_what_the_terminal_still_holds_when_its_program_has_ended(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["busybox", "seq", &LINES.to_string()])?;
    oci.edit(|config| config["process"]["terminal"] = json!(true))?;
    let (mut run, read) = start(&mut oci.command(&["run", "--bundle", "bundle", &oci.id]))?;
    eventually("the program's end", || Ok(oci.verb("state").out.contains("stopped")))?;
    assert_eq!(lines(read)?, counted());
    assert!(run.wait()?.success());
    Ok(oci.scene.nothing_left()?)
}

pub fn oci_exec_shows_what_the_terminal_still_holds_when_its_program_has_ended(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    oci.running(&[]);
    let count = LINES.to_string();
    let exec = ["exec", "--tty", "--pid-file", "pid", &oci.id, "busybox", "seq", &count];
    let (mut exec, read) = start(&mut oci.command(&exec))?;
    let pid = lab.dir().join("pid");
    eventually("the program", || Ok(pid.exists()))?;
    let process = Path::new("/proc").join(fs::read_to_string(pid)?);
    eventually("the program's end", || Ok(!process.exists()))?;
    assert_eq!(lines(read)?, counted());
    assert!(exec.wait()?.success());
    oci.without(&["pid"])?;
    Ok(oci.gone()?)
}

pub fn oci_exec_tty_ends_although_another_holds_the_terminal(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    oci.running(&[]);
    // In a session of its own it is told of no hang-up.
    let other =
        "busybox setsid sh -c 'touch /dev/shm/on; exec sleep 601' & until [ -e /dev/shm/on ]; do sleep 0.05; done";
    let told = oci.told(&["exec", "--tty", &oci.id, "sh", "-c", &format!("{other}; echo said; exit 3")]).ended(3);
    assert_eq!(told.out, "said\r\n");
    assert_eq!(
        oci.told(&["ps", "--format", "json", &oci.id]).ended(0).out.matches(',').count(),
        1,
        "nobody holds the terminal"
    );
    Ok(oci.gone()?)
}

pub fn oci_exec_tty_goes_on_when_nobody_reads_any_more(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    oci.running(&[]);
    let script = "until [ -e /dev/shm/go ]; do sleep 0.05; done; busybox seq 20000; echo done > /dev/shm/done; exit 3";
    let (mut exec, read) = start(&mut oci.command(&["exec", "--tty", &oci.id, "sh", "-c", script]))?;
    drop(read);
    oci.inside(&["touch", "/dev/shm/go"]);
    assert_eq!(exec.wait()?.code(), Some(3));
    assert_eq!(oci.inside(&["cat", "/dev/shm/done"]), "done\n");
    Ok(oci.gone()?)
}
