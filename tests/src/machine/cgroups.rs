//! Cgroup directories, in every hierarchy that is mounted.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

use super::{Things, mounts};
use crate::audit::PREFIX;
use crate::{Error, Result, While, sys};

/// One cgroup hierarchy: a v1 controller's, a named one, or v2's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Whether it is the v2 hierarchy.
    pub unified: bool,
}

/// Every hierarchy in our mount namespace.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let file = "/proc/thread-self/mountinfo";
    let text = fs::read_to_string(file).when(|| format!("reading {file}"))?;
    let mounts = text.lines().filter_map(mounts::parse).filter(|mount| mount.kind.starts_with("cgroup"));
    Ok(mounts.map(|mount| Hierarchy { mount: mount.point.into(), unified: mount.kind == "cgroup2" }).collect())
}

/// The directories of every hierarchy whose path below the hierarchy's mount contains one of `names`, parents first.
pub fn directories(names: &[String]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for Hierarchy { mount, .. } in hierarchies()? {
        walk(&mount, &mount, names, &mut found)?;
    }
    Ok(found)
}

fn walk(mount: &Path, top: &Path, names: &[String], found: &mut Vec<PathBuf>) -> Result<()> {
    let mut left = vec![top.to_owned()];
    while let Some(dir) = left.pop() {
        let below = dir.strip_prefix(mount).unwrap_or(&dir).to_string_lossy();
        let wanted = names.iter().any(|name| below.contains(name.as_str()));
        if wanted && dir != top {
            found.push(dir.clone());
        }
        // What another test makes of its own cgroups is its own business.
        if wanted || !below.contains(PREFIX) {
            left.extend(children(&dir)?);
        }
    }
    Ok(())
}

fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::new(format!("listing {}", dir.display()), error);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        // Another test may remove its own while we look.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => found.push(entry.path()),
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => break,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(found)
}

/// The cgroups of `names`, with what is set in them.
pub(super) fn look(names: &[String]) -> Result<Things> {
    let mut things = Things::new();
    for path in directories(names)? {
        let set = set_in(&path)?;
        things.insert(path.display().to_string(), set);
    }
    Ok(things)
}

/// Files that hold a setting rather than a counter or a list of members.
fn holds_a_setting(name: &str) -> bool {
    const EXACT: &[&str] = &[
        "cpu.idle",
        "cpu.rt_runtime_us",
        "cpu.shares",
        "cpuset.cpus",
        "cpuset.mems",
        "devices.list",
        "freezer.state",
        "cgroup.freeze",
        "cgroup.subtree_control",
        "cgroup.type",
        "notify_on_release",
        "memory.swappiness",
        "memory.oom_control",
        "memory.use_hierarchy",
    ];
    const ENDS: &[&str] =
        &[".max", ".min", ".low", ".high", ".weight", "_quota_us", "_period_us", "limit_in_bytes", "_device"];
    EXACT.contains(&name) || ENDS.iter().any(|end| name.ends_with(end))
}

fn set_in(dir: &Path) -> Result<String> {
    let mut settings = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return Ok("going away".into()) };
    for entry in entries {
        let entry = entry.when(|| format!("listing {}", dir.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !holds_a_setting(&name) {
            continue;
        }
        // Some settings can be written only, and some not be read in every state of their cgroup.
        if let Ok(value) = fs::read_to_string(entry.path()) {
            settings.push(format!("{name}={}", value.trim().replace('\n', ";")));
        }
    }
    // Only the second version has them; a kernel without bpf(2) has none.
    if let Ok(programs) = File::open(dir).and_then(|dir| sys::device_programs(dir.as_fd()))
        && programs > 0
    {
        settings.push(format!("device programs={programs}"));
    }
    settings.sort();
    Ok(settings.join(" "))
}

/// Kills what is in a cgroup directory and everything below it, and removes it. Only for what a test made.
pub fn remove(dir: &Path) -> Result<()> {
    let mut below = Vec::new();
    walk(dir, dir, &[String::new()], &mut below)?;
    below.insert(0, dir.to_owned());
    for cgroup in below.iter().rev() {
        for attempt in 0.. {
            let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            for pid in members.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
                // Already gone is what we want.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            match fs::remove_dir(cgroup) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(_) if attempt < 200 => std::thread::sleep(std::time::Duration::from_millis(5)),
                Err(error) => return Err(Error::new(format!("removing {}", cgroup.display()), error)),
            }
        }
    }
    Ok(())
}
