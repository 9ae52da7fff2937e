//! Freezing and updating, on the mounted hierarchies, below directories of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lifecycle_engine::effect::Record;

use super::*;
use crate::effects::testing::Bench;

/// A cgroup with a process in it; both go with it.
struct Occupied {
    at: PathBuf,
    version: Version,
    member: Child,
}

impl Occupied {
    /// `None` where the machine lets this caller make none.
    fn of(controller: &str, name: &str) -> Option<Self> {
        let layout = machine();
        let (mount, version) = match (layout.v1_of(controller), &layout.v2) {
            (Some(hierarchy), _) => (hierarchy.mount.clone(), Version::V1),
            (None, Some(unified)) => (unified.mount.clone(), Version::V2),
            (None, None) => return None,
        };
        let at = mount.join(format!("lifecycle-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&at).ok()?;
        let mut cat = Command::new("cat");
        let member = cat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        std::fs::write(at.join("cgroup.procs"), member.id().to_string()).unwrap();
        Some(Self { at, version, member })
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.at.join(file)).unwrap().trim().to_owned()
    }

    fn is_frozen(&self) -> bool {
        match self.version {
            Version::V1 => self.text("freezer.state") == "FROZEN",
            Version::V2 => self.text("cgroup.events").contains("frozen 1"),
        }
    }

    fn has(&self, file: &str) -> bool {
        self.at.join(file).exists()
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            if self.has(file) {
                std::fs::write(self.at.join(file), word).unwrap();
            }
        }
        self.member.kill().unwrap();
        self.member.wait().unwrap();
        // The kernel drops an ended process from its cgroup a moment later.
        while std::fs::remove_dir(&self.at).is_err_and(|e| e.raw_os_error() == Some(nix::libc::EBUSY)) {
            std::thread::yield_now();
        }
    }
}

fn scratch() -> &'static Path {
    Path::new("/nonexistent")
}

#[test]
fn a_frozen_cgroup_stands_still_and_undo_lets_it_go_on() {
    let Some(there) = Occupied::of("freezer", "freeze") else { return };
    let mut bench = Bench::new(scratch());
    let freeze = FreezeCgroup { at: there.at.clone(), version: there.version, frozen: true };
    let thaw = FreezeCgroup { frozen: false, ..freeze.clone() };
    let (record, answer) = bench.apply(&freeze);
    answer.unwrap();
    assert!(there.is_frozen());
    // Frozen already: nothing to take back.
    let (again, answer) = bench.apply(&freeze);
    answer.unwrap();
    bench.undo(&freeze, &again).unwrap();
    assert!(there.is_frozen());
    let (thawed, answer) = bench.apply(&thaw);
    answer.unwrap();
    assert!(!there.is_frozen());
    bench.undo(&thaw, &thawed).unwrap();
    assert!(there.is_frozen());
    for _ in 0..2 {
        bench.undo(&freeze, &record).unwrap();
        assert!(!there.is_frozen());
    }
}

#[test]
fn a_cgroup_of_the_same_name_is_not_thawed() {
    let Some(there) = Occupied::of("freezer", "name") else { return };
    let mut bench = Bench::new(scratch());
    let freeze = FreezeCgroup { at: there.at.clone(), version: there.version, frozen: true };
    let (mut record, answer) = bench.apply(&freeze);
    answer.unwrap();
    record.before["cgroup"]["ino"] = serde_json::json!(1);
    bench.undo(&freeze, &record).unwrap();
    assert!(there.is_frozen());
    bench.undo(&freeze, &Record::default()).unwrap();
    assert!(there.is_frozen());
}

fn write_file(file: &str, value: &str) -> WriteFile {
    WriteFile { field: String::new(), file: file.into(), value: value.into(), otherwise: None, optional: false }
}

#[test]
fn limits_that_bind_each_other_move_up_and_down_and_back() {
    let Some(there) = Occupied::of("memory", "memory") else { return };
    let (limit, both) = match there.version {
        Version::V1 => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        Version::V2 => ("memory.max", "memory.swap.max"),
    };
    if !there.has(limit) || !there.has(both) {
        return;
    }
    let mut bench = Bench::new(scratch());
    let update = |low: u64, high: u64| UpdateCgroup {
        at: there.at.clone(),
        files: vec![write_file(limit, &low.to_string()), write_file(both, &high.to_string())],
        used_below: None,
    };
    let now = || (there.text(limit), there.text(both));
    let first = now();
    let (small, large) = (update(64 << 20, 128 << 20), update(256 << 20, 512 << 20));
    let (from_first, answer) = bench.apply(&small);
    answer.unwrap();
    let (from_small, answer) = bench.apply(&large);
    answer.unwrap();
    assert_eq!(now(), ((256 << 20).to_string(), (512 << 20).to_string()));
    for _ in 0..2 {
        bench.undo(&large, &from_small).unwrap();
        assert_eq!(now(), ((64 << 20).to_string(), (128 << 20).to_string()));
    }
    bench.undo(&small, &from_first).unwrap();
    assert_eq!(now(), first);
}

#[test]
fn a_value_that_is_refused_leaves_none_of_the_others() {
    let Some(there) = Occupied::of("pids", "refused") else { return };
    if !there.has("pids.max") {
        return;
    }
    let mut bench = Bench::new(scratch());
    let files = vec![write_file("pids.max", "16"), write_file("pids.max", "many")];
    let update = UpdateCgroup { at: there.at.clone(), files, used_below: None };
    let (record, answer) = bench.apply(&update);
    assert!(answer.unwrap_err().to_string().contains("many"));
    bench.undo(&update, &record).unwrap();
    assert_eq!(there.text("pids.max"), "max");
    let missing = UpdateCgroup { files: vec![write_file("pids.no_such", "1")], ..update };
    assert!(bench.apply(&missing).1.unwrap_err().to_string().contains("pids.no_such"));
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_where_the_config_says_so() {
    let Some(there) = Occupied::of("memory", "use") else { return };
    let file = if there.version == Version::V1 { "memory.limit_in_bytes" } else { "memory.max" };
    if !there.has(file) {
        return;
    }
    // Joined after it had its memory, so what it allocates from now on counts.
    std::fs::write(there.at.join("cgroup.procs"), there.member.id().to_string()).unwrap();
    let mut bench = Bench::new(scratch());
    let used = UpdateCgroup { at: there.at.clone(), files: vec![write_file(file, "1")], used_below: Some(0) };
    let in_use: u64 = match there.version {
        Version::V1 => there.text("memory.usage_in_bytes"),
        Version::V2 => there.text("memory.current"),
    }
    .parse()
    .unwrap();
    if in_use > 0 {
        assert!(bench.apply(&used).1.unwrap_err().to_string().contains("memory are in use"));
    }
    let unused = UpdateCgroup { files: vec![write_file(file, "1073741824")], used_below: Some(1 << 30), ..used };
    bench.apply(&unused).1.unwrap();
    assert_eq!(there.text(file), "1073741824");
}
