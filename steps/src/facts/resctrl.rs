//! Shares of cache and memory bandwidth: what the processor has of them, and what the kernel offers.

use lifecycle_engine::proc;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The mounted resctrl file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resctrl {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// What can be shared out: `L3`, `MB`, … (the names in its `info`).
    pub resources: Vec<String>,
    /// What can be watched: `llc_occupancy`, `mbm_total_bytes`, …
    pub monitors: Vec<String>,
}

/// Null where it is not mounted.
pub(super) fn resctrl() -> Value {
    let mounts = proc::text("/proc/self/mountinfo").unwrap_or_default();
    mount_point(&mounts).map_or(Value::Null, |mount| json!(at(&mount)))
}

/// proc_pid_mountinfo(5). Nobody mounts it where a blank would have to be escaped.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    let line = mounts.lines().find(|line| line.contains(" - resctrl "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

fn at(mount: &Path) -> Resctrl {
    let info = mount.join("info");
    let entries = std::fs::read_dir(&info).into_iter().flatten().flatten();
    let mut resources: Vec<String> = entries
        .filter(|entry| entry.path().join("num_closids").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    resources.sort_unstable();
    let monitors = std::fs::read_to_string(info.join("L3_MON/mon_features")).unwrap_or_default();
    let monitors = monitors.split_whitespace().map(str::to_owned).collect();
    Resctrl { mount: mount.to_owned(), resources, monitors }
}

/// The flags of /proc/cpuinfo that stand for RDT (Intel) or QoS (AMD).
pub(super) fn processor() -> Value {
    json!(flags(&proc::text("/proc/cpuinfo").unwrap_or_default()))
}

fn flags(cpuinfo: &str) -> Vec<&str> {
    const RDT: [&str; 8] = ["rdt_a", "cat_l3", "cdp_l3", "cat_l2", "mba", "cqm_llc", "cqm_occup_llc", "cqm_mbm_total"];
    let line = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    line.split_whitespace().filter(|flag| RDT.contains(flag)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_and_its_offers_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for (name, file, text) in
            [("L3", "num_closids", "16\n"), ("MB", "num_closids", "8\n"), ("L3_MON", "mon_features", "llc_occupancy\n")]
        {
            std::fs::create_dir_all(dir.path().join("info").join(name)).unwrap();
            std::fs::write(dir.path().join("info").join(name).join(file), text).unwrap();
        }
        let found = at(dir.path());
        assert_eq!((found.resources, found.monitors), (vec!["L3".into(), "MB".into()], vec!["llc_occupancy".into()]));
        let mounts = "30 25 0:26 / /sys/fs/resctrl rw - resctrl resctrl rw\n";
        assert_eq!(mount_point(mounts).as_deref(), Some(Path::new("/sys/fs/resctrl")));
        assert_eq!(mount_point("30 25 0:26 / /sys rw - sysfs sysfs rw\n"), None);
    }

    #[test]
    fn flags_are_taken_as_whole_words() {
        assert_eq!(flags("flags\t\t: fpu rdt_a cat_l3 mbax\nflags: cqm_llc\n"), ["rdt_a", "cat_l3"]);
    }
}
