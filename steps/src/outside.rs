//! What comes from outside and is read by functions that are this crate's own, from bytes alone: for those who try it with bytes that nobody
//! meant (`lifecycle_tests::fuzzing`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::facts::{CgroupLayout, IdRange};

pub use crate::process::environment::home;
pub use crate::process::start_time;

/// The mounted hierarchies of cgroups, from the texts of mountinfo and /proc/cgroups.
pub fn cgroup_layout(mounts: &str, known: &str) -> CgroupLayout {
    crate::facts::cgroup_layout(mounts, known)
}

/// Somebody's own cgroup by the hierarchy's mount point, from the texts of his mountinfo and /proc/PID/cgroup.
pub fn own_cgroups(mounts: &str, own: &str) -> BTreeMap<PathBuf, String> {
    crate::facts::own_of(mounts, own)
}

/// A process's cgroup in the hierarchy of that controller, from its /proc/PID/cgroup.
pub fn cgroup<'a>(text: &'a [u8], controller: &str) -> Option<&'a Path> {
    crate::facts::cgroup_of(text, |controllers| controllers.split(',').any(|name| name == controller))
}

/// Whether these bytes are an answer of criu's.
pub fn criu_answer(bytes: &[u8]) -> bool {
    crate::effects::criu::answer(bytes)
}

/// The caller's ranges in subuid(5).
pub fn subordinate_ids(text: &str, name: Option<&str>, uid: u32) -> Vec<IdRange> {
    crate::facts::id_ranges(text, name, uid)
}

/// What the service manager is told of a container's messages of sd_notify(3), which are parted by a zero byte.
pub fn notify_words(messages: &[u8]) -> Vec<String> {
    crate::effects::notify::passed_on(messages.split(|byte| *byte == 0), Some(1))
}
