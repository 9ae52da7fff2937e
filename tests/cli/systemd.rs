//! systemd's cgroup driver: containers as scopes. Only where systemd is the first process, as in the guest (`tests/guest/run -i systemd`): a lab
//! has process ids of its own, which mean nothing to systemd, so these tests have no lab and share the machine.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lifecycle_tests::PATIENCE;
use lifecycle_tests::bundle::{Bundle, rootless_spec};
use lifecycle_tests::harness::{Need, Test, TestResult, note};
use lifecycle_tests::killer::{Ending, run_killed_at, run_within};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use lifecycle_tests::rounds::{Sample, places};
use serde_json::{Value, json};

use crate::scene::{self, NOBODY, Scene};

/// All of them.
pub fn tests() -> Vec<Test> {
    let there = Path::new("/run/systemd/system").is_dir() && rustix::process::getuid().is_root();
    let systemd = Need::Other(there, "root, and systemd as the machine's first process");
    let tests = lifecycle_tests::tests![
        a_container_is_a_scope_in_nested_slices,
        limits_are_in_systemd_and_in_the_cgroups_files,
        only_the_devices_of_a_container_can_be_used,
        annotations_set_properties_of_the_scope,
        an_images_annotations_reach_no_other_unit_and_no_limit,
        what_is_below_the_scope_is_the_containers,
        a_unit_that_is_there_already_is_refused_by_name,
        what_a_path_cannot_be_is_refused_while_planning,
        a_paused_container_is_deleted_with_its_scope,
        an_ordinary_user_has_scopes_of_his_own_systemd,
        a_bus_passes_on_what_systemd_is_asked,
        a_crash_at_any_point_leaves_no_unit_and_no_cgroup,
    ];
    let tests = [tests, crate::systemd_slices::tests(), crate::systemd_oci::tests()].concat();
    // In a guest whose processor is emulated everything takes its time.
    let named = tests.into_iter().map(|test| test.within("systemd").needs(&[systemd]).limit(Duration::from_secs(600)));
    named.collect()
}

/// A bundle whose cgroup is a scope in a slice in a slice.
pub(crate) struct Scope<'a> {
    pub(crate) scene: Scene<'a>,
    pub(crate) bundle: Bundle,
    pub(crate) id: String,
    pub(crate) slice: String,
    pub(crate) unit: String,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        // A container that a failed test has left goes with it.
        self.stop_slice();
    }
}

impl<'a> Scope<'a> {
    /// Changes the configuration, which the test is to leave as it is then.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) -> TestResult {
        self.bundle.edit(change)?;
        Ok(self.scene.begins_here()?)
    }

    /// There may be none.
    pub(crate) fn stop_slice(&self) {
        let _ = program::quiet("systemctl", &["stop", &self.outer()]);
    }

    /// The slice that has the slice.
    pub(crate) fn outer(&self) -> String {
        self.slice.replace("-inner", "")
    }

    pub(crate) fn new(lab: &'a Lab, arguments: &[&str]) -> lifecycle_tests::Result<Self> {
        let mut scene = Scene::new(lab)?;
        let bundle = Bundle::create(lab.dir().join("bundle"))?;
        bundle.runs(arguments)?;
        let token = lab.token();
        // A slice in a slice, of names that no other test's are below.
        let slice = format!("{}-inner.slice", token.replace('-', "_"));
        bundle.in_cgroup(&format!("{slice}:lifecycle:{token}"))?;
        scene.begins_here()?;
        let unit = format!("lifecycle-{token}.scope");
        Ok(Self { scene, bundle, id: format!("{token}-c1"), slice, unit })
    }

    pub(crate) fn words(&self, plan: &str) -> Vec<String> {
        let id = format!("id={}", self.id);
        ["run", plan, "-p", &id, "-p", "bundle=bundle", "-p", "systemd_cgroup=true"].map(String::from).into()
    }

    pub(crate) fn create(&self) {
        self.scene.told(&[self.words("oci/create"), vec!["--keep".into()]].concat()).ended(0);
    }

    pub(crate) fn delete(&self) {
        let id = format!("id={}", self.id);
        self.scene.told(&["run", "oci/delete", "-p", &id, "-p", "force=true"]).ended(0);
    }

    fn state(&self) -> Result<Value, Box<dyn std::error::Error>> {
        let file = program_root(&self.scene).join(&self.id).join("state.json");
        Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
    }

    /// A property of the scope, as systemd shows it.
    pub(crate) fn shows(&self, property: &str) -> lifecycle_tests::Result<String> {
        self::property(&self.unit, property)
    }

    /// The scope's directory in the hierarchy that has the controller.
    fn cgroup(&self, controller: &str) -> lifecycle_tests::Result<PathBuf> {
        let group = self.shows("ControlGroup")?;
        let top = Path::new("/sys/fs/cgroup");
        let top = if is_unified() { top.to_owned() } else { top.join(controller) };
        Ok(top.join(group.trim_start_matches('/')))
    }

    /// What a file of the scope's cgroup says.
    pub(crate) fn file(&self, controller: &str, file: &str) -> Result<String, Box<dyn std::error::Error>> {
        let path = self.cgroup(controller)?.join(file);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// Fails unless systemd has no unit of this test's any more, and the machine is as it was.
    pub(crate) fn nothing_left(&self) -> TestResult {
        self.no_units_left()?;
        for hierarchy in hierarchies()? {
            assert!(!hierarchy.join(self.outer()).exists(), "the slice's cgroup in {}", hierarchy.display());
        }
        Ok(self.scene.nothing_left()?)
    }

    fn no_units_left(&self) -> TestResult {
        let stem = self.outer().replace(".slice", "");
        let is_ours = |name: &str| name == self.unit || name.starts_with(&stem);
        let until = Instant::now() + PATIENCE;
        loop {
            let units: Vec<String> = units()?.into_iter().filter(|name| is_ours(name)).collect();
            if units.is_empty() {
                return Ok(());
            }
            assert!(Instant::now() < until, "systemd still has {units:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The words that make another container of the same bundle, with this cgroup.
    pub(crate) fn another(&self, id: &str, path: &str) -> lifecycle_tests::Result<Vec<String>> {
        self.bundle.in_cgroup(path)?;
        let words = self.words("oci/create");
        Ok(words.into_iter().map(|word| word.replace(&self.id, id)).chain(["--keep".into()]).collect())
    }
}

fn program_root(scene: &Scene) -> PathBuf {
    let command = scene.command(&["runs"]);
    let mut words = command.get_args().skip_while(|word| *word != "--root");
    words.nth(1).map(PathBuf::from).unwrap_or_default()
}

/// Whether the unified hierarchy is the only one.
pub(crate) fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// All units that are loaded, in whatever state.
fn units() -> lifecycle_tests::Result<Vec<String>> {
    let all = program::output("systemctl", &["list-units", "--all", "--plain", "--no-legend", "--no-pager"])?;
    Ok(all.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

/// A property of any unit.
pub(crate) fn property(unit: &str, property: &str) -> lifecycle_tests::Result<String> {
    let text = program::output("systemctl", &["show", "--value", "-p", property, unit])?;
    Ok(text.trim().to_owned())
}

/// Where hierarchies are mounted.
fn hierarchies() -> std::io::Result<Vec<PathBuf>> {
    let top = Path::new("/sys/fs/cgroup");
    if is_unified() {
        return Ok(vec![top.to_owned()]);
    }
    fs::read_dir(top)?.map(|entry| Ok(entry?.path())).collect()
}

fn a_container_is_a_scope_in_nested_slices(lab: &Lab) -> TestResult {
    let container = Scope::new(lab, &["sleep", "60"])?;
    container.create();
    assert_eq!(container.shows("ActiveState")?, "active");
    assert_eq!(container.shows("Slice")?, container.slice);
    let group = container.shows("ControlGroup")?;
    let outer = container.slice.replace("-inner", "");
    assert_eq!(group, format!("/{outer}/{}/{}", container.slice, container.unit));
    assert_eq!(container.shows("Delegate")?, "yes");
    assert_eq!(container.shows("DefaultDependencies")?, "no");
    assert_eq!(container.shows("CollectMode")?, "inactive-or-failed");
    for accounting in ["CPUAccounting", "MemoryAccounting", "TasksAccounting"] {
        assert_eq!(container.shows(accounting)?, "yes", "{accounting}");
    }
    // In every hierarchy, those too that systemd leaves alone.
    let pid = container.state()?["pid"].to_string();
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    for line in own.lines().filter(|line| !line.starts_with("0::/\n")) {
        let named = line.split(':').nth(1).unwrap_or_default();
        let is_beside = named.is_empty() && !is_unified();
        assert!(is_beside || line.ends_with(&group), "{line} is not {group}");
    }
    let started = container.scene.told(&["run", "oci/start", "-p", &format!("id={}", container.id), "--keep"]);
    started.ended(0);
    assert_eq!(container.state()?["status"], "running");
    container.delete();
    container.nothing_left()
}

fn limits_are_in_systemd_and_in_the_cgroups_files(lab: &Lab) -> TestResult {
    let mut container = Scope::new(lab, &["sleep", "60"])?;
    container.edit(|config| {
        let resources = &mut config["linux"]["resources"];
        resources["memory"] = json!({ "limit": 67_108_864, "reservation": 33_554_432 });
        resources["cpu"] = json!({ "shares": 512, "quota": 12_345, "period": 50_000, "cpus": "0" });
        resources["pids"] = json!({ "limit": 17 });
    })?;
    container.create();
    assert_eq!(container.shows("TasksMax")?, "17");
    assert_eq!(container.file("pids", "pids.max")?, "17");
    // A quarter of a processor, rounded up to a hundredth; the file has it exactly.
    assert_eq!(container.shows("CPUQuotaPerSecUSec")?, "250ms");
    assert_eq!(container.shows("CPUQuotaPeriodUSec")?, "50ms");
    if is_unified() {
        assert_eq!(container.shows("MemoryMax")?, "67108864");
        assert_eq!(container.shows("MemoryLow")?, "33554432");
        assert_eq!(container.shows("CPUWeight")?, container.file("cpu", "cpu.weight")?);
        assert_eq!(container.shows("AllowedCPUs")?, "0");
        assert_eq!(container.file("cpu", "cpu.max")?, "12345 50000");
        assert_eq!(container.file("memory", "memory.max")?, "67108864");
        assert_eq!(container.file("memory", "memory.low")?, "33554432");
        assert_eq!(container.file("cpuset", "cpuset.cpus")?, "0");
    } else {
        assert_eq!(container.shows("MemoryLimit")?, "67108864");
        assert_eq!(container.shows("CPUShares")?, "512");
        assert_eq!(container.file("memory", "memory.limit_in_bytes")?, "67108864");
        assert_eq!(container.file("memory", "memory.soft_limit_in_bytes")?, "33554432");
        assert_eq!(container.file("cpu", "cpu.cfs_quota_us")?, "12345");
        assert_eq!(container.file("cpuset", "cpuset.cpus")?, "0");
    }
    // What systemd applies when it reads everything again is the same.
    program::quiet("systemctl", &["daemon-reload"])?;
    assert_eq!(container.file("pids", "pids.max")?, "17");
    container.delete();
    // The same name again, after that.
    container.create();
    assert_eq!(container.shows("TasksMax")?, "17");
    container.delete();
    container.nothing_left()
}

fn only_the_devices_of_a_container_can_be_used(lab: &Lab) -> TestResult {
    let script = "echo to null > /dev/null && echo null; mknod /dev/fuse c 10 229; mknod /dev/tun c 10 200; \
        : < /dev/fuse && echo allowed; (: < /dev/tun) 2>&1";
    let mut container = Scope::new(lab, &["sh", "-c", script])?;
    container.edit(|config| {
        config["linux"]["resources"]["devices"] = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
        ]);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
        }
        config["process"]["capabilities"]["ambient"] = json!([]);
    })?;
    let told = container.scene.told(&container.words("oci/run"));
    let lines: Vec<&str> = told.out.lines().collect();
    assert_eq!(lines[..2.min(lines.len())], ["null", "allowed"], "{}{}", told.out, told.err);
    assert!(told.out.contains("Operation not permitted"), "{}{}", told.out, told.err);
    container.create();
    assert_eq!(container.shows("DevicePolicy")?, "strict");
    assert!(container.shows("DeviceAllow")?.contains("/dev/char/10:229 rw"), "{}", container.shows("DeviceAllow")?);
    container.delete();
    container.nothing_left()
}

fn annotations_set_properties_of_the_scope(lab: &Lab) -> TestResult {
    let mut container = Scope::new(lab, &["true"])?;
    container.edit(|config| {
        config["annotations"] = json!({
            "org.systemd.property.Description": "'a web server'",
            "org.systemd.property.TimeoutStopSec": "uint64 7",
            "org.systemd.property.CollectMode": "'inactive'",
        });
        config["linux"]["resources"]["pids"] = json!({ "limit": 99 });
    })?;
    container.create();
    assert_eq!(container.shows("Description")?, "a web server");
    assert_eq!(container.shows("TimeoutStopUSec")?, "7s");
    assert_eq!(container.shows("CollectMode")?, "inactive");
    assert_eq!(container.shows("TasksMax")?, "99");
    container.delete();
    container.edit(|config| {
        config["annotations"] = json!({ "org.systemd.property.TimeoutStopSec": "seven" });
    })?;
    container
        .scene
        .told(&container.words("oci/run"))
        .ended(125)
        .says(&["org.systemd.property.TimeoutStopSec", "seven"]);
    container.nothing_left()
}

/// podman puts an image's annotations among the config's: by them it has stopped a service of the host and undone its own limits.
fn an_images_annotations_reach_no_other_unit_and_no_limit(lab: &Lab) -> TestResult {
    let mut container = Scope::new(lab, &["sleep", "600"])?;
    let victim = format!("victim-{}.service", lab.token());
    // By its default dependencies it would have the system's own mounts made, on the tests' files.
    let alone = "--property=DefaultDependencies=no";
    program::quiet("systemd-run", &["--quiet", alone, &format!("--unit={victim}"), "sleep", "600"])?;
    let hostile = [
        ("Conflicts", format!("['{victim}']")),
        ("TasksMax", "uint64 18446744073709551615".to_owned()),
        ("DevicePolicy", "'auto'".to_owned()),
        ("FailureAction", "'reboot-force'".to_owned()),
        ("Description", format!("'x\\nConflicts={victim}'")),
    ];
    for (name, value) in hostile {
        container.edit(|config| {
            config["linux"]["resources"]["pids"] = json!({ "limit": 99 });
            config["annotations"] = json!({ format!("org.systemd.property.{name}"): value });
        })?;
        container.scene.told(&container.words("oci/run")).ended(125).says(&[&format!("org.systemd.property.{name}")]);
        assert_eq!(property(&victim, "ActiveState")?, "active", "{name}");
        assert_eq!(container.shows("ActiveState")?, "inactive", "{name}");
    }
    container.nothing_left()?;
    Ok(program::quiet("systemctl", &["stop", &victim])?)
}

fn what_is_below_the_scope_is_the_containers(lab: &Lab) -> TestResult {
    let script = "cd /sys/fs/cgroup && mkdir inner && echo 0 > inner/cgroup.procs && echo +pids > cgroup.subtree_control \
        && echo 5 > inner/pids.max && cat inner/pids.max";
    let mut container = Scope::new(lab, &["sh", "-c", script])?;
    container.edit(|config| {
        let mounts = config["mounts"].as_array_mut();
        let cgroup = mounts.and_then(|all| all.iter_mut().find(|mount| mount["type"] == "cgroup"));
        if let Some(mount) = cgroup {
            mount["options"] = json!(["nosuid", "noexec", "nodev"]);
        }
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.push(json!({ "type": "cgroup" }));
        }
    })?;
    container.scene.told(&container.words("oci/run")).ended(0).prints(&["5\n"]);
    container.nothing_left()
}

fn a_unit_that_is_there_already_is_refused_by_name(lab: &Lab) -> TestResult {
    let container = Scope::new(lab, &["true"])?;
    let slice = format!("--slice={}", container.slice);
    let unit = format!("--unit={}", container.unit);
    let mut other = Command::new("systemd-run").args(["--scope", "--quiet", &slice, &unit, "sleep", "60"]).spawn()?;
    let until = Instant::now() + PATIENCE;
    while container.shows("ActiveState")? != "active" {
        assert!(Instant::now() < until, "systemd-run does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = container.scene.told(&container.words("oci/run")).ended(1);
    told.says(&["systemd has a unit", &container.unit, "already"]);
    container.scene.told(&["recover"]).ended(0);
    assert_eq!(container.shows("ActiveState")?, "active", "the other's unit was stopped");
    other.kill()?;
    other.wait()?;
    // It came with the other's.
    container.stop_slice();
    container.nothing_left()
}

fn what_a_path_cannot_be_is_refused_while_planning(lab: &Lab) -> TestResult {
    let mut container = Scope::new(lab, &["true"])?;
    container.edit(|config| config["linux"]["cgroupsPath"] = json!("/a/path"))?;
    container.scene.told(&container.words("oci/run")).ended(125).says(&["/a/path", "slice:prefix:name"]);
    container.nothing_left()
}

fn a_paused_container_is_deleted_with_its_scope(lab: &Lab) -> TestResult {
    let container = Scope::new(lab, &["sleep", "60"])?;
    container.create();
    if is_unified() {
        fs::write(container.cgroup("")?.join("cgroup.freeze"), "1")?;
    } else {
        fs::write(container.cgroup("freezer")?.join("freezer.state"), "FROZEN")?;
    }
    container.scene.told(&["undo", &container.id]).ended(0);
    container.nothing_left()
}

/// How a program runs as an ordinary user whose runtime directory is this.
fn as_user(command: &mut Command, runtime: &Path) -> scene::Told {
    command.env("XDG_RUNTIME_DIR", runtime).env_remove("DBUS_SESSION_BUS_ADDRESS");
    scene::told(scene::as_nobody(command))
}

/// As somebody who has logged in by a way that leaves him outside of his systemd's cgroup: he may move nothing himself.
fn an_ordinary_user_has_scopes_of_his_own_systemd(lab: &Lab) -> TestResult {
    let container = Scope::new(lab, &["cat", "/proc/self/cgroup"])?;
    if !is_unified() {
        return Ok(());
    }
    let runtime = lab.dir().join("runtime");
    fs::create_dir(&runtime)?;
    for path in [&runtime, &container.bundle.rootfs()] {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    let unit = format!("--unit=manager-{}", lab.token());
    let environment = format!("--setenv=XDG_RUNTIME_DIR={}", runtime.display());
    let ids = [format!("--uid={NOBODY}"), format!("--gid={NOBODY}")];
    let service = [
        "--quiet",
        "--property=Type=notify",
        "--property=Delegate=yes",
        "--property=DefaultDependencies=no",
        &unit,
        &environment,
        &ids[0],
        &ids[1],
    ];
    program::quiet("systemd-run", &[&service[..], &["/lib/systemd/systemd", "--user", "--unit=-.slice"]].concat())?;
    container.bundle.edit(|config| {
        *config = rootless_spec();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["cat", "/proc/self/cgroup"]);
        config["linux"]["resources"] = json!({ "pids": { "limit": 17 } });
        config["linux"]["cgroupsPath"] = json!(format!(":lifecycle:{}", lab.token()));
        for mappings in ["uidMappings", "gidMappings"] {
            config["linux"][mappings][0]["hostID"] = json!(NOBODY);
        }
    })?;
    let mut command = Command::new(program::lifecycle()?);
    command.args(container.words("oci/run")).current_dir(lab.dir());
    let told = as_user(&mut command, &runtime).ended(0);
    let group = format!("/manager-{}.service/user.slice/{}\n", lab.token(), container.unit);
    assert!(told.out.ends_with(&group), "{}{}", told.out, told.err);
    program::quiet("systemctl", &["stop", &format!("manager-{}.service", lab.token())])?;
    Ok(())
}

/// Where the way straight to systemd is closed.
fn a_bus_passes_on_what_systemd_is_asked(lab: &Lab) -> TestResult {
    let container = Scope::new(lab, &["true"])?;
    let (direct, aside) = ("/run/systemd/private", "/run/systemd/aside");
    fs::rename(direct, aside)?;
    let told = container.scene.told(&[container.words("oci/create"), vec!["--keep".into()]].concat());
    fs::rename(aside, direct)?;
    told.ended(0).says(&["/run/dbus/system_bus_socket"]);
    assert_eq!(container.shows("ActiveState")?, "active");
    container.delete();
    container.nothing_left()
}

/// How many kills, where not all are asked for.
pub(crate) const KILLS: usize = 6;

fn a_crash_at_any_point_leaves_no_unit_and_no_cgroup(lab: &Lab) -> TestResult {
    let container = Scope::new(lab, &["true"])?;
    let command = || container.scene.command(&container.words("oci/run"));
    let whole = run_within(&mut command(), Duration::from_secs(120))?;
    assert_eq!(whole.ending, Ending::Exited(0), "{}{}", whole.stdout, whole.stderr);
    container.nothing_left()?;
    let all = places(whole.points);
    let possible = all.len();
    let chosen = Sample::from_environment(KILLS).choose(all);
    let tried = chosen.len();
    for kill in chosen {
        run_killed_at(&mut command(), &kill.point, kill.victim, kill.when)?;
        container.scene.told(&["recover"]).ended(0);
        container.nothing_left().map_err(|error| format!("with {kill}: {error}"))?;
    }
    note(format!("{tried} kills of {possible} possible"));
    Ok(())
}
