//! Runs that stay: kept, detached, looked at, taken back.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use lifecycle_tests::PATIENCE;
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::cgroup_directories;
use serde_json::Value;

use crate::oci_scene::eventually;
use crate::scene::{self, Scene, Started};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        a_kept_run_stays_until_it_is_undone,
        undo_and_show_and_logs_of_no_run_say_so,
        a_run_shows_its_steps_with_times_and_outcomes,
        logs_are_told_by_step,
        a_kept_process_goes_on_printing_when_its_engine_has_gone,
        more_steps_than_files_may_be_open_are_no_problem,
        a_secret_is_nowhere,
        a_detached_run_goes_on_and_is_reached_by_its_id,
        a_detached_run_that_cannot_begin_says_why_at_once,
        a_detached_containers_output_is_in_its_logs,
        a_detached_runs_failure_is_in_its_logs_apart,
        #[needs(Program("busybox"))]
        audit_knows_whose_everything_is,
        a_damaged_journal_is_named_and_left_alone,
        #[needs(Program("script"))]
        at_a_terminal_the_container_has_it_and_an_error_stays,
        #[needs(Program("script"))]
        a_shell_at_a_terminal_has_job_control,
    ];
    tests.into_iter().map(|test| test.within("runs").needs(&[Root])).collect()
}

/// Makes something, prints something, and waits.
const JOB: &str = r#"
plan: job
params:
  id: { type: name, default: job }
  dir: { type: path }
  wait: { type: string, default: "0" }
  secret: { type: string, sensitive: true, default: none }
run: "${params.id}"
steps:
  made: { uses: fs.directory, with: { path: "${params.dir}" } }
  talks:
    uses: command.run
    needs: [made]
    with: { args: [sh, -c, 'echo one; echo two >&2; test -n "$SECRET"'], env: { SECRET: "${params.secret}" } }
  waits:
    uses: command.run
    needs: [talks]
    with: { args: [sh, -c, 'echo waiting; exec sleep "$0"', "${params.wait}"] }
"#;

fn job(lab: &Lab) -> lifecycle_tests::Result<(Scene<'_>, Vec<String>)> {
    let mut scene = Scene::new(lab)?;
    scene.write("job.yaml", JOB)?;
    scene.begins_here()?;
    let dir = format!("dir={}", lab.dir().join("made").display());
    Ok((scene, ["run", "job.yaml", "-p", &dir].map(String::from).into()))
}

fn with<'a>(arguments: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    arguments.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

pub fn a_kept_run_stays_until_it_is_undone(lab: &Lab) -> TestResult {
    let (scene, run) = job(lab)?;
    scene.told(&with(&run, &["--keep"])).ended(0).says(&["kept as `job`", "lifecycle undo job"]);
    assert!(lab.dir().join("made").is_dir());
    assert_eq!(scene.state_of("job")?.as_deref(), Some("kept"));
    scene.told(&["runs"]).ended(0).prints(&["RUN", "PLAN", "STATE", "job", "kept"]);
    scene.told(&["recover"]).ended(0).prints(&["nothing to recover\n"]);
    assert!(lab.dir().join("made").is_dir(), "recover took back what was kept on purpose");
    scene.told(&with(&run, &[])).ended(125).says(&["`job`", "it was kept", "lifecycle undo job"]);
    scene.told(&["undo", "job"]).ended(0);
    scene.told(&["runs"]).ended(0).prints(&["no runs\n"]);
    Ok(scene.nothing_left()?)
}

pub fn undo_and_show_and_logs_of_no_run_say_so(lab: &Lab) -> TestResult {
    let (scene, run) = job(lab)?;
    for command in ["undo", "show", "logs"] {
        scene.told(&[command, "job"]).ended(1).says(&["job", "lifecycle runs"]);
        scene.told(&[command, "../job"]).ended(1).says(&["`../job` is not a run's id"]);
        scene.told(&[command]).ended(2).says(&["<RUN>"]);
    }
    scene.told(&with(&run, &["--keep"])).ended(0);
    scene.told(&["undo", "job"]).ended(0);
    scene.told(&["undo", "job"]).ended(1).says(&["job"]);
    Ok(scene.nothing_left()?)
}

pub fn a_run_shows_its_steps_with_times_and_outcomes(lab: &Lab) -> TestResult {
    let (scene, run) = job(lab)?;
    scene.told(&with(&run, &["--keep", "-p", "wait=0.1"])).ended(0);
    let shown = scene.told(&["show", "job"]).ended(0).prints(&["job", "made", "talks", "waits", "Critical path", "%"]);
    assert!(shown.out.lines().all(|line| line.chars().count() <= 80), "{}", shown.out);
    let json: Value = serde_json::from_str(&scene.told(&["show", "job", "--format", "json"]).ended(0).out)?;
    let steps: Vec<&str> =
        json["steps"].as_array().into_iter().flatten().filter_map(|s| s["address"].as_str()).collect();
    assert_eq!(steps, ["made", "talks", "waits"], "{json:#}");
    scene.told(&["show", "-f", "job"]).ended(0).prints(&["waits"]);
    scene.told(&["undo", "job"]).ended(0);
    Ok(scene.nothing_left()?)
}

pub fn logs_are_told_by_step(lab: &Lab) -> TestResult {
    let (scene, run) = job(lab)?;
    scene.told(&with(&run, &["--keep"])).ended(0);
    let all = scene.told(&["logs", "job"]).ended(0).out;
    let mut lines: Vec<&str> = all.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["talks | one", "talks | two", "waits | waiting"]);
    assert_eq!(scene.told(&["logs", "job", "--step", "waits"]).ended(0).out, "waiting\n");
    assert_eq!(scene.told(&["logs", "job", "--step", "made"]).ended(0).out, "");
    scene.told(&["logs", "job", "--step", "wait"]).ended(1).says(&["has no step `wait`", "waits"]);
    scene.told(&["undo", "job"]).ended(0);
    Ok(scene.nothing_left()?)
}

pub fn a_kept_process_goes_on_printing_when_its_engine_has_gone(lab: &Lab) -> TestResult {
    const PLAN: &str = r#"
plan: talker
params: { go: { type: path } }
run: talker
steps:
  init: { uses: process.clone, with: { new: [pid], stdio: log } }
  exec:
    uses: process.exec
    site: "${init}"
    with: { args: [sh, -c, 'echo one; read x <"$0"; echo two >&2; read x <"$0"', "${params.go}"], env: [PATH=/usr/bin:/bin] }
"#;
    let mut scene = Scene::new(lab)?;
    let plan = scene.write("talker.yaml", PLAN)?;
    scene.begins_here()?;
    let go = lab.dir().join("go");
    assert!(Command::new("mkfifo").arg(&go).status()?.success());
    let param = format!("go={}", go.display());
    scene.told(&["run", &plan.to_string_lossy(), "--keep", "-p", &param]).ended(0);
    // Opened, it has begun to read: what it printed before is written.
    std::fs::write(&go, "\n")?;
    let gate = std::fs::OpenOptions::new().write(true).open(&go)?;
    // Printed is not yet kept: another process does that.
    eventually("what it printed", || Ok(scene.told(&["logs", "talker"]).ended(0).out == "init | one\ninit | two\n"))?;
    assert_eq!(scene.told(&["logs", "talker", "--step", "init"]).ended(0).out, "one\ntwo\n");
    drop(gate);
    scene.told(&["undo", "talker"]).ended(0);
    std::fs::remove_file(&go)?;
    Ok(scene.nothing_left()?)
}

pub fn more_steps_than_files_may_be_open_are_no_problem(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    // Long enough that many are at work at once; each tells the limit that it got.
    let step = |n| format!("  s{n}: {{ uses: command.run, with: {{ args: [sh, -c, 'ulimit -Sn; sleep 0.2'] }} }}\n");
    let steps: String = (0..120).map(step).collect();
    let plan = scene.write("many.yaml", &format!("plan: many\nsteps:\n{steps}"))?;
    scene.begins_here()?;
    for (hard, more) in [("4096", vec![]), ("160", vec![]), ("4096", vec!["--jobs", "3"])] {
        let mut arguments = vec!["run".to_owned(), plan.display().to_string()];
        arguments.extend(more.into_iter().map(str::to_owned));
        let own = scene.command(&arguments);
        let mut limited = Command::new("sh");
        let script = format!("ulimit -Sn 96 && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
        limited.args(["-c", &script]).arg(own.get_program()).args(own.get_args()).current_dir(lab.dir());
        let told = scene::told(&mut limited).ended(0);
        assert_eq!(told.err.matches("| 96\n").count() + told.out.matches("| 96\n").count(), 120, "{told:?}");
    }
    Ok(scene.nothing_left()?)
}

pub fn a_secret_is_nowhere(lab: &Lab) -> TestResult {
    const SECRET: &str = "geheim-4711";
    let (scene, run) = job(lab)?;
    let secret = format!("secret={SECRET}");
    let told = scene.told(&with(&run, &["--keep", "-p", &secret, "--events", "events", "--trace", "trace"])).ended(0);
    let shown = scene.told(&["show", "job", "--format", "json"]).ended(0);
    for text in [told.out, told.err, shown.out] {
        assert!(!text.contains(SECRET), "{text}");
    }
    for file in ["events", "trace", "state/job/journal", "state/job/log"] {
        let path = lab.dir().join(file);
        assert!(!std::fs::read_to_string(&path)?.contains(SECRET), "{file} holds the secret");
    }
    assert_eq!(std::fs::metadata(lab.dir().join("state/job/journal"))?.mode() & 0o7777, 0o600);
    scene.told(&["undo", "job"]).ended(0);
    for file in ["events", "trace"] {
        std::fs::remove_file(lab.dir().join(file))?;
    }
    Ok(scene.nothing_left()?)
}

pub fn a_detached_run_goes_on_and_is_reached_by_its_id(lab: &Lab) -> TestResult {
    let (scene, run) = job(lab)?;
    let told = scene.told(&with(&run, &["--detach", "-p", "wait=30"])).ended(0);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("job\n", ""));
    let mut logs = scene.start(&["logs", "-f", "job"])?;
    logs.wait_for("waits | waiting\n")?;
    let mut show = scene.start(&["show", "-f", "job"])?;
    show.wait_for("waits")?;
    assert_eq!(scene.state_of("job")?.as_deref(), Some("running"));
    // The terminal that it was started from may go: it is the leader of a session of its own.
    let journal = std::fs::read_to_string(lab.state_root().join("job/journal"))?;
    let segment: Value = serde_json::from_str(journal.lines().nth(1).unwrap_or_default())?;
    let engine = segment["segment"]["engine"]["pid"].to_string();
    let stat = std::fs::read_to_string(format!("/proc/{engine}/stat"))?;
    let session = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)).map(str::to_owned);
    assert_eq!(session, Some(engine));
    scene.told(&["undo", "job"]).ended(0);
    logs.end()?.ended(0);
    show.end()?.ended(0).prints(&["has ended and was taken back"]);
    assert!(scene.state_of("job")?.is_none());
    Ok(scene.nothing_left()?)
}

pub fn a_detached_run_that_cannot_begin_says_why_at_once(lab: &Lab) -> TestResult {
    let (scene, run) = job(lab)?;
    scene.told(&with(&run, &["--keep"])).ended(0);
    let told = scene.told(&with(&run, &["--detach"])).ended(125).says(&["`job`", "it was kept"]);
    assert_eq!(told.out, "");
    scene.told(&["undo", "job"]).ended(0);
    // Options that every command takes may come first.
    let mut command = Command::new(lifecycle_tests::program::lifecycle()?);
    command.current_dir(lab.dir()).arg("--root").arg(lab.state_root()).args(with(&run, &["--detach"]));
    assert_eq!(scene::told(&mut command).ended(0).out, "job\n");
    wait_for_the_end_of(&scene, "job")?;
    Ok(scene.nothing_left()?)
}

pub fn a_detached_containers_output_is_in_its_logs(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let script = "echo out; echo err >&2; sleep 0.3; echo late";
    let id = scene.told(&["run", "hello", "--detach", "--keep", "--", "sh", "-c", script]).ended(0).out;
    let id = id.trim_end();
    let logs = scene.told(&["logs", "-f", id]).ended(0);
    // Nothing of the engine's own but its verdict, however long its steps took.
    assert_eq!((logs.out.as_str(), logs.problems().as_str()), ("out\nerr\nlate\n", ""));
    assert!(logs.err.contains("succeeded, exit code 0"), "{}", logs.err);
    assert_eq!(scene.state_of(id)?.as_deref(), Some("kept"));
    scene.told(&["undo", id]).ended(0);
    Ok(scene.nothing_left()?)
}

/// What went wrong is on stderr, apart from what the container wrote.
pub fn a_detached_runs_failure_is_in_its_logs_apart(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let dir = lab.dir().join("made");
    let plan = format!(
        "plan: job\nrun: job\nsteps:\n  a: {{ uses: fs.directory, with: {{ path: {dir} }} }}\n  \
         b: {{ uses: command.run, needs: [a], with: {{ args: [sh, -c, 'echo from the step; until test -e {go}; do sleep 0.01; done; exit 3'] }} }}\n",
        dir = dir.display(),
        go = lab.dir().join("go").display(),
    );
    scene.write("failing.yaml", &plan)?;
    scene.begins_here()?;
    scene.told(&["run", "--detach", "failing.yaml"]).ended(0);
    let mut logs = scene.start(&["logs", "-f", "job"])?;
    logs.wait_for("b | from the step\n")?;
    scene.write("go", "")?;
    let told = logs.end()?.ended(0);
    assert_eq!(told.out, "b | from the step\n");
    told.says(&["step `b` (command.run) failed", "exited with status 3", "everything was taken back"]);
    std::fs::remove_file(lab.dir().join("go"))?;
    Ok(scene.nothing_left()?)
}

fn wait_for_the_end_of(scene: &Scene, id: &str) -> TestResult {
    for _ in 0..500 {
        if scene.state_of(id)?.is_none() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("run {id} does not end").into())
}

pub fn audit_knows_whose_everything_is(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    // Runs of others are not this test's business, so only its own names are looked for.
    let audit = |scene: &Scene, code: Option<i32>| -> Result<Vec<Value>, Box<dyn std::error::Error>> {
        let told = scene.told(&["audit", "--format", "json"]);
        assert!(code.is_none_or(|code| told.code == code), "{}{}", told.out, told.err);
        let found: Vec<Value> = serde_json::from_str(&told.out)?;
        Ok(found.into_iter().filter(|f| f.to_string().contains(lab.token())).collect())
    };
    let bundle = lifecycle_tests::bundle::Bundle::create(lab.dir().join("bundle"))?;
    bundle.runs(&["true"])?;
    scene.begins_here()?;
    assert_eq!(audit(&scene, None)?, Vec::<Value>::new());
    let id = format!("{}-c1", lab.token());
    let create = ["run", "oci/create", "-p", &format!("id={id}"), "-p", "bundle=bundle", "--keep"];
    scene.told(&create).ended(0);
    let found = audit(&scene, None)?;
    assert!(found.iter().any(|f| f["kind"] == "cgroup" && f["owner"].to_string().contains(&id)), "{found:#?}");
    scene.told(&["audit"]).prints(&[&format!("run {id}")]);
    // Where the run's directory is lost, its cgroups are somebody's as long as a process is in them.
    let (state, away) = (lab.state_root().join(&id), lab.dir().join("away"));
    let container: Value = serde_json::from_str(&std::fs::read_to_string(state.join("state.json"))?)?;
    std::fs::rename(&state, &away)?;
    let found = audit(&scene, None)?;
    assert!(found.iter().any(|f| f["kind"] == "cgroup" && f["owner"] == "elsewhere"), "{found:#?}");
    lifecycle_tests::program::quiet("kill", &["-KILL", &container["pid"].to_string()])?;
    let begun = Instant::now();
    while audit(&scene, None)?.iter().any(|f| f["owner"] != "nobody") && begun.elapsed() < PATIENCE {}
    let found = audit(&scene, Some(1))?;
    assert!(found.iter().any(|f| f["kind"] == "cgroup" && f["owner"] == "nobody"), "{found:#?}");
    std::fs::rename(&away, &state)?;
    scene.told(&["undo", &id]).ended(0);
    assert_eq!(cgroup_directories(&[lab.token().into()])?, Vec::<std::path::PathBuf>::new());
    assert_eq!(audit(&scene, None)?, Vec::<Value>::new());
    Ok(scene.nothing_left()?)
}

pub fn a_damaged_journal_is_named_and_left_alone(lab: &Lab) -> TestResult {
    let (scene, run) = job(lab)?;
    scene.told(&with(&run, &["--keep"])).ended(0);
    let journal = lab.state_root().join("job/journal");
    let whole = std::fs::read_to_string(&journal)?;
    let second = whole.find('\n').map_or(0, |at| at + 1);
    std::fs::write(&journal, format!("{}rubbish\n{}", &whole[..second], &whole[second..]))?;
    for command in ["undo", "show", "logs"] {
        scene.told(&[command, "job"]).ended(1).says(&[&journal.display().to_string(), &format!("byte {second}")]);
    }
    scene.told(&["runs"]).ended(0).prints(&["job", "unreadable"]);
    scene.told(&["recover"]).ended(1).prints(&["job: left as it is"]);
    assert!(lab.dir().join("made").is_dir());
    // A line that a crash has cut off in the middle is not damage.
    std::fs::write(&journal, format!("{whole}{{\"done\":{{\"n\":"))?;
    scene.told(&["undo", "job"]).ended(0);
    Ok(scene.nothing_left()?)
}

/// At a terminal the view is drawn over itself; nothing of it stays behind what the container says.
pub fn at_a_terminal_the_container_has_it_and_an_error_stays(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let program = lifecycle_tests::program::lifecycle()?;
    let in_terminal = |arguments: &str| -> lifecycle_tests::Result<Started> {
        let line = format!("{} run --root {} {arguments}", program.display(), lab.state_root().display());
        let mut command = Command::new("script");
        Started::new(command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").current_dir(lab.dir()))
    };
    let mut run =
        in_terminal("hello -- sh -c 'test -t 0 && test -t 1 && stty && echo asks; read line; echo got $line; exit 4'")?;
    run.wait_for("asks")?;
    run.type_in("typed\n", false)?;
    run.end()?.ended(4).prints(&["speed", "got typed"]);
    in_terminal("hello --fail-at pivot -- true")?
        .end()?
        .ended(1)
        .prints(&["step `pivot`", "everything was taken back"]);
    // Before the container has a terminal, and without one, an interrupt is the engine's.
    let mut run = in_terminal("hello --pause-at init -- true")?;
    run.wait_for("Enter")?;
    run.type_in("\u{3}", false)?;
    run.end()?.ended(130);
    Ok(scene.nothing_left()?)
}

pub fn a_shell_at_a_terminal_has_job_control(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let program = lifecycle_tests::program::lifecycle()?;
    let line = format!("{} run --root {} -- sh -i", program.display(), lab.state_root().display());
    let mut command = Command::new("script");
    let mut run = Started::new(command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").current_dir(lab.dir()))?;
    // A terminal echoes what is typed: only an answer has the numbers worked out.
    run.type_in("tty; echo at $((6 * 7))\n", false)?;
    run.wait_for("at 42")?;
    // The job in the foreground is interrupted, and the shell is not. What speaks is in the foreground by then.
    run.type_in("sh -c 'echo sleeping $((1 + 1)); exec sleep 1000'\n", false)?;
    run.wait_for("sleeping 2")?;
    run.type_in("\u{3}", false)?;
    run.type_in("echo $?; echo still $((40 + 3))\n", false)?;
    run.wait_for("still 43")?;
    // One that stops gives the terminal back, and takes it again.
    run.type_in("sh -c 'kill -STOP $$; echo resumed $((50 + 1))'\n", false)?;
    run.wait_for("Stopped")?;
    run.type_in("fg\n", false)?;
    run.wait_for("resumed 51")?;
    run.type_in("exit 5\n", false)?;
    let told = run.end()?.ended(5).prints(&["/dev/pts/0", "130"]);
    assert!(!told.out.contains("job control turned off"), "{}", told.out);
    Ok(scene.nothing_left()?)
}
