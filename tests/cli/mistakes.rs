//! What `check` and its neighbours say before anything happens.

use std::process::Command;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;

use crate::scene::{self, Scene, Started};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        check_names_every_literal_that_cannot_be_right,
        check_names_the_default_of_a_parameter_that_cannot_be_right,
        a_whole_step_is_no_condition,
        a_plan_that_needs_root_says_so_at_its_step,
        a_hint_names_the_cure,
        a_directory_that_cannot_be_entered_is_not_called_missing,
        audit_leaves_alone_what_another_state_root_owns,
        #[needs(Program("script"))]
        the_live_view_stays_while_no_process_has_the_terminal,
    ];
    tests.into_iter().map(|test| test.within("mistakes").needs(&[Root])).collect()
}

pub fn check_names_every_literal_that_cannot_be_right(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let plan = "plan: p
steps:
  net: { uses: net.bridge, with: { name: a-name-that-is-too-long, address: 10.0.0.300/24 } }
  init: { uses: process.clone, with: { new: [network] } }
  eth0:
    uses: net.interface
    site: \"${init}\"
    with:
      addresses: [10.0.0.2/24, 10.0.0.2/99, nonsense]
      routes: [{ via: 10.0.0 }]
  data: { uses: fs.directory, with: { path: /data/.. } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [sh], cwd: not/absolute } }
  wait: { uses: process.wait, with: { process: \"${init.process}\", accept: [300] } }
  tcp: { uses: probe.tcp, with: { address: localhost, port: 70000 } }
  zero: { uses: probe.tcp, with: { address: 127.0.0.1, port: 0 } }
  http: { uses: probe.http, with: { url: \"https://example.org\", status: 99 } }
";
    scene.write("p.yaml", plan)?;
    let told = scene.told(&["check", "p.yaml"]).ended(1);
    let flat: String = told.err.replace(['│', '·'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for word in [
        "a-name-that-is-too-long",
        "10.0.0.300/24",
        "10.0.0.2/99",
        "nonsense",
        "10.0.0\\\"",
        "/data/.. does not end in a name",
        "not/absolute is not absolute",
        "300 is not a whole number from 0 to 255",
        "\"localhost\" is not an IP address",
        "70000 is not a whole number from 0 to 65535",
        "0 is no port",
        "https",
        "99 is no HTTP status",
    ] {
        let word = word.replace("\\\"", "");
        assert!(flat.contains(&word), "it does not name {word:?}:\n{}", told.err);
    }
    std::fs::remove_file(lab.dir().join("p.yaml"))?;
    Ok(scene.nothing_left()?)
}

pub fn check_names_the_default_of_a_parameter_that_cannot_be_right(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let plan = "plan: p
params: { port: { type: int, default: 65536, about: A port. } }
steps: { tcp: { uses: probe.tcp, with: { address: 127.0.0.1, port: \"${params.port}\" } } }
";
    scene.write("p.yaml", plan)?;
    scene.told(&["check", "p.yaml"]).ended(1).says(&["by the default of `params.port`", "65536", "p.yaml:2:11"]);
    std::fs::remove_file(lab.dir().join("p.yaml"))?;
    Ok(scene.nothing_left()?)
}

pub fn a_whole_step_is_no_condition(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let plan = |condition: &str| {
        format!(
            "plan: p\nsteps:\n  a: {{ uses: command.run, with: {{ args: [\"true\"] }} }}\n  b: {{ uses: command.run, if: \"{condition}\", with: {{ args: [\"true\"] }} }}\n"
        )
    };
    for condition in ["a", "!a", "${a}", "a && a.exit == 0"] {
        scene.write("p.yaml", &plan(condition))?;
        scene.told(&["check", "p.yaml"]).ended(1).says(&["`a` is a whole step", "`a.NAME`"]);
    }
    for condition in ["a != null", "a.exit == 0"] {
        scene.write("p.yaml", &plan(condition))?;
        scene.told(&["check", "p.yaml"]).ended(0);
    }
    std::fs::remove_file(lab.dir().join("p.yaml"))?;
    Ok(scene.nothing_left()?)
}

pub fn a_plan_that_needs_root_says_so_at_its_step(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let plan = "plan: p
steps:
  net: { uses: net.bridge }
  init: { uses: process.clone, with: { new: [pid] } }
  own: { uses: process.clone, with: { new: [user, pid] } }
";
    scene.write("p.yaml", plan)?;
    let mut command = scene.command(&["check", "p.yaml"]);
    let told = scene::told(scene::as_nobody(&mut command)).ended(0).says(&[
        "p.yaml:3: step `net` needs root: changing links on the host takes CAP_NET_ADMIN",
        "p.yaml:4: step `init` needs root: making these namespaces without a user namespace takes CAP_SYS_ADMIN",
    ]);
    assert!(!told.err.contains("`own`"), "{}", told.err);
    for step in ["net", "init"] {
        let only = plan.lines().filter(|text| !text.starts_with("  ") || text.contains(&format!("  {step}: ")));
        scene.write("p.yaml", &only.fold(String::new(), |all, line| all + line + "\n"))?;
        let mut command = scene.command(&["plan", "p.yaml"]);
        let told = scene::told(scene::as_nobody(&mut command)).ended(1);
        told.says(&[&format!("`{step}`"), "CAP_", "p.yaml:3", "root"]);
    }
    std::fs::remove_file(lab.dir().join("p.yaml"))?;
    Ok(scene.nothing_left()?)
}

pub fn a_hint_names_the_cure(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let cases = [
        ("uses: cgroup.create, with: { resources: { memory: { limit: 512M } } }", "512M in bytes is 536870912"),
        ("uses: command.run, with: { args: [echo, \"${HOME}\"] }", "`$${HOME}`"),
        ("uses: command.run, if: params.kind == fast, with: { args: [\"true\"] }", "text is written in quotes: 'fast'"),
    ];
    for (step, cure) in cases {
        let plan = format!(
            "plan: p\nparams: {{ kind: {{ type: string, default: fast, about: A kind. }} }}\nsteps:\n  k: {{ uses: command.run, with: {{ args: [\"${{params.kind}}\"] }} }}\n  a: {{ {step} }}\n"
        );
        scene.write("p.yaml", &plan)?;
        scene.told(&["check", "p.yaml"]).ended(1).says(&[cure]);
    }
    std::fs::remove_file(lab.dir().join("p.yaml"))?;
    Ok(scene.nothing_left()?)
}

pub fn a_directory_that_cannot_be_entered_is_not_called_missing(lab: &Lab) -> TestResult {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new(lab)?;
    let locked = lab.dir().join("locked");
    std::fs::create_dir(&locked)?;
    std::fs::write(locked.join("p.yaml"), "plan: p\nsteps: {}\n")?;
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o700))?;
    let mut command = scene.command(&["check", "locked/p.yaml"]);
    let told = scene::told(scene::as_nobody(&mut command)).ended_badly().says(&["locked/p.yaml", "Permission denied"]);
    assert!(!told.err.contains("there is no file"), "{}", told.err);
    std::fs::remove_dir_all(&locked)?;
    Ok(scene.nothing_left()?)
}

/// Without a process in it a cgroup looks as residue does: only its name tells whose it is.
pub fn audit_leaves_alone_what_another_state_root_owns(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let plan =
        format!("plan: {}\nsteps:\n  cgroup: {{ uses: cgroup.create }}\n  net: {{ uses: net.bridge }}\n", lab.token());
    scene.write("p.yaml", &plan)?;
    scene.begins_here()?;
    let told = scene.told(&["run", "p.yaml", "--keep"]).ended(0);
    let id = told.err.lines().last().unwrap_or_default().split(['(', ')']).nth(1).unwrap_or_default().to_owned();
    let other = lab.dir().join("other").display().to_string();
    let mut command = Command::new(lifecycle_tests::program::lifecycle()?);
    let told = scene::told(command.args(["audit", "--root", &other]));
    let ours: Vec<&str> =
        told.out.lines().filter(|line| line.contains(lab.token()) || line.starts_with("link ")).collect();
    assert!(ours.len() >= 2 && ours.iter().all(|line| line.contains("another state root")), "{}", told.out);
    scene.told(&["undo", &id]).ended(0);
    std::fs::remove_file(lab.dir().join("p.yaml"))?;
    scene.begins_here()?;
    Ok(scene.nothing_left()?)
}

/// The clock of what goes on is drawn anew, and what a program prints does not do anything to the terminal.
pub fn the_live_view_stays_while_no_process_has_the_terminal(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let fifo = lab.dir().join("fifo").display().to_string();
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU)?;
    let script = format!("printf \"one\\rtwo\\033[2Jthree\\n\"; read x < {fifo}");
    let plan = format!(
        "plan: p\nsteps:\n  web: {{ uses: process.clone, with: {{ new: [pid], stdio: log }} }}\n  exec: {{ uses: process.exec, site: \"${{web}}\", with: {{ args: [/bin/sh, -c, '{script}'] }} }}\n  ends: {{ uses: process.wait, with: {{ process: \"${{web.process}}\" }} }}\n"
    );
    scene.write("p.yaml", &plan)?;
    scene.begins_here()?;
    let program = lifecycle_tests::program::lifecycle()?;
    let line = format!("{} run --root {} p.yaml", program.display(), lab.state_root().display());
    let mut command = Command::new("script");
    let mut run = Started::new(command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").current_dir(lab.dir()))?;
    run.wait_for("web | one\\u{d}two\\u{1b}[2Jthree")?;
    // Only a clock that goes on says this, and only then does the program end.
    run.wait_for("ends … 1s")?;
    std::fs::write(&fifo, "x\n")?;
    let told = run.end()?.ended(0).prints(&["✓ ends", "succeeded, exit code 0"]);
    assert!(!told.out.contains("two\u{1b}[2J"), "{:?}", told.out);
    std::fs::remove_file(&fifo)?;
    std::fs::remove_file(lab.dir().join("p.yaml"))?;
    scene.begins_here()?;
    Ok(scene.nothing_left()?)
}
