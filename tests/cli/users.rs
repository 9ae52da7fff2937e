//! The program for somebody who is not root.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use rustix::process::Signal;

use crate::scene::{self, NOBODY, Scene, Started, Told};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::Root;
    let tests = lifecycle_tests::tests![
        hello_runs_for_an_ordinary_user_and_leaves_nothing,
        an_ordinary_users_container_can_change_its_own_files_only,
        where_no_overlay_is_to_be_had_the_files_are_read_only,
        an_ordinary_users_faults_and_crashes_leave_nothing,
        a_plan_that_needs_root_says_so,
        other_users_see_the_hosts_files_whoever_has_the_state_root,
    ];
    tests.into_iter().map(|test| test.within("users").needs(&[Root])).collect()
}

/// A directory that takes the place of /run/user/UID.
fn runtime(lab: &Lab) -> lifecycle_tests::Result<(Scene<'_>, PathBuf)> {
    use lifecycle_tests::While;
    let mut scene = Scene::new(lab)?;
    let dir = lab.dir().join("runtime");
    let made = std::fs::create_dir(&dir).and_then(|()| chown(&dir, Some(NOBODY), Some(NOBODY)));
    made.when(|| format!("making {}", dir.display()))?;
    scene.begins_here()?;
    Ok((scene, dir))
}

fn command(dir: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program::lifecycle().unwrap_or_else(|error| panic!("{error}")));
    scene::as_nobody(command.args(arguments).env("XDG_RUNTIME_DIR", dir).env_remove("HOME").current_dir("/"));
    command
}

fn told(dir: &std::path::Path, arguments: &[&str]) -> Told {
    scene::told(&mut command(dir, arguments))
}

pub fn hello_runs_for_an_ordinary_user_and_leaves_nothing(lab: &Lab) -> TestResult {
    let (scene, dir) = runtime(lab)?;
    let told = told(&dir, &["run"]).ended(0).prints(&["hostname: hello\n", "user: uid=0(root)"]);
    assert_eq!(told.problems(), "");
    Ok(scene.nothing_left()?)
}

pub fn an_ordinary_users_container_can_change_its_own_files_only(lab: &Lab) -> TestResult {
    let (scene, dir) = runtime(lab)?;
    let script =
        "echo mine > /etc/made-by-a-test && cat /etc/made-by-a-test; rm /etc/hostname && echo removed; id -u; exit 9";
    let told = told(&dir, &["run", "--", "sh", "-c", script]).ended(9);
    assert_eq!(told.out, "mine\nremoved\n0\n", "{}", told.err);
    assert!(std::path::Path::new("/etc/hostname").exists() && !std::path::Path::new("/etc/made-by-a-test").exists());
    Ok(scene.nothing_left()?)
}

pub fn where_no_overlay_is_to_be_had_the_files_are_read_only(lab: &Lab) -> TestResult {
    let (scene, dir) = runtime(lab)?;
    let script = "echo x 2>/dev/null > /etc/made-by-a-test || echo refused; hostname";
    let told = told(&dir, &["run", "hello", "--mask", "overlay.userns", "--", "sh", "-c", script]).ended(0);
    assert_eq!(told.out, "refused\nhello\n", "{}", told.err);
    Ok(scene.nothing_left()?)
}

pub fn an_ordinary_users_faults_and_crashes_leave_nothing(lab: &Lab) -> TestResult {
    let (scene, dir) = runtime(lab)?;
    for step in ["init", "rootfs", "pivot", "exec", "wait"] {
        told(&dir, &["run", "hello", "--fail-at", &format!("{step}:after"), "--", "true"])
            .ended(1)
            .says(&["everything was taken back"]);
        told(&dir, &["run", "hello", "--fail-at", &format!("{step}:crash"), "--", "true"]).ended(137);
        told(&dir, &["recover"]).ended(0);
        scene.nothing_left()?;
    }
    let mut run = Started::new(&mut command(&dir, &["run", "--", "sh", "-c", "echo ready; exec sleep 30"]))?;
    run.wait_for("ready")?;
    run.signal(Signal::KILL)?;
    run.end()?.ended(137);
    told(&dir, &["recover"]).ended(0).prints(&["taken back"]);
    Ok(scene.nothing_left()?)
}

pub fn a_plan_that_needs_root_says_so(lab: &Lab) -> TestResult {
    let (scene, dir) = runtime(lab)?;
    for command in ["run", "plan"] {
        let told = told(&dir, &[command, "ci/service"]).ended(if command == "run" { 125 } else { 1 });
        // While it is planned: no step has begun.
        assert!(!told.err.contains("taken back") && !told.err.contains("failed"), "{}", told.err);
        told.says(&["`network` (net.bridge)", "CAP_NET_ADMIN", "caps.effective", "run as root"]);
    }
    Ok(scene.nothing_left()?)
}

/// A copy of the host's files for users that may not enter the state root.
const MAPPED: &str = r#"
plan: mapped
steps:
  init:
    uses: process.clone
    with:
      new: [mount, pid, uts, ipc, network, user]
      uid_mappings: [{ containerID: 0, hostID: 100000, size: 65536 }]
      gid_mappings: [{ containerID: 0, hostID: 100000, size: 65536 }]
  rootfs: { uses: rootfs.overlay, site: "${init}", with: { user_namespace: true } }
  pivot: { uses: rootfs.pivot, site: "${init}" }
  exec: { uses: process.exec, site: "${init}", with: { args: [sh, -c, "stat -c %u /etc/passwd; ls -A /dev/shm; hostname"] } }
  wait: { uses: process.wait, with: { process: "${init.process}" } }
main: wait
"#;

pub fn other_users_see_the_hosts_files_whoever_has_the_state_root(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.write("mapped.yaml", MAPPED)?;
    scene.begins_here()?;
    let told = scene.told(&["run", "mapped.yaml"]).ended(0);
    assert_eq!(told.out.lines().collect::<Vec<_>>(), ["65534", rustix::system::uname().nodename().to_str()?]);
    Ok(scene.nothing_left()?)
}
