//! What keeps a killed process from dying, for messages.

use std::path::{Path, PathBuf};

use lifecycle_engine::error::EffectError;
use lifecycle_engine::proc;

use crate::effects::cgroup::machine;
use crate::facts::{CgroupLayout, cgroup_of};

/// How many processes a message names.
const NAMED: usize = 10;

/// A process's id, with what it is called.
pub(crate) fn named(pid: i32) -> String {
    let comm = proc::text(format!("/proc/{pid}/comm")).unwrap_or_default();
    let comm = comm.trim_end();
    if comm.is_empty() { pid.to_string() } else { format!("{pid} ({comm})") }
}

/// Some of them by name, and how many there are if that is not all.
pub(crate) fn listed(pids: &[i32]) -> String {
    let names: Vec<String> = pids.iter().take(NAMED).map(|pid| named(*pid)).collect();
    let rest = pids.len() - names.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

/// What is known of a process that does not die of SIGKILL.
pub(crate) fn undying(pid: i32) -> EffectError {
    let what = format!("process {} does not die of SIGKILL", placed(pid));
    match kept_by(pid) {
        Some(Kept::Zombie { zombie, parent }) => EffectError::new(format!(
            "{what}: its pid namespace still has process {zombie}, which has ended"
        ))
        .help(format!(
            "process {}, whose child that is, has to reap it, waitpid(2), or to end; try again then",
            named(parent)
        )),
        Some(Kept::Living(other)) => {
            EffectError::new(format!("{what}: its pid namespace still has process {}", placed(other))).help(cure(other))
        }
        None => EffectError::new(what).help(cure(pid)),
    }
}

/// The process, and the cgroup that it is in. One that is ending is in none but the topmost.
fn placed(pid: i32) -> String {
    let layout = machine();
    let tops = layout.v1.iter().map(|hierarchy| &hierarchy.mount).chain(layout.v2.iter().map(|unified| &unified.mount));
    match cgroup(pid, &layout).filter(|at| tops.clone().all(|top| top != at)) {
        Some(at) => format!("{} in the cgroup {}", named(pid), at.display()),
        None => named(pid),
    }
}

/// What to do about a process that does not die.
pub(crate) fn cure(pid: i32) -> String {
    match frozen_by(pid, &machine()) {
        Some(at) => format!("the cgroup {} is frozen: write THAWED to its freezer.state, and try again", at.display()),
        None => format!(
            "it hangs in the kernel, see /proc/{pid}/stack (a dead network file system, a broken disk?); try again once that is repaired"
        ),
    }
}

/// The directory of its cgroup, in the hierarchy that freezes if there is one of its own for that.
fn cgroup(pid: i32, layout: &CgroupLayout) -> Option<PathBuf> {
    let text = std::fs::read(format!("/proc/{pid}/cgroup")).ok()?;
    let below = |mount: &Path, path: &Path| mount.join(path.strip_prefix("/").unwrap_or(path));
    let freezer = layout.v1_of("freezer").and_then(|hierarchy| {
        let path = cgroup_of(&text, |names| names.split(',').any(|name| name == "freezer"))?;
        Some(below(&hierarchy.mount, path))
    });
    freezer.or_else(|| Some(below(&layout.v2.as_ref()?.mount, cgroup_of(&text, str::is_empty)?)))
}

/// The topmost cgroup that somebody has frozen and the process is below. Version 2 lets the frozen die.
fn frozen_by(pid: i32, layout: &CgroupLayout) -> Option<PathBuf> {
    let top = &layout.v1_of("freezer")?.mount;
    let own = cgroup(pid, layout)?;
    let is_frozen = |at: &&Path| {
        proc::text(at.join("freezer.self_freezing").display().to_string()).is_ok_and(|text| text.trim() == "1")
    };
    own.ancestors().take_while(|at| at.starts_with(top)).filter(is_frozen).last().map(Path::to_owned)
}

/// Who keeps a pid namespace, and with it the namespace's first process: pid_namespaces(7).
enum Kept {
    Zombie { zombie: i32, parent: i32 },
    Living(i32),
}

/// The first process of a pid namespace ends last: it waits for all others to be reaped. Whoever was executed there from outside is a child of
/// somebody outside, and only he can do that.
fn kept_by(pid: i32) -> Option<Kept> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(&pid.to_string()).filter(|own| Some(own) != namespace("self").as_ref())?;
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let others = pids.filter(|name| name.parse::<i32>().is_ok_and(|other| other != pid));
    others.filter(|name| namespace(name).as_ref() == Some(&own)).find_map(|name| {
        let stat = proc::text(format!("/proc/{name}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
        let other = name.parse().ok()?;
        if state != "Z" {
            return Some(Kept::Living(other));
        }
        // 0: whose child it is cannot be seen from here.
        (parent != pid && parent != 0).then_some(Kept::Zombie { zombie: other, parent })
    })
}
