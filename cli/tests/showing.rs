//! The commands that show and touch nothing, run as a person runs them.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const PLAN: &str = r#"
plan: demo
about: A command, and a port.
params:
  id: { type: name, default: demo }
  secret: { type: string, sensitive: true, default: hunter2 }
  port: { type: int, default: 8080 }
run: "${params.id}"
steps:
  first:
    uses: command.run
    with: { args: [/bin/echo, hello, "${params.secret}"], undo: { args: [/bin/true] } }
  ready:
    uses: probe.tcp
    needs: [first]
    with: { address: 127.0.0.1, port: "${params.port}" }
"#;

const FACTS: &str = r#"{ "host": { "cwd": "/home/someone", "euid": 0 } }"#;

fn scratch() -> TempDir {
    let dir = tempfile::tempdir().expect("scratch");
    write(dir.path(), "demo.yaml", PLAN);
    write(dir.path(), "facts.json", FACTS);
    dir
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).expect("written");
}

fn lifecycle(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lifecycle"));
    command.current_dir(dir).args(args).env_remove("NO_COLOR").output().expect("started")
}

/// Exit code, stdout, stderr.
fn told(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = lifecycle(dir, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn ok(dir: &Path, args: &[&str]) -> String {
    let (code, out, err) = told(dir, args);
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
    out
}

/// Fails with that code and says these words on stderr.
fn refused(dir: &Path, args: &[&str], code: i32, words: &[&str]) {
    let (found, out, err) = told(dir, args);
    assert_eq!(found, code, "{args:?}: {out}{err}");
    for word in words {
        assert!(err.contains(word), "{args:?} does not say {word:?}:\n{err}");
    }
    assert!(!err.contains("panicked"), "{err}");
}

#[test]
fn a_plan_is_shown_in_every_format_and_the_same_every_time() {
    let dir = scratch();
    for (format, sign) in [
        ("text", "first  command.run"),
        ("json", "\"lifecycle_dry_run\": 1"),
        ("dot", "digraph"),
        ("mermaid", "flowchart"),
        ("svg", "<svg"),
    ] {
        let args = ["plan", "demo.yaml", "--facts", "facts.json", "--format", format];
        let shown = ok(dir.path(), &args);
        assert!(shown.contains(sign), "{format}: {shown}");
        assert!(!shown.contains("hunter2"), "{format} shows a sensitive value");
        assert!(!shown.contains('\x1b'), "{format} has colour in a pipe");
        assert_eq!(shown, ok(dir.path(), &args), "{format} is not the same twice");
    }
    let colored = ok(dir.path(), &["plan", "demo.yaml", "--color", "always"]);
    assert!(colored.contains("\x1b["));
}

#[test]
fn wrong_plans_and_parameters_are_refused_with_their_place() {
    let dir = scratch();
    write(dir.path(), "wrong.yaml", &PLAN.replace("command.run", "command.rum").replace("port:", "prot:"));
    refused(dir.path(), &["plan", "wrong.yaml"], 1, &["wrong.yaml:11", "did you mean `command.run`?"]);
    refused(dir.path(), &["plan", "nowhere.yaml"], 1, &["no file and no built-in plan `nowhere.yaml`"]);
    refused(dir.path(), &["plan", "demo.yaml", "-p", "port=many"], 1, &["port"]);
    refused(dir.path(), &["plan", "demo.yaml", "-p", "prot=80"], 1, &["did you mean `port`?"]);
    refused(dir.path(), &["plan", "demo.yaml", "-p", "port"], 2, &["port=VALUE"]);
    refused(dir.path(), &["plan", "demo.yaml", "--mask", "kernel.openat3"], 1, &["did you mean `kernel.openat2`?"]);
    refused(dir.path(), &["plan", "demo.yaml", "--facts", "demo.yaml"], 1, &["is not a file of facts"]);
    refused(dir.path(), &["plan", "."], 1, &["config.json"]);
    refused(dir.path(), &["plan", "demo.yaml", "demo.yaml"], 1, &["--diff"]);
    refused(dir.path(), &["run", "wrong.yaml"], 125, &["command.run"]);
    refused(dir.path(), &["run", "--no-such-flag"], 125, &["--no-such-flag"]);
}

#[test]
fn check_goes_on_after_a_wrong_plan() {
    let dir = scratch();
    write(dir.path(), "wrong.yaml", &PLAN.replace("command.run", "command.rum"));
    write(dir.path(), "worse.yaml", "plan: [");
    ok(dir.path(), &["check", "demo.yaml"]);
    refused(
        dir.path(),
        &["check", "wrong.yaml", "demo.yaml", "worse.yaml"],
        1,
        &["wrong.yaml", "worse.yaml", "2 of 3 plans"],
    );
}

#[test]
fn two_plans_two_hosts_and_two_files_of_facts_are_compared() {
    let dir = scratch();
    write(dir.path(), "other.yaml", &PLAN.replace("hello", "goodbye"));
    write(dir.path(), "elsewhere.json", &FACTS.replace("someone", "another"));
    assert_eq!(ok(dir.path(), &["plan", "demo.yaml", "demo.yaml", "--diff"]), "no difference\n");
    let (code, out, _) = told(dir.path(), &["plan", "demo.yaml", "other.yaml", "--diff"]);
    assert_eq!(code, 1);
    assert!(out.contains("call.args: -hello +goodbye"), "{out}");
    let hosts = ["plan", "demo.yaml", "--facts", "facts.json", "--facts", "elsewhere.json", "--diff"];
    let (code, out, _) = told(dir.path(), &hosts);
    assert_eq!(code, 1);
    assert!(out.contains("cwd: /home/someone → /home/another"), "{out}");
    let (code, out, _) = told(dir.path(), &["plan", "facts.json", "elsewhere.json", "--diff"]);
    assert_eq!((code, out.lines().count()), (1, 2), "{out}");
    refused(dir.path(), &["plan", "demo.yaml", "facts.json", "--diff"], 1, &["cannot be compared"]);
    refused(dir.path(), &["plan", "demo.yaml", "--diff"], 1, &["nothing to compare"]);
}

#[test]
fn a_saved_plan_keeps_no_secret_and_is_refused_once_anything_changed() {
    let dir = scratch();
    let root = dir.path().join("state");
    let root = root.to_str().expect("UTF-8");
    ok(dir.path(), &["plan", "demo.yaml", "-p", "secret=geheim", "-o", "saved", "--root", root]);
    let saved = std::fs::read_to_string(dir.path().join("saved")).expect("written");
    assert!(!saved.contains("geheim") && !saved.contains("hunter2"));
    assert_eq!(ok(dir.path(), &["plan", "saved", "saved", "--diff"]), "no difference\n");
    refused(dir.path(), &["run", "saved", "--root", root], 125, &["-p secret=VALUE"]);
    refused(dir.path(), &["run", "saved", "--root", root, "-p", "secret=x", "-p", "port=1"], 125, &["`port`"]);
    refused(dir.path(), &["plan", "saved", "-o", "again"], 1, &["saved plan"]);
    write(dir.path(), "demo.yaml", &PLAN.replace("hello", "goodbye"));
    refused(
        dir.path(),
        &["run", "saved", "--root", root, "-p", "secret=x"],
        125,
        &["was edited", "-hello +goodbye", "Nothing was done"],
    );
    write(dir.path(), "saved", &saved.replace("/bin/echo", "/bin/evil"));
    refused(dir.path(), &["run", "saved", "--root", root, "-p", "secret=x"], 125, &["its digest is not"]);
    assert!(!Path::new(root).exists(), "something was run");
}

#[test]
fn a_snapshot_is_stored_compared_and_updated() {
    let dir = scratch();
    let args = ["snapshot", "demo.yaml", "--facts", "facts.json"];
    let (code, out, _) = told(dir.path(), &args);
    assert_eq!(code, 1);
    assert!(out.contains("has no snapshot"), "{out}");
    let update = ["snapshot", "demo.yaml", "--facts", "facts.json", "--update"];
    assert!(ok(dir.path(), &update).contains("stored in snapshots/demo.txt"));
    assert!(ok(dir.path(), &args).contains("as in its snapshot"));
    write(dir.path(), "demo.yaml", &PLAN.replace("hello", "goodbye"));
    let (code, out, _) = told(dir.path(), &args);
    assert_eq!(code, 1);
    assert!(out.contains("-   » run /bin/echo hello") && out.contains("+   » run /bin/echo goodbye"), "{out}");
    ok(dir.path(), &update);
    ok(dir.path(), &args);
    refused(dir.path(), &["snapshot", "demo.yaml"], 2, &["--facts"]);
}

#[test]
fn the_catalogue_the_schema_and_the_facts_are_for_people_and_programs() {
    let dir = scratch();
    let list = ok(dir.path(), &["steps"]);
    assert!(list.contains("command.run  ") && list.lines().all(|line| line.chars().count() <= 80), "{list}");
    let one = ok(dir.path(), &["steps", "command.run"]);
    assert!(one.contains("reversed by") && one.contains("uses: command.run"), "{one}");
    refused(dir.path(), &["steps", "command.rum"], 1, &["did you mean `command.run`?"]);
    for args in [
        &["steps", "--format", "json"][..],
        &["steps", "command.run", "--format", "json"],
        &["steps", "--effects", "--format", "json"],
        &["schema"],
        &["facts", "--format", "json"],
    ] {
        let text = ok(dir.path(), args);
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{args:?}: {e}"));
    }
    assert!(ok(dir.path(), &["facts", "uid"]).starts_with("uid  "));
    refused(dir.path(), &["facts", "kernel.openat3"], 1, &["did you mean `kernel.openat2`?"]);
    write(dir.path(), "host.json", &ok(dir.path(), &["facts", "--format", "json"]));
    ok(dir.path(), &["plan", "demo.yaml", "--facts", "host.json"]);
}

#[test]
fn every_command_is_completed_and_has_a_page() {
    let dir = scratch();
    for shell in ["bash", "zsh", "fish"] {
        assert!(ok(dir.path(), &["completions", shell]).contains("snapshot"));
    }
    refused(dir.path(), &["completions", "csh"], 2, &["csh"]);
    assert!(ok(dir.path(), &["man"]).contains(".TH lifecycle 1"));
    ok(dir.path(), &["man", "pages"]);
    let page = std::fs::read_to_string(dir.path().join("pages/lifecycle-run.1")).expect("a page");
    assert!(page.contains("fail\\-at"), "{page}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    use std::process::Stdio;
    let dir = scratch();
    let mut child = Command::new(env!("CARGO_BIN_EXE_lifecycle"))
        .args(["schema"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ended");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_saved_plan_runs_as_it_was_shown() {
    let (dir, elsewhere) = (scratch(), tempfile::tempdir().expect("scratch"));
    let (plan, _) = PLAN.split_once("  ready:").expect("a probe");
    let plan = plan
        .replace("  port: { type: int, default: 8080 }\n", "")
        .replace("[/bin/echo, hello,", "[/usr/bin/touch, made,");
    write(dir.path(), "demo.yaml", &plan.replace("uses: command.run", "uses: command.run\n    timeout: 5s"));
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (root, saved) = (path("state"), path("saved"));
    ok(dir.path(), &["plan", "demo.yaml", "-p", "secret=geheim", "-o", "saved", "--root", &root]);
    // The caller's directory is a fact: commands run there.
    refused(elsewhere.path(), &["run", &saved, "--root", &root, "-p", "secret=geheim"], 125, &["cwd: "]);
    let (code, _, err) = told(dir.path(), &["run", &saved, "--root", &root, "-p", "secret=geheim"]);
    assert_eq!(code, 0, "{err}");
    assert!(dir.path().join("made").exists() && dir.path().join("geheim").exists());
}
