//! What becomes of a plan's programs, and what a run says of it.

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;

use crate::scene::{Scene, Told};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::Root;
    let tests = lifecycle_tests::tests![
        a_step_after_a_wait_is_told_the_exit_code,
        what_can_make_no_progress_is_an_error_of_check,
        an_unrelated_command_holds_no_container_back,
        a_program_that_fails_fails_its_step,
        a_code_that_is_accepted_is_no_failure,
        a_program_that_a_signal_kills_is_told_in_words,
        a_program_that_runs_out_of_memory_is_told_so,
        the_first_of_several_main_programs_that_fails_gives_the_exit_code,
        every_container_of_a_matrix_is_main,
        a_program_for_which_nothing_waits_is_refused_before_it_begins,
        a_failed_program_can_be_kept_to_be_looked_at,
        a_failed_step_and_a_failed_engine_have_codes_of_their_own,
        the_last_line_of_a_run_is_its_verdict,
        each_word_is_used_for_what_happened,
        a_directory_that_a_container_filled_is_kept_or_given_up,
        a_trace_that_cannot_be_written_is_refused_before_the_run,
        a_number_may_be_a_whole_argument,
        a_hint_keeps_what_was_written,
    ];
    tests.into_iter().map(|test| test.within("outcomes").needs(&[Root])).collect()
}

/// A container that runs a script, and the step that waits for its end.
fn container(name: &str, script: &str) -> String {
    format!(
        "  {name}: {{ uses: process.clone, with: {{ new: [pid], stdio: log }} }}
  {name}_exec: {{ uses: process.exec, site: \"${{{name}}}\", with: {{ args: [/bin/sh, -c, '{script}'] }} }}
  {name}_ends: {{ uses: process.wait, with: {{ process: \"${{{name}.process}}\" }} }}
"
    )
}

pub fn a_step_after_a_wait_is_told_the_exit_code(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let report = "  report: { uses: command.run, with: { args: [echo, \"it ended with ${web_ends.exit}\"] } }\n";
    for main in ["", "main: report\n"] {
        scene.write("p.yaml", &format!("plan: p\nsteps:\n{}{report}{main}", container("web", "exit 0")))?;
        scene.told(&["run", "p.yaml"]).ended(0).says(&["report | it ended with 0"]);
    }
    std::fs::remove_file(lab.dir().join("p.yaml"))?;
    Ok(scene.nothing_left()?)
}

pub fn what_can_make_no_progress_is_an_error_of_check(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let ring = container("web", "exit 0").replace("site:", "needs: [report], site:");
    scene.write(
        "p.yaml",
        &format!(
            "plan: p\nsteps:\n{ring}  report: {{ uses: command.run, needs: [web_ends], with: {{ args: [echo] }} }}\n"
        ),
    )?;
    let words = ["these steps wait for each other: web_exec → report → web_ends → web_exec", "p.yaml:4"];
    scene.told(&["check", "p.yaml"]).ended(1).says(&words);
    scene.told(&["run", "p.yaml"]).ended(125).says(&words);
    std::fs::remove_file(lab.dir().join("p.yaml"))?;
    Ok(scene.nothing_left()?)
}

/// The command ends once the container's program has said so: it would be waited for without end.
pub fn an_unrelated_command_holds_no_container_back(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let fifo = lab.dir().join("fifo").display().to_string();
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU)?;
    let other = format!("  other: {{ uses: command.run, timeout: 20s, with: {{ args: [cat, {fifo}] }} }}\n");
    scene.write(
        "p.yaml",
        &format!("plan: p\nsteps:\n{other}{}", container("web", &format!("echo from web > {fifo}"))),
    )?;
    scene.begins_here()?;
    scene.told(&["run", "p.yaml"]).ended(0).says(&["other | from web"]);
    Ok(scene.nothing_left()?)
}

/// A plan of these steps, run with these arguments.
fn ran(scene: &Scene, steps: &str, arguments: &[&str]) -> lifecycle_tests::Result<Told> {
    scene.write("p.yaml", &format!("plan: p\nsteps:\n{steps}"))?;
    Ok(scene.told(&[&["run", "p.yaml"], arguments].concat()))
}

fn last_line(told: &Told) -> &str {
    told.err.lines().last().unwrap_or_default()
}

pub fn a_program_that_fails_fails_its_step(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    let server = container("web", "echo one; echo two; exit 3");
    ran(&scene, &server, &[])?.ended(1).says(&[
        "step `web_ends` (process.wait) failed",
        "its program ended with exit code 3",
        "| one | two",
        "p.yaml:5",
        "`accept`",
    ]);
    ran(&scene, &format!("{server}main: web_ends\n"), &[])?.ended(3);
    // It is not the other program's business.
    let both = format!("{server}{}main: other_ends\n", container("other", "exec sleep 100"));
    ran(&scene, &both, &[])?.ended(1).says(&["step `web_ends`"]);
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn a_code_that_is_accepted_is_no_failure(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    for accept in ["[0, 3]", "[]"] {
        let steps = container("web", "exit 3").replace(".process}\" }", &format!(".process}}\", accept: {accept} }}"));
        ran(&scene, &steps, &[])?.ended(0);
        ran(&scene, &format!("{steps}main: web_ends\n"), &[])?.ended(3);
    }
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn a_program_that_a_signal_kills_is_told_in_words(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    // Not in a pid namespace of its own, whose first process no signal of its own kills.
    let steps = container("web", "kill -KILL $$").replace("new: [pid]", "new: [uts]");
    ran(&scene, &format!("{steps}main: web_ends\n"), &[])?.ended(137).says(&["exit code 137: killed by SIGKILL"]);
    let steps = container("web", "exit 143");
    ran(&scene, &format!("{steps}main: web_ends\n"), &[])?.ended(143).says(&["exit code 143, which is 128 + SIGTERM"]);
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn a_program_that_runs_out_of_memory_is_told_so(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    let cgroup = format!(
        "  cgroup: {{ uses: cgroup.create, with: {{ path: /{}/web, resources: {{ memory: {{ limit: 16777216, swap: 16777216 }} }} }} }}\n",
        lab.token()
    );
    // Tail keeps what it has read until it has a whole line.
    let steps = container("web", "exec tail /dev/zero").replace("stdio: log", "stdio: log, cgroup: \"${cgroup.join}\"");
    ran(&scene, &format!("{cgroup}{steps}main: web_ends\n"), &[])?
        .ended(137)
        .says(&["exit code 137: killed by SIGKILL, out of memory (the limit is 16M)"]);
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn the_first_of_several_main_programs_that_fails_gives_the_exit_code(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    let any = |steps: String| steps.replace(".process}\" }", ".process}\", accept: [] }");
    let all = |codes: [u8; 2]| {
        any(container("a", &format!("exit {}", codes[0]))) + &any(container("b", &format!("exit {}", codes[1])))
    };
    for (codes, code) in [([0, 0], 0), ([0, 4], 4), ([5, 4], 5)] {
        ran(&scene, &format!("{}main: [a_ends, b_ends]\n", all(codes)), &[])?.ended(code);
    }
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn every_container_of_a_matrix_is_main(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let one = "plan: one\nparams: { code: { type: string, about: Its code. } }\nsteps:\n  c: { uses: process.clone, with: { new: [pid], stdio: log } }\n  e: { uses: process.exec, site: \"${c}\", with: { args: [/bin/sh, -c, \"exit ${params.code}\"] } }\n  w: { uses: process.wait, with: { process: \"${c.process}\" } }\nmain: w\n";
    scene.write("one.yaml", one)?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    for (codes, code) in [("{ x: \"0\", y: \"0\" }", 0), ("{ x: \"0\", y: \"7\" }", 7)] {
        let steps = format!(
            "  all: {{ uses: \"plan:./one.yaml\", for_each: {codes}, with: {{ code: \"${{each.value}}\" }} }}\nmain: all\n"
        );
        ran(&scene, &steps, &[])?.ended(code);
    }
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn a_program_for_which_nothing_waits_is_refused_before_it_begins(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let made = lab.dir().join("made");
    let program = container("web", &format!("touch {}; exec sleep 100", made.display()));
    let steps: String = program.split_inclusive('\n').take(2).collect();
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    ran(&scene, &steps, &[])?.ended(125).says(&["p.yaml:4", "nothing waits for the program", "`web_exec`", "--keep"]);
    assert!(!made.exists(), "it ran");
    // What comes after it waits for it.
    ran(
        &scene,
        &format!("{steps}  after: {{ uses: command.run, needs: [web_exec], with: {{ args: [\"true\"] }} }}\n"),
        &[],
    )?
    .ended(0);
    std::fs::remove_file(&made).ok();
    let told = ran(&scene, &steps, &["--keep"])?.ended(0);
    let id = last_line(&told).split(['(', ')']).nth(1).unwrap_or_default().to_owned();
    scene.told(&["undo", &id]).ended(0);
    std::fs::remove_file(&made).ok();
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn a_failed_program_can_be_kept_to_be_looked_at(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    let made = lab.dir().join("made").display().to_string();
    let steps = format!(
        "  made: {{ uses: fs.directory, with: {{ path: {made} }} }}\n{}main: web_ends\n",
        container("web", "exit 3")
    );
    let told = ran(&scene, &steps, &["--keep"])?.ended(3).says(&["step `web_ends`", "state kept", "lifecycle undo p-"]);
    assert!(lab.dir().join("made").is_dir(), "{}", told.err);
    assert!(last_line(&told).ends_with("; kept"), "{}", told.err);
    let id = last_line(&told).split(['(', ')']).nth(1).unwrap_or_default().to_owned();
    scene.told(&["undo", &id]).ended(0);
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn a_failed_step_and_a_failed_engine_have_codes_of_their_own(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    ran(&scene, "  a: { uses: command.run, with: { args: [\"false\"] } }\n", &[])?.ended(1);
    ran(&scene, "  a: { uses: command.run, with: { args: [\"true\"] } }\n", &["--fail-at", "a"])?.ended(1);
    ran(&scene, "  a: { uses: no.such.kind }\n", &[])?.ended(125);
    ran(&scene, &format!("{}main: web_ends\n", container("web", "exit 0").replace("/bin/sh", "/no/such")), &[])?
        .ended(127);
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn the_last_line_of_a_run_is_its_verdict(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    let verdict = |steps: &str| -> lifecycle_tests::Result<String> {
        let told = ran(&scene, steps, &[])?;
        let line = last_line(&told);
        // The id and how long it took are never the same.
        assert!(line.starts_with("p (p-") && line.contains(", after "), "{}", told.err);
        let (_, rest) = line.split_once("): ").unwrap_or_default();
        let (how, rest) = rest.split_once(", after ").unwrap_or_default();
        let rest = rest.split_once("; ").map_or("", |(_, rest)| rest);
        Ok(format!("{how}|{rest}"))
    };
    assert_eq!(verdict("  a: { uses: command.run, with: { args: [\"true\"] } }\n")?, "succeeded, exit code 0|");
    assert_eq!(
        verdict("  a: { uses: command.run, with: { args: [\"false\"] } }\n")?,
        "failed in `a`, exit code 1|everything was taken back"
    );
    let stuck = "  a: { uses: command.run, with: { args: [\"true\"], undo: { args: [\"false\"] } } }\n";
    assert_eq!(verdict(stuck)?, "done, and not taken back whole, exit code 125|not taken back: a");
    let runs = scene.told(&["runs"]).ended(0).out;
    let id = runs.split_whitespace().find(|word| word.starts_with("p-")).unwrap_or_default().to_owned();
    scene.told(&["undo", &id, "--forget", "nothing"]).ended(1).says(&["has no step `nothing`", "its steps are a"]);
    scene.told(&["undo", &id, "--forget", "a"]).ended(0).says(&["a: given up, and left as it is: run true"]);
    scene.told(&["runs"]).ended(0).prints(&["no runs"]);
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn each_word_is_used_for_what_happened(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let dir = lab.dir();
    std::fs::create_dir(dir.join("there"))?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    let path = |name: &str| dir.join(name).display().to_string();
    let steps = format!(
        "  made: {{ uses: fs.directory, with: {{ path: {} }} }}
  there: {{ uses: fs.directory, with: {{ path: {}, existing: keep }} }}
  stays: {{ uses: fs.directory, with: {{ path: {}, keep: true }} }}
  nothing: {{ uses: command.run, with: {{ args: [\"true\"] }} }}
  stuck: {{ uses: command.run, with: {{ args: [\"true\"], undo: {{ args: [\"false\"] }} }} }}
",
        path("made"),
        path("there"),
        path("stays")
    );
    let told = ran(&scene, &steps, &["--events", "events", "--trace", "trace"])?.ended(125);
    let events = std::fs::read_to_string(dir.join("events"))?;
    let mut words = Vec::new();
    for line in events.lines() {
        let event: serde_json::Value = serde_json::from_str(line)?;
        if event["event"] == "undone" {
            words.push(format!(
                "{} {}",
                event["step"].as_str().unwrap_or_default(),
                event["how"].as_str().unwrap_or_default()
            ));
        }
    }
    words.sort();
    assert_eq!(words, ["made whole", "nothing nothing", "stays kept", "stuck stuck", "there nothing"], "{events}");
    assert!(told.err.contains("stays: kept on purpose") && !told.err.contains("stuck: taken back"), "{}", told.err);
    assert!(!dir.join("made").exists() && dir.join("there").is_dir() && dir.join("stays").is_dir());
    let trace: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(dir.join("trace"))?)?;
    let state = |name: &str| {
        let all = trace["traceEvents"].as_array().into_iter().flatten();
        all.into_iter().find(|e| e["name"] == name).map(|e| e["args"]["state"].clone())
    };
    for (step, word) in
        [("made", "undone"), ("there", "done"), ("stays", "kept"), ("nothing", "done"), ("stuck", "stuck")]
    {
        assert_eq!(state(step), Some(word.into()), "{step}: {trace:#}");
    }
    let runs = scene.told(&["runs"]).ended(0).out;
    let id = runs.split_whitespace().find(|word| word.starts_with("p-")).unwrap_or_default().to_owned();
    let shown: serde_json::Value = serde_json::from_str(&scene.told(&["show", &id, "--format", "json"]).ended(0).out)?;
    let states: Vec<String> = shown["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| {
            format!("{} {}", step["address"].as_str().unwrap_or_default(), step["state"].as_str().unwrap_or_default())
        })
        .collect();
    assert_eq!(states, ["made undone", "there done", "stays kept", "nothing done", "stuck stuck"]);
    scene.told(&["undo", &id, "--forget", "stuck"]).ended(0);
    std::fs::remove_dir(dir.join("stays"))?;
    for name in ["events", "trace"] {
        std::fs::remove_file(dir.join(name))?;
    }
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn a_directory_that_a_container_filled_is_kept_or_given_up(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    let dir = lab.dir().join("data");
    let filled = |more: &str| {
        let made =
            format!("  data: {{ uses: fs.directory, with: {{ path: {}, existing: keep{more} }} }}\n", dir.display());
        made + &container("web", &format!("echo x > {}/file", dir.display())).replace("site:", "needs: [data], site:")
    };
    ran(&scene, &filled(", keep: true"), &[])?.ended(0).says(&["data: kept on purpose"]);
    assert!(dir.join("file").is_file());
    std::fs::remove_dir_all(&dir)?;
    ran(&scene, &filled(""), &[])?.ended(125).says(&["keep: true", "--forget"]);
    scene.told(&["recover"]).ended(1);
    let runs = scene.told(&["runs"]).ended(0).out;
    let id = runs.split_whitespace().find(|word| word.starts_with("p-")).unwrap_or_default().to_owned();
    scene.told(&["undo", &id, "--forget", "data"]).ended(0).says(&["data: given up"]);
    assert!(dir.join("file").is_file(), "what was given up stays");
    scene.told(&["recover"]).ended(0).prints(&["nothing to recover"]);
    std::fs::remove_dir_all(&dir)?;
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn a_trace_that_cannot_be_written_is_refused_before_the_run(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("p.yaml", "")?;
    scene.begins_here()?;
    let made = lab.dir().join("made");
    let steps = format!("  a: {{ uses: command.run, with: {{ args: [touch, {}] }} }}\n", made.display());
    ran(&scene, &steps, &["--trace", "no/such/trace"])?.ended(125).says(&["no/such/trace", "No such file"]);
    assert!(!made.exists(), "it ran");
    scene.write("p.yaml", "")?;
    Ok(scene.nothing_left()?)
}

pub fn a_number_may_be_a_whole_argument(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let plan = "plan: p
params:
  port: { type: int, default: 8080, about: A port. }
  part: { type: number, default: 0.5, about: A part. }
  size: { type: size, default: 64M, about: A size. }
  wait: { type: duration, default: 5s, about: A time. }
  on: { type: bool, default: true, about: A switch. }
steps:
  a:
    uses: command.run
    with:
      args: [sh, -c, 'echo $* $PORT', sh, \"${params.port}\", \"${params.part}\", \"${params.size}\", \"${params.wait}\", \"${params.on}\"]
      env: { PORT: \"${params.port}\" }
";
    scene.write("p.yaml", plan)?;
    scene.told(&["run", "p.yaml"]).ended(0).says(&["a | 8080 0.5 64M 5s true 8080"]);
    scene.told(&["run", "p.yaml", "-p", "port=81"]).ended(0).says(&["a | 81 0.5"]);
    std::fs::remove_file(lab.dir().join("p.yaml"))?;
    Ok(scene.nothing_left()?)
}

pub fn a_hint_keeps_what_was_written(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    for written in ["1.10", "1e3", "0x10", "True", "1.0"] {
        let plan = format!(
            "plan: p\nparams: {{ v: {{ type: string, default: {written}, about: A version. }} }}\nsteps: {{ a: {{ uses: command.run, with: {{ args: [\"${{params.v}}\"] }} }} }}\n"
        );
        scene.write("p.yaml", &plan)?;
        scene.told(&["check", "p.yaml"]).ended(1).says(&[&format!("put it in quotes: \"{written}\"")]);
        // In a file of parameters, too.
        scene.write("p.yaml", &plan.replace(&format!("default: {written}, "), ""))?;
        scene.write("v.yaml", &format!("v: {written}\n"))?;
        scene.told(&["plan", "p.yaml", "-f", "v.yaml"]).ended(1).says(&[&format!("put it in quotes: \"{written}\"")]);
    }
    for name in ["p.yaml", "v.yaml"] {
        std::fs::remove_file(lab.dir().join(name))?;
    }
    Ok(scene.nothing_left()?)
}
