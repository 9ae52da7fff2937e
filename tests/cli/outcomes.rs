//! What becomes of a plan's programs, and what a run says of it.

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;

use crate::scene::Scene;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::Root;
    let tests = lifecycle_tests::tests![
        a_step_after_a_wait_is_told_the_exit_code,
        what_can_make_no_progress_is_an_error_of_check,
        an_unrelated_command_holds_no_container_back,
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
