//! Names that a container gives to cgroups and processes, and how deep it nests them, keep nobody from ending it.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lifecycle_tests::harness::{Need, Test, TestResult, note};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::hierarchies;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use serde_json::json;

use crate::oci_scene::{Oci, eventually, reap_later};
use crate::scene::told;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        a_cgroup_whose_name_is_not_utf_8_hides_no_process,
        cgroups_that_are_nested_thousands_deep_are_deleted,
        a_process_whose_name_is_not_utf_8_is_told_of_and_ended,
        a_cgroup_that_a_container_has_frozen_keeps_nobody_alive,
        a_config_moves_and_kills_no_process_of_the_hosts,
        a_cgroup_that_was_there_keeps_no_process_of_a_deleted_container,
    ];
    tests.into_iter().map(|test| test.within("attacks_cgroups").needs(&[Root, Program("busybox")])).collect()
}

/// A process in this cgroup.
fn sleeper(cgroup: &Path) -> Result<Child, Box<dyn std::error::Error>> {
    let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?;
    fs::write(cgroup.join("cgroup.procs"), child.id().to_string())?;
    Ok(child)
}

/// It does so by itself, or somebody else has reaped it.
fn ends(child: &mut Child) -> TestResult {
    Ok(eventually("the process to end", || Ok(child.try_wait().map_or(true, |ended| ended.is_some())))?)
}

pub fn a_cgroup_whose_name_is_not_utf_8_hides_no_process(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "1000"])?;
    oci.running(&[]);
    // As a container with a writable cgroup makes it.
    let hidden = oci.cgroup("pids")?.join(OsStr::from_bytes(b"\xff\xfe")).join(OsStr::from_bytes(b"\x80"));
    fs::create_dir_all(&hidden)?;
    let mut child = sleeper(&hidden)?;
    let pids = oci.told(&["ps", "--format", "json", &oci.id]).ended(0).out;
    assert!(pids.contains(&child.id().to_string()), "{pids} without {}", child.id());
    oci.told(&["kill", "--all", &oci.id, "KILL"]).ended(0);
    ends(&mut child)?;
    let mut child = sleeper(&hidden)?;
    oci.gone()?;
    ends(&mut child)?;
    assert!(!hidden.exists());
    Ok(())
}

/// More than there are descriptors, and deeper than a path can name.
const LEVELS: u32 = 3_000;
/// How many descriptors there are for who deletes them, RLIMIT_NOFILE.
const DESCRIPTORS: u32 = 256;

pub fn cgroups_that_are_nested_thousands_deep_are_deleted(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "1000"])?;
    oci.running(&[]);
    let open = |below: &OwnedFd, name: &str| openat(below, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut deepest: OwnedFd = openat(CWD, oci.cgroup("pids")?, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for _ in 0..LEVELS {
        mkdirat(&deepest, "d", Mode::RWXU)?;
        deepest = open(&deepest, "d")?;
    }
    let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?;
    let procs = openat(&deepest, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&procs, child.id().to_string().as_bytes())?;
    drop((procs, deepest));
    let delete = oci.command(&["delete", "--force", &oci.id]);
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("ulimit -n {DESCRIPTORS} && exec \"$@\"")).arg("sh").arg(delete.get_program());
    told(limited.args(delete.get_args()).current_dir(lab.dir())).ended(0);
    ends(&mut child)?;
    Ok(oci.scene.nothing_left()?)
}

pub fn a_process_whose_name_is_not_utf_8_is_told_of_and_ended(lab: &Lab) -> TestResult {
    let oci =
        Oci::new(lab, &["sh", "-c", "printf '\\377 )' > /proc/self/comm; touch /tmp/named; read -r wait < /dev/zero"])?;
    oci.running(&[]);
    let comm = format!("/proc/{}/comm", oci.pid()?);
    eventually("the name", || Ok(fs::read(&comm).is_ok_and(|name| name.starts_with(b"\xff"))))?;
    assert_eq!(oci.state()?["status"], "running");
    oci.told(&["events", "--stats", &oci.id]).ended(0);
    oci.told(&["exec", &oci.id, "true"]).ended(0);
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    oci.wait_for_status("stopped")?;
    oci.verb("delete").ended(0);
    Ok(())
}

/// Version 1's freezer holds even what is killed, and a container that may write to its own cgroups can freeze one below.
pub fn a_cgroup_that_a_container_has_frozen_keeps_nobody_alive(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sh", "-c", "sleep 1000 & exec sleep 1000"])?;
    for kill in [false, true] {
        oci.running(&[]);
        let freezer = oci.cgroup("freezer")?;
        if !freezer.join("freezer.state").exists() {
            note("there is no freezer of version 1");
            return Ok(oci.gone()?);
        }
        let below = freezer.join("below");
        fs::create_dir(&below)?;
        let pids = fs::read_to_string(freezer.join("cgroup.procs"))?;
        let child = pids.split_whitespace().find(|pid| oci.pid().is_ok_and(|init| init.to_string() != **pid));
        let child = child.ok_or("it has one process only")?.to_owned();
        fs::write(below.join("cgroup.procs"), &child)?;
        fs::write(below.join("freezer.state"), "FROZEN")?;
        if kill {
            oci.told(&["kill", &oci.id, "KILL"]).ended(0);
            oci.wait_for_status("stopped")?;
        }
        oci.told(&["delete", "--force", &oci.id]).ended(0);
        assert!(!Path::new("/proc").join(&child).exists(), "the frozen process lives on");
    }
    Ok(oci.scene.nothing_left()?)
}

/// `linux.resources.unified` names files of the cgroup, and callers let their users choose them: podman's `--cgroup-conf`.
pub fn a_config_moves_and_kills_no_process_of_the_hosts(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "1000"])?;
    let mut bystander = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?;
    let pid = bystander.id().to_string();
    let cgroups = || fs::read_to_string(format!("/proc/{pid}/cgroup"));
    let before = cgroups()?;
    let files = [
        ("cgroup.procs", pid.as_str()),
        ("cgroup.threads", pid.as_str()),
        ("cgroup.kill", "1"),
        ("cgroup.freeze", "1"),
        ("cgroup.type", "threaded"),
        ("cgroup.subtree_control", "+pids"),
    ];
    for (file, value) in files {
        let unified = json!({ "unified": { file: value } });
        oci.edit(|config| config["linux"]["resources"] = unified.clone())?;
        let told = oci.told(&["create", "-b", "bundle", &oci.id]);
        let made = told.code == 0;
        let moved = cgroups()?;
        if made {
            oci.gone()?;
        }
        assert!(bystander.try_wait()?.is_none(), "{file} has killed it");
        assert_eq!(moved, before, "{file} has moved it");
        told.ended(1).says(&["is no limit", file]);
        oci.scene.nothing_left()?;
    }
    bystander.kill()?;
    bystander.wait()?;
    Ok(())
}

/// Nobody but its processes shows where a container without a pid namespace is, and its cgroup was there before it.
pub fn a_cgroup_that_was_there_keeps_no_process_of_a_deleted_container(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "busybox setsid sleep 601 & exec true"])?;
    let name = format!("{}-there", lab.token());
    let mounts: Vec<_> = hierarchies()?.into_iter().map(|hierarchy| hierarchy.mount.join(&name)).collect();
    mounts.iter().try_for_each(fs::create_dir)?;
    oci.edit(|config| {
        config["linux"]["cgroupsPath"] = serde_json::json!(format!("/{name}"));
        config["linux"]["namespaces"].as_array_mut().expect("a list").retain(|n| n["type"] != "pid");
    })?;
    oci.running(&[]);
    oci.wait_for_status("stopped")?;
    let left: Vec<i32> = serde_json::from_str(&oci.told(&["ps", "--format", "json", &oci.id]).ended(0).out)?;
    assert_eq!(left.len(), 1, "the container has left nobody");
    reap_later(left[0]);
    oci.verb("delete").ended(0);
    eventually("its end", || Ok(!Path::new("/proc").join(left[0].to_string()).exists()))?;
    oci.scene.nothing_left()?;
    // Whoever has taken the cgroup since is left alone.
    oci.edit(|config| config["process"]["args"] = serde_json::json!(["true"]))?;
    oci.running(&[]);
    oci.wait_for_status("stopped")?;
    let first = std::mem::replace(&mut oci.id, format!("{}-c2", lab.token()));
    oci.bundle.runs(&["sleep", "600"])?;
    oci.running(&[]);
    oci.told(&["delete", &first]).ended(0);
    assert_eq!(oci.state()?["status"], "running");
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    mounts.iter().try_for_each(fs::remove_dir)?;
    Ok(())
}
