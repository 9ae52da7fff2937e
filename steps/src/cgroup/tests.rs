//! The step at work on the mounted hierarchies, below directories of its own.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use lifecycle_engine::effect::{Applied, Cx, Fds, Outcomes, Record, RunNames, Said, Undone};
use lifecycle_engine::error::{EffectError, PlanError};
use lifecycle_engine::facts::Facts;
use lifecycle_engine::site::block_on;
use lifecycle_engine::step::{PlannedEffect, Planning, Step};
use serde_json::{Value, json};

use super::Create;
use super::create::{Input, Output};
use crate::facts::{CgroupLayout, Machine};

/// One run of the step.
struct Run {
    names: RunNames,
    step: Arc<str>,
    effects: Vec<PlannedEffect>,
    output: Output,
    outcomes: Outcomes,
    records: Vec<Record>,
}

/// `None` where the machine lets this caller make no cgroups.
fn plan(id: &str, input: Value) -> Option<Run> {
    let mut facts = Facts::live(Box::new(Machine));
    let layout: CgroupLayout = facts.get("cgroup.layout").unwrap();
    layout.writable().then(|| plan_with(&mut facts, id, input).unwrap())
}

fn plan_with(facts: &mut Facts, id: &str, input: Value) -> Result<Run, PlanError> {
    let names = RunNames { root: "/nonexistent/state".into(), id: format!("{id}-{}", std::process::id()) };
    let step: Arc<str> = "cgroup".into();
    let mut cx = Planning::new(facts, &names, step.clone(), None);
    let input: Input = serde_json::from_value(input).unwrap();
    let output = Create::plan(input, &mut cx)?;
    let effects = cx.effects;
    Ok(Run { names, step, effects, output, outcomes: Outcomes::default(), records: Vec::new() })
}

impl Run {
    fn with<T>(&mut self, k: usize, body: impl FnOnce(&PlannedEffect, &mut Cx) -> T) -> T {
        let Self { names, step, effects, outcomes, .. } = self;
        let (fds, output) = (&mut Fds::default(), &mut |_: Said| {});
        body(
            &effects[k],
            &mut Cx { run: names, step, effect: k as u32, outcomes, fds, site: None, outlives: false, output },
        )
    }

    /// Applies the first `count` effects, keeping records as a journal does.
    fn apply(&mut self, count: usize) -> Result<(), EffectError> {
        for k in 0..count.min(self.effects.len()) {
            let before = self.with(k, |planned, cx| planned.effect.before(cx))?;
            self.records.push(Record { before: before.clone(), ..Record::default() });
            let applied = self.with(k, |planned, cx| planned.effect.apply(&before, cx))?;
            let outcome = match applied {
                Applied::Done(outcome) => outcome,
                Applied::Pending(pending) => {
                    self.records[k].started = Some(pending.started());
                    self.with(k, |_, cx| block_on(pending, cx))?
                }
                Applied::Site { .. } | Applied::UndoRun => panic!("{} is no cgroup's", self.describe(k)),
            };
            let step = self.step.clone();
            self.outcomes.put(&step, k as u32, outcome.clone());
            self.records[k].outcome = Some(outcome);
        }
        Ok(())
    }

    fn undo(&mut self) -> Result<(), EffectError> {
        for k in (0..self.records.len()).rev() {
            let record = self.records[k].clone();
            self.with(k, |planned, cx| match planned.effect.undo(&record, cx)? {
                Undone::Done | Undone::Nothing | Undone::Kept => Ok(()),
                Undone::Pending(pending) => block_on(pending, cx).map(drop),
            })?;
        }
        Ok(())
    }

    fn describe(&self, k: usize) -> String {
        self.effects[k].effect.describe()
    }

    fn all(&self) -> Vec<String> {
        (0..self.effects.len()).map(|k| self.describe(k)).collect()
    }

    fn directories(&self) -> Vec<PathBuf> {
        let join = self.output.join.clone().unwrap();
        join.v1.into_iter().chain(join.v2).collect()
    }

    fn exist(&self) -> usize {
        self.directories().iter().filter(|at| at.exists()).count()
    }
}

fn make(directories: &[PathBuf]) {
    for at in directories {
        std::fs::create_dir(at).unwrap();
    }
}

fn remove(directories: &[PathBuf]) {
    for at in directories {
        std::fs::remove_dir(at).unwrap();
    }
}

/// A process in the cgroup, which ignores all signals that can be.
struct Member(Child);

impl Member {
    fn of(directories: &[PathBuf]) -> Self {
        let files: Vec<String> =
            directories.iter().map(|at| format!("echo 0 > {}/cgroup.procs", at.display())).collect();
        let script = format!("{}; trap '' TERM INT HUP; echo in; read forever", files.join("; "));
        let mut sh = Command::new("sh");
        sh.arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut member = Self(sh.spawn().unwrap());
        let mut line = [0_u8; 3];
        std::io::Read::read_exact(member.0.stdout.as_mut().unwrap(), &mut line).unwrap();
        member
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// The signal that ended it. Its standard input is still open, so it does not end by itself.
    fn killed_by(&mut self) -> Option<i32> {
        let open = self.0.stdin.take();
        let status = self.0.wait().unwrap();
        drop(open);
        status.signal()
    }
}

/// Whatever a failed assertion leaves behind.
impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.undo();
    }
}

#[test]
fn every_directory_is_made_and_taken_back_twice() {
    let Some(mut run) = plan("twice", json!({ "resources": { "pids": { "limit": 16 } } })) else { return };
    run.apply(usize::MAX).unwrap();
    assert_eq!(run.exist(), run.directories().len());
    let limit =
        std::fs::read_to_string(run.output.paths.get("pids").or(run.output.paths.get("")).unwrap().join("pids.max"));
    assert_eq!(limit.unwrap(), "16\n");
    run.undo().unwrap();
    run.undo().unwrap();
    assert_eq!(run.exist(), 0);
}

#[test]
fn a_crash_after_any_effect_leaves_nothing() {
    let Some(whole) = plan("crash", json!({ "resources": { "pids": { "limit": 16 } } })) else { return };
    for cut in 1..=whole.effects.len() {
        for recorded in [true, false] {
            let mut run = plan("crash", json!({ "resources": { "pids": { "limit": 16 } } })).unwrap();
            run.apply(cut).unwrap();
            if !recorded {
                run.records[cut - 1].outcome = None;
                run.records[cut - 1].started = None;
            }
            run.undo().unwrap();
            assert_eq!(run.exist(), 0, "cut after {}", run.describe(cut - 1));
        }
    }
}

#[test]
fn what_is_left_in_the_cgroup_is_killed_with_the_cgroups_it_made() {
    let Some(mut run) = plan("kill", json!({})) else { return };
    run.apply(usize::MAX).unwrap();
    let inner: Vec<PathBuf> = run.directories().iter().map(|at| at.join("inner")).collect();
    make(&inner);
    // A cpuset is born empty, and nobody can be in it.
    let able: Vec<PathBuf> = inner.iter().filter(|at| !at.join("cpuset.cpus").exists()).cloned().collect();
    let mut member = Member::of(&able);
    run.undo().unwrap();
    assert_eq!(run.exist(), 0);
    assert_eq!(member.killed_by(), Some(9));
}

#[test]
fn a_frozen_member_is_killed_too() {
    let Some(mut run) = plan("frozen", json!({})) else { return };
    run.apply(usize::MAX).unwrap();
    let mut member = Member::of(&run.directories());
    for (file, word) in [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")] {
        let file = run.directories().iter().map(|at| at.join(file)).find(|file| file.exists());
        file.map_or(Ok(()), |file| std::fs::write(file, word)).unwrap();
    }
    run.undo().unwrap();
    assert_eq!(run.exist(), 0);
    assert_eq!(member.killed_by(), Some(9));
}

#[test]
fn parents_go_with_the_last_run_that_uses_them() {
    let path = |name: &str| format!("/lifecycle-test-{}-shared/a/{name}", std::process::id());
    let Some(mut first) = plan("first", json!({ "path": path("first") })) else { return };
    let mut second = plan("second", json!({ "path": path("second") })).unwrap();
    first.apply(usize::MAX).unwrap();
    second.apply(usize::MAX).unwrap();
    first.undo().unwrap();
    assert_eq!((first.exist(), second.exist()), (0, second.directories().len()));
    second.undo().unwrap();
    for at in second.directories() {
        assert!(!at.ancestors().nth(2).unwrap().exists(), "{}", at.display());
    }
}

/// Where the kernel divides real time, and the caller may.
fn divides_realtime() -> bool {
    let layout: CgroupLayout = Facts::live(Box::new(Machine)).get("cgroup.layout").unwrap();
    layout.writable() && layout.v1_of("cpu").is_some_and(|cpu| cpu.mount.join("cpu.rt_runtime_us").exists())
}

#[test]
fn parents_have_the_real_time_that_is_asked_for_as_long_as_it_is() {
    if !divides_realtime() {
        return;
    }
    let asks = |name: &str, runtime: u32| {
        let path = format!("/lifecycle-test-{}-realtime/a/{name}", std::process::id());
        plan(name, json!({ "path": path, "resources": { "cpu": { "realtimeRuntime": runtime } } })).unwrap()
    };
    let has = |run: &Run, above: usize| {
        let at = run.output.paths["cpu"].ancestors().nth(above).unwrap().join("cpu.rt_runtime_us");
        std::fs::read_to_string(at).unwrap().trim().parse::<u32>().unwrap()
    };
    let (mut first, mut second) = (asks("first", 1000), asks("second", 2000));
    first.apply(usize::MAX).unwrap();
    second.apply(usize::MAX).unwrap();
    assert_eq!([has(&first, 0), has(&second, 0), has(&first, 1), has(&first, 2)], [1000, 2000, 3000, 3000]);
    // One that was cut off before its limits were written takes no more back than it gave.
    let mut cut = asks("cut", 500);
    cut.apply(cut.effects.len() / 2).unwrap();
    cut.undo().unwrap();
    first.undo().unwrap();
    first.undo().unwrap();
    assert_eq!([has(&second, 1), has(&second, 2)], [2000, 2000]);
    second.undo().unwrap();
    assert!(!second.output.paths["cpu"].ancestors().nth(2).unwrap().exists());
}

#[test]
fn more_real_time_than_is_above_is_refused() {
    let layout = json!({ "mode": "v1", "v1": [{ "controllers": ["cpu"], "mount": "/cg/cpu", "writable": true }] });
    let plan = |runtime: u64| {
        let mut given = lifecycle_engine::facts::Recorded::default();
        given.host.insert("cgroup.layout".into(), layout.clone());
        let above = json!({ "at": "/cg/cpu/box", "runtime": 1000, "period": 1_000_000 });
        given.host.insert("cgroup.realtime:/cg/cpu/box/a/b".into(), above);
        let resources = json!({ "cpu": { "realtimeRuntime": runtime, "realtimePeriod": 500_000 } });
        plan_with(&mut Facts::fixed(given), "above", json!({ "path": "/box/a/b", "resources": resources }))
    };
    let planned = plan(500).unwrap();
    let made = "make the cgroup /cg/cpu/box/a/b, its parents with 500 µs of real time for it";
    assert_eq!(planned.all()[0], made);
    let error = plan(501).err().unwrap();
    assert_eq!(error.field, "resources.cpu.realtimeRuntime");
    assert!(error.message.contains("/cg/cpu/box above has 1000"), "{error}");
}

#[test]
fn a_parent_that_was_there_before_stays() {
    let path = format!("/lifecycle-test-{}-theirs", std::process::id());
    let Some(mut run) = plan("guest", json!({ "path": format!("{path}/a/b") })) else { return };
    let tops: Vec<PathBuf> = run.directories().iter().map(|at| at.ancestors().nth(2).unwrap().to_owned()).collect();
    make(&tops);
    run.apply(usize::MAX).unwrap();
    run.undo().unwrap();
    for top in tops {
        let cpus = std::fs::read_to_string(top.join("cpuset.cpus")).unwrap_or_default();
        let inner = top.join("a").exists();
        std::fs::remove_dir(&top).unwrap();
        assert!(!inner);
        assert!(!top.starts_with("/sys/fs/cgroup/cpuset") || cpus == "\n", "{cpus}");
    }
}

#[test]
fn an_empty_cgroup_that_was_there_before_gets_its_limits_back() {
    let path = format!("/lifecycle-test-{}-before", std::process::id());
    let Some(mut run) = plan("before", json!({ "path": path, "resources": { "pids": { "limit": 16 } } })) else {
        return;
    };
    make(&run.directories());
    let paths = &run.output.paths;
    let pids = paths.get("pids").or(paths.get("")).unwrap().join("pids.max");
    let devices = paths.get("devices").map(|at| at.join("devices.list"));
    let allowed = |file: &PathBuf| std::fs::read_to_string(file).unwrap();
    run.apply(usize::MAX).unwrap();
    assert_eq!(allowed(&pids), "16\n");
    run.undo().unwrap();
    let (limit, rules) = (allowed(&pids), devices.as_ref().map(allowed));
    remove(&run.directories());
    assert_eq!(limit, "max\n");
    assert!(rules.is_none_or(|rules| rules == "a *:* rwm\n"));
}

#[test]
fn a_controller_is_enabled_as_long_as_a_run_needs_it() {
    let layout: CgroupLayout = Facts::live(Box::new(Machine)).get("cgroup.layout").unwrap();
    let limits = [
        ("pids", json!({ "pids": { "limit": 16 } })),
        ("hugetlb", json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] })),
    ];
    let available = |name: &str| layout.v2_of(name).is_some() && layout.v1_of(name).is_none();
    let Some((name, limit)) = limits.into_iter().find(|(name, _)| available(name)) else { return };
    let path = format!("/lifecycle-test-{}-enable", std::process::id());
    let input = |leaf: &str| json!({ "path": format!("{path}/{leaf}"), "resources": limit });
    let Some(mut first) = plan("enable-1", input("a")) else { return };
    let mut second = plan("enable-2", input("b")).unwrap();
    let theirs = layout.v2.unwrap().mount.join(&path[1..]);
    make(std::slice::from_ref(&theirs));
    let enabled = || std::fs::read_to_string(theirs.join("cgroup.subtree_control")).unwrap().contains(name);
    let before = enabled();
    first.apply(usize::MAX).unwrap();
    second.apply(usize::MAX).unwrap();
    first.undo().unwrap();
    let meanwhile = enabled();
    second.undo().unwrap();
    let after = enabled();
    remove(&[theirs]);
    assert_eq!((before, meanwhile, after), (false, true, false));
}

#[test]
fn a_cgroup_in_use_is_refused_and_left_alone() {
    let path = format!("/lifecycle-test-{}-used", std::process::id());
    let Some(mut first) = plan("user", json!({ "path": path })) else { return };
    first.apply(usize::MAX).unwrap();
    let mut member = Member::of(&first.directories());
    let mut second = plan("intruder", json!({ "path": path })).unwrap();
    let error = second.apply(usize::MAX).unwrap_err();
    assert!(error.what.contains(&format!("is not empty; in it: {}", member.0.id())), "{error}");
    second.undo().unwrap();
    assert!(member.lives());
    assert_eq!(first.exist(), first.directories().len());
    first.undo().unwrap();
    assert_eq!(member.killed_by(), Some(9));
    assert_eq!(first.exist(), 0);
}

#[test]
fn another_cgroup_of_the_same_name_is_not_ours() {
    let Some(mut run) = plan("twin", json!({})) else { return };
    run.apply(usize::MAX).unwrap();
    for at in run.directories() {
        std::fs::remove_dir(&at).unwrap();
        // With its parent: the run of another test may have been the last one in it.
        std::fs::create_dir_all(&at).unwrap();
    }
    run.undo().unwrap();
    let left = run.exist();
    remove(&run.directories());
    // The top directory is ours by its name, and was busy until now.
    run.undo().unwrap();
    assert_eq!(left, run.directories().len());
}

#[test]
fn rules_allow_the_default_devices_alone() {
    let deny = json!({ "resources": { "devices": [{ "allow": false, "access": "rwm" }] } });
    let Some(mut run) = plan("devices", deny) else { return };
    run.apply(usize::MAX).unwrap();
    let join: Vec<String> =
        run.directories().iter().map(|at| format!("echo 0 > {}/cgroup.procs", at.display())).collect();
    let node = std::env::temp_dir().join(format!("lifecycle-test-{}-mem", std::process::id()));
    // /dev/mem, which a machine may lack as a file but never as a number.
    let script = format!(
        "{}; mknod {n} c 1 1 || exit 3; head -c 1 {n} >/dev/null 2>&1 && exit 4; head -c 1 /dev/zero >/dev/null",
        join.join("; "),
        n = node.display()
    );
    let status = Command::new("sh").arg("-c").arg(script).status().unwrap();
    std::fs::remove_file(&node).unwrap();
    run.undo().unwrap();
    assert_eq!(status.code(), Some(0));
}

/// A machine whose hierarchies are all of version 2.
fn version_2() -> Facts {
    let unified = json!({
        "mode": "v2",
        "v2": { "controllers": ["cpuset", "cpu", "io", "memory", "pids"], "mount": "/sys/fs/cgroup", "writable": true }
    });
    facts(unified)
}

fn facts(layout: Value) -> Facts {
    let mut given = lifecycle_engine::facts::Recorded::default();
    given.host.insert("cgroup.layout".into(), layout);
    given.host.insert("caps.effective".into(), json!(["CAP_SYS_ADMIN"]));
    Facts::fixed(given)
}

#[test]
fn a_dry_run_names_every_file_and_value() {
    let input = json!({
        "path": "/box/web",
        "resources": {
            "memory": { "limit": 100, "swap": 150, "reservation": 50 },
            "cpu": { "shares": 1024, "quota": 20000, "cpus": "0-1" },
            "pids": { "limit": -1 },
            "blockIO": { "weight": 500, "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1000 }] },
            "unified": { "memory.high": "80" }
        }
    });
    let run = plan_with(&mut version_2(), "dry", input).unwrap();
    let lines = run.all();
    let expected = [
        "make the cgroup /sys/fs/cgroup/box/web",
        "write +cpu +cpuset +io +memory +pids to /sys/fs/cgroup/cgroup.subtree_control",
        "write +cpu +cpuset +io +memory +pids to /sys/fs/cgroup/box/cgroup.subtree_control",
        "write 50 to /sys/fs/cgroup/box/web/memory.swap.max",
        "write 100 to /sys/fs/cgroup/box/web/memory.max",
        "write 50 to /sys/fs/cgroup/box/web/memory.low",
        "write 100 to /sys/fs/cgroup/box/web/cpu.weight",
        "write 20000 to /sys/fs/cgroup/box/web/cpu.max",
        "write 0-1 to /sys/fs/cgroup/box/web/cpuset.cpus",
        "write max to /sys/fs/cgroup/box/web/pids.max",
        "write 500 to /sys/fs/cgroup/box/web/io.bfq.weight (or 4950 to io.weight)",
        "write 8:0 rbps=1000 to /sys/fs/cgroup/box/web/io.max",
        "write 80 to /sys/fs/cgroup/box/web/memory.high",
    ];
    let without_devices: Vec<&str> = lines.iter().map(String::as_str).filter(|l| !l.starts_with("attach")).collect();
    assert_eq!(without_devices, expected);
    assert!(lines.iter().any(|line| line.starts_with("attach device rules to /sys/fs/cgroup/box/web: deny all but")));
}

#[test]
fn a_limit_that_the_host_cannot_keep_is_refused_by_name() {
    for (resources, field) in [
        (json!({ "rdma": { "mlx5": { "hcaHandles": 1 } } }), "resources.rdma"),
        (json!({ "network": { "classID": 1 } }), "resources.network.classID"),
        (json!({ "memory": { "swappiness": 10 } }), "resources.memory.swappiness"),
        (json!({ "cpu": { "realtimeRuntime": 10 } }), "resources.cpu.realtimeRuntime"),
        (json!({ "unified": { "hugetlb.2MB.max": "0" } }), "resources.unified.hugetlb.2MB.max"),
        (json!({ "unified": { "../x": "0" } }), "resources.unified.../x"),
        (json!({ "unified": { "cgroup.procs": "1" } }), "resources.unified.cgroup.procs"),
    ] {
        let error = plan_with(&mut version_2(), "refused", json!({ "resources": resources })).err().expect(field);
        assert_eq!(error.field, field, "{error}");
    }
}

#[test]
fn limits_of_two_versions_side_by_side_go_to_the_hierarchy_that_has_them() {
    let layout = json!({
        "mode": "hybrid",
        "v1": [
            { "controllers": ["freezer"], "mount": "/cg/freezer", "writable": true },
            { "controllers": ["pids"], "mount": "/cg/pids", "writable": true }
        ],
        "v2": { "controllers": ["hugetlb"], "mount": "/cg/unified", "writable": true }
    });
    let mut facts = facts(layout);
    let input = json!({
        "path": "/a",
        "resources": { "pids": { "limit": 3 }, "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] }
    });
    let run = plan_with(&mut facts, "hybrid", input).unwrap();
    let expected = [
        "make the cgroup /cg/unified/a",
        "make the cgroup /cg/pids/a",
        "make the cgroup /cg/freezer/a",
        "write +hugetlb to /cg/unified/cgroup.subtree_control",
        "write 3 to /cg/pids/a/pids.max",
        "write 0 to /cg/unified/a/hugetlb.2MB.max",
        "write 0 to /cg/unified/a/hugetlb.2MB.rsvd.max, if the kernel has it",
    ];
    let lines = run.all();
    assert_eq!(lines.iter().filter(|line| !line.starts_with("attach")).collect::<Vec<_>>(), expected);
    assert_eq!(run.output.join.clone().unwrap().v2.as_deref(), Some(Path::new("/cg/unified/a")));
}
