//! Where a container's first process is by now, when its cgroup of version 2 can be used no more.
//!
//! Whoever may write to his cgroups, as systemd or Docker in a container does, moves himself into one below and turns controllers on: from then on
//! the container's own cgroup takes no process (cgroup-v2.rst, "No Internal Process Constraint"). Or he moves elsewhere and removes it.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use lifecycle_engine::proc;
use rustix::fs::{Mode, OFlags, openat};
use serde_json::{Value, json};

use super::cgroup::{CgroupLayout, cgroup_of, layout};
use crate::effects::cgroup::processes_below;
use crate::outcomes::Process;

/// The prefix of the fact's name, which [`name`] completes: where one more process of the container has to go.
pub(crate) const JOINED: &str = "cgroup.joined:";

/// The same: the cgroup that stands for one that is gone, with whatever is in it.
const FOLLOWED: &str = "cgroup.followed:";

/// The fact's name for a process that was put into this cgroup.
pub(crate) fn name(prefix: &str, process: &Process, recorded: &Path) -> String {
    format!("{prefix}{}:{}:{}", process.pid, process.start, recorded.display())
}

/// The cgroup that all of the container is in now, where the one that was recorded is gone; null otherwise, and where others are in it too: what
/// is frozen, limited or killed has to be the container.
pub fn followed(process: &Process, recorded: &Path) -> String {
    name(FOLLOWED, process, recorded)
}

/// What these facts say.
pub(super) fn read(name: &str) -> Option<Value> {
    let (is_joined, rest) = match (name.strip_prefix(JOINED), name.strip_prefix(FOLLOWED)) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return None,
    };
    let mut parts = rest.splitn(3, ':');
    let (pid, start, recorded) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
    let process = Process { pid, start, boot: super::boot_id().to_owned() };
    let found = if is_joined { joined(&process, Path::new(recorded)) } else { instead(&process, Path::new(recorded)) };
    Some(json!(found.as_deref().and_then(Path::to_str)))
}

/// Inside the cgroup that was recorded the container is where it may be; elsewhere it is believed only once that one is gone.
fn joined(process: &Process, recorded: &Path) -> Option<PathBuf> {
    if recorded.is_dir() && takes_processes(recorded) {
        return None;
    }
    now(process).filter(|now| now.as_path() != recorded && (now.starts_with(recorded) || !recorded.exists()))
}

/// The cgroup that stands for one that is gone, if the container is all that is in it.
pub(crate) fn instead(process: &Process, recorded: &Path) -> Option<PathBuf> {
    if recorded.exists() {
        return None;
    }
    let now = now(process)?;
    let own = PidNamespace::of(process.pid)?;
    let members = processes_below(&now).ok()?;
    members.iter().all(|pid| own.has(*pid)).then_some(now)
}

/// Those that are in the container's namespace of processes, in its cgroup where that is by now; the first process alone if that is shared.
pub(crate) fn members(process: &Process, recorded: &Path) -> Vec<i32> {
    let Some(now) = (!recorded.exists()).then(|| now(process)).flatten() else { return Vec::new() };
    let own = PidNamespace::of(process.pid);
    let is_its = |pid: &i32| *pid == process.pid || own.as_ref().is_some_and(|own| own.has(*pid));
    processes_below(&now).unwrap_or_default().into_iter().filter(is_its).collect()
}

fn takes_processes(at: &Path) -> bool {
    let text = |file: &str| proc::text(at.join(file).display().to_string()).unwrap_or_default();
    text("cgroup.subtree_control").trim().is_empty() || text("cgroup.type").trim() != "domain"
}

/// Where the process is. What leads out of what this program can see of the hierarchy is no path in it.
fn now(process: &Process) -> Option<PathBuf> {
    let layout: CgroupLayout = serde_json::from_value(layout()).ok()?;
    let directory = process.directory().ok()??;
    let file = openat(directory, "cgroup", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = Vec::new();
    std::fs::File::from(file).read_to_end(&mut text).ok()?;
    let path = cgroup_of(&text, str::is_empty)?.strip_prefix("/").ok()?;
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let now = layout.v2?.mount.join(path);
    (is_plain && now.is_dir()).then_some(now)
}

/// A namespace of processes that this program is not in.
struct PidNamespace(PathBuf);

impl PidNamespace {
    fn of(pid: i32) -> Option<Self> {
        let own = std::fs::read_link("/proc/self/ns/pid").ok()?;
        std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok().filter(|namespace| *namespace != own).map(Self)
    }

    fn has(&self, pid: i32) -> bool {
        std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|namespace| namespace == self.0)
    }
}
