//! What a snapshot sees.

use std::fs;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lifecycle_tests::PATIENCE;
use lifecycle_tests::harness::TestResult;
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::{Part, Snapshot, hierarchies, remove_cgroup};
use lifecycle_tests::program::quiet;
use nix::mount::{MsFlags, mount, umount};

/// The parts in which something differs, and the difference as text.
fn differs(lab: &Lab, before: &Snapshot) -> Result<(Vec<Part>, String), lifecycle_tests::Error> {
    let difference = before.difference(&lab.snapshot()?);
    let mut parts: Vec<Part> = difference.changes.iter().map(|change| change.part).collect();
    parts.dedup();
    Ok((parts, difference.to_string()))
}

/// Looks once more until all is as before.
fn returned(lab: &Lab, before: &Snapshot) -> TestResult {
    let difference = before.returns_within(&lab.scope(), Duration::from_secs(2), |_| false)?;
    assert!(difference.is_empty(), "{difference}");
    Ok(())
}

pub fn a_mount_is_seen_and_its_removal_too(lab: &Lab) -> TestResult {
    let dir = lab.dir().join("mounted here");
    fs::create_dir(&dir)?;
    let before = lab.snapshot()?;
    let none: Option<&str> = None;
    // Not by mount(8), which keeps notes below /run.
    mount(Some("some source"), &dir, Some("tmpfs"), MsFlags::empty(), none)?;
    let (parts, text) = differs(lab, &before)?;
    assert_eq!(parts, [Part::Mounts, Part::Files], "{text}");
    assert!(text.contains(r"mounted\040here  tmpfs from some\040source"), "{text}");
    umount(&dir)?;
    returned(lab, &before)
}

pub fn a_mount_that_lives_on_in_another_namespace_is_seen_there(lab: &Lab) -> TestResult {
    let witness = Command::new("unshare")
        .args(["-m", "--propagation", "slave", "sh", "-c", "echo ready; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut witness = Stopped(witness);
    let mut ready = [0; 6];
    std::io::Read::read_exact(witness.0.stdout.as_mut().ok_or("no pipe")?, &mut ready)?;
    let mut scope = lab.scope();
    scope.witnesses = vec![witness.0.id().cast_signed()];
    // The shell becomes `sleep`: the snapshot must not fall in between.
    let deadline = Instant::now() + PATIENCE;
    while fs::read_to_string(format!("/proc/{}/comm", witness.0.id()))?.trim() != "sleep" {
        assert!(Instant::now() < deadline, "the witness does not start");
        std::thread::yield_now();
    }

    let dir = lab.dir().join("dir");
    fs::create_dir(&dir)?;
    let dir = dir.display().to_string();
    let before = Snapshot::take(&scope)?;
    quiet("mount", &["-t", "tmpfs", "none", &dir])?;
    // Private from here on: the removal does not reach the witness.
    quiet("mount", &["--make-private", &dir])?;
    quiet("mount", &["--make-rprivate", "/run"])?;
    quiet("umount", &[&dir])?;
    quiet("mount", &["--make-shared", "/run"])?;
    let difference = before.difference(&Snapshot::take(&scope)?).to_string();
    assert!(difference.contains(&format!("+ seen by {}: {dir}", witness.0.id())), "{difference}");
    Ok(())
}

/// A child that does not outlive its test's function.
struct Stopped(std::process::Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        // Already ended is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn a_cgroup_and_its_limits_are_seen(lab: &Lab) -> TestResult {
    let all = hierarchies()?;
    let hierarchy =
        all.iter().find(|hierarchy| hierarchy.unified || hierarchy.mount.ends_with("pids")).ok_or("no cgroups")?;
    let dir = hierarchy.mount.join(lab.token());
    let before = lab.snapshot()?;
    fs::create_dir(&dir)?;
    let (parts, text) = differs(lab, &before)?;
    assert_eq!(parts, [Part::Cgroups], "{text}");
    let made = lab.snapshot()?;
    let limit = dir.join("pids.max");
    if limit.exists() {
        fs::write(&limit, "17")?;
        let (parts, text) = differs(lab, &made)?;
        assert_eq!(parts, [Part::Cgroups], "{text}");
        assert!(text.contains("pids.max=17"), "{text}");
    }
    remove_cgroup(&dir)?;
    returned(lab, &before)
}

pub fn links_addresses_and_routes_are_seen(lab: &Lab) -> TestResult {
    let before = lab.snapshot()?;
    assert!(before.part(Part::Links).contains_key("lo"), "{:?}", before.part(Part::Links));
    quiet("ip", &["link", "add", "one", "type", "veth", "peer", "name", "other"])?;
    let (parts, text) = differs(lab, &before)?;
    assert!(parts.contains(&Part::Links), "{text}");
    assert!(text.contains("+ one ") && text.contains("linked to other") && text.contains("kind Veth"), "{text}");
    quiet("ip", &["address", "add", "10.9.8.7/24", "dev", "one"])?;
    quiet("ip", &["link", "set", "one", "up"])?;
    quiet("ip", &["link", "set", "other", "up"])?;
    quiet("ip", &["route", "add", "10.1.0.0/16", "via", "10.9.8.1", "onlink", "dev", "one"])?;
    let (_, text) = differs(lab, &before)?;
    assert!(text.contains("+ one 10.9.8.7/24"), "{text}");
    assert!(text.contains("10.1.0.0") && text.contains("10.9.8.1"), "{text}");
    quiet("ip", &["link", "delete", "one"])?;
    returned(lab, &before)
}

pub fn namespaces_and_processes_are_seen(lab: &Lab) -> TestResult {
    let before = lab.snapshot()?;
    let mut child = Stopped(Command::new("unshare").args(["-u", "-n", "sleep", "60"]).spawn()?);
    let deadline = Instant::now() + PATIENCE;
    while fs::read_to_string(format!("/proc/{}/comm", child.0.id()))?.trim() != "sleep" {
        assert!(Instant::now() < deadline, "the child does not start");
        std::thread::yield_now();
    }
    let (parts, text) = differs(lab, &before)?;
    assert_eq!(parts, [Part::Namespaces, Part::Processes], "{text}");
    assert!(text.contains("uts:[") && text.contains("net:[") && text.contains("sleep [sleep 60]"), "{text}");
    child.0.kill()?;
    child.0.wait()?;
    returned(lab, &before)
}

pub fn open_descriptors_are_seen(lab: &Lab) -> TestResult {
    let before = lab.snapshot()?;
    let file = fs::File::open("/etc/passwd")?;
    let (parts, text) = differs(lab, &before)?;
    assert_eq!(parts, [Part::Descriptors], "{text}");
    assert!(text.contains(&format!("fd {}  /etc/passwd", file.as_raw_fd())), "{text}");
    drop(file);
    returned(lab, &before)
}
