//! `lifecycle-oci --systemd-cgroup` and who calls it so. As in `systemd`, these tests share the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::{Test, TestResult, note};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use serde_json::{Value, json};

use crate::oci_scene::{command, eventually};
use crate::scene::{self, Told};
use crate::systemd::{Scope, is_unified};

/// All of them; `systemd` says what they need.
pub fn tests() -> Vec<Test> {
    lifecycle_tests::tests![
        oci_systemd_cgroup_carries_a_container_through_its_life,
        oci_systemd_cgroup_delete_force_stops_the_scope,
        oci_systemd_cgroup_restore_makes_the_scope_again,
        podman_with_systemd_as_its_cgroup_manager_as_with_runc,
    ]
}

/// A container of `lifecycle-oci --systemd-cgroup`.
struct Driven<'a> {
    scope: Scope<'a>,
    lab: &'a Lab,
}

impl<'a> Driven<'a> {
    fn new(lab: &'a Lab) -> Result<Self, Box<dyn std::error::Error>> {
        let mut scope = Scope::new(lab, &["sleep", "600"])?;
        scope.edit(|config| {
            config["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864 });
            config["linux"]["resources"]["pids"] = json!({ "limit": 17 });
        })?;
        Ok(Self { scope, lab })
    }

    /// A verb with words before the container's id and behind it.
    #[track_caller]
    fn told(&self, verb: &str, before: &[&str], behind: &[&str]) -> Told {
        let words = [&["--systemd-cgroup", verb], before, &[&self.scope.id], behind].concat();
        scene::told(command(self.lab).args(&words))
    }

    /// As `told`, for what says nothing where it succeeds.
    #[track_caller]
    fn silent(&self, verb: &str, before: &[&str]) {
        let told = self.told(verb, before, &[]).ended(0);
        assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""), "{verb}");
    }

    fn state(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_str(&self.told("state", &[], &[]).ended(0).out)
    }

    fn is(&self, status: &str) -> TestResult {
        assert_eq!(self.state()?["status"], status);
        Ok(())
    }

    /// Where the kernel says that a process is, in the hierarchy whose limits systemd sets.
    fn group_of(pid: &Value) -> Result<String, std::io::Error> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let wanted = |line: &&str| if is_unified() { line.starts_with("0::") } else { line.contains(":pids:") };
        Ok(text.lines().find(wanted).and_then(|line| line.splitn(3, ':').nth(2)).unwrap_or_default().to_owned())
    }
}

fn oci_systemd_cgroup_carries_a_container_through_its_life(lab: &Lab) -> TestResult {
    let driven = Driven::new(lab)?;
    let scope = &driven.scope;
    driven.silent("create", &["--bundle", "bundle", "--pid-file", "pid"]);
    driven.is("created")?;
    assert_eq!((scope.shows("ActiveState")?.as_str(), scope.shows("Slice")?), ("active", scope.slice.clone()));
    assert_eq!((scope.shows("TasksMax")?.as_str(), scope.file("pids", "pids.max")?.as_str()), ("17", "17"));
    let group = scope.shows("ControlGroup")?;
    assert!(group.ends_with(&format!("/{}/{}", scope.slice, scope.unit)), "{group}");
    let pid = driven.state()?["pid"].clone();
    assert_eq!(fs::read_to_string(lab.dir().join("pid"))?, pid.to_string());
    assert_eq!(Driven::group_of(&pid)?, group);
    driven.silent("start", &[]);
    driven.is("running")?;
    // What joins it is in its scope.
    let told = driven.told("exec", &[], &["cat", "/proc/self/cgroup"]).ended(0);
    assert!(told.out.lines().any(|line| line.ends_with(&group)), "{}", told.out);
    driven.silent("update", &["--pids-limit", "33", "--memory", "134217728"]);
    assert_eq!((scope.shows("TasksMax")?.as_str(), scope.file("pids", "pids.max")?.as_str()), ("33", "33"));
    let (property, file) =
        if is_unified() { ("MemoryMax", "memory.max") } else { ("MemoryLimit", "memory.limit_in_bytes") };
    assert_eq!((scope.shows(property)?, scope.file("memory", file)?), ("134217728".into(), "134217728".into()));
    driven.silent("pause", &[]);
    driven.is("paused")?;
    let (controller, file, frozen) =
        if is_unified() { ("", "cgroup.freeze", "1") } else { ("freezer", "freezer.state", "FROZEN") };
    assert_eq!(scope.file(controller, file)?, frozen);
    driven.silent("resume", &[]);
    driven.is("running")?;
    driven.told("kill", &[], &["KILL"]).ended(0);
    eventually("its end", || Ok(driven.state().is_ok_and(|state| state["status"] == "stopped")))?;
    driven.silent("delete", &[]);
    driven.told("state", &[], &[]).ended(1).says(&["does not exist"]);
    fs::remove_file(lab.dir().join("pid"))?;
    scope.nothing_left()
}

fn oci_systemd_cgroup_delete_force_stops_the_scope(lab: &Lab) -> TestResult {
    let mut driven = Driven::new(lab)?;
    for (path, words) in [("/a/path", "slice:prefix:name"), ("no.such:x:y", ".slice")] {
        let good = format!("{}:lifecycle:{}", driven.scope.slice, lab.token());
        driven.scope.edit(|config| config["linux"]["cgroupsPath"] = json!(path))?;
        driven.told("create", &["--bundle", "bundle"], &[]).ended(1).says(&[words]);
        driven.scope.edit(|config| config["linux"]["cgroupsPath"] = json!(good))?;
    }
    driven.silent("run", &["--bundle", "bundle", "--detach"]);
    assert_eq!(driven.scope.shows("ActiveState")?, "active");
    driven.silent("delete", &["--force"]);
    driven.scope.nothing_left()
}

fn oci_systemd_cgroup_restore_makes_the_scope_again(lab: &Lab) -> TestResult {
    if program::find("criu").is_none() || program::output("criu", &["check"]).is_err() {
        note("no criu that works on this kernel");
        return Ok(());
    }
    let mut driven = Driven::new(lab)?;
    driven.scope.edit(|config| config["root"]["readonly"] = json!(false))?;
    // The tests' own output would be a file outside of the container, which criu does not save.
    let quiet = |words: &[&str]| {
        let mut command = command(lab);
        command.arg("--systemd-cgroup").args(words).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().map(|status| status.success())
    };
    let id = driven.scope.id.clone();
    assert!(quiet(&["run", "--bundle", "bundle", "--detach", &id])?);
    let image = ["--image-path", "image", "--work-path", "work"];
    driven.silent("checkpoint", &image);
    assert_eq!(driven.scope.shows("ActiveState")?, "inactive");
    driven.silent("restore", &[&image[..], &["--bundle", "bundle", "--detach"]].concat());
    driven.is("running")?;
    assert_eq!((driven.scope.shows("ActiveState")?, driven.scope.shows("TasksMax")?), ("active".into(), "17".into()));
    assert_eq!(driven.scope.file("pids", "pids.max")?, "17");
    let pid = driven.state()?["pid"].clone();
    assert_eq!(Driven::group_of(&pid)?, driven.scope.shows("ControlGroup")?);
    driven.silent("delete", &["--force"]);
    ["image", "work"].iter().try_for_each(|name| fs::remove_dir_all(lab.dir().join(name)))?;
    driven.scope.nothing_left()
}

/// podman with a runtime, in directories of its own.
struct Podman {
    base: PathBuf,
    conf: PathBuf,
}

impl Podman {
    fn new(lab: &Lab, name: &str, path: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let base = lab.dir().join("podman");
        fs::create_dir_all(base.join("tmp"))?;
        let text = format!(
            "[containers]\nlog_driver = \"k8s-file\"\n[engine]\ncgroup_manager = \"systemd\"\nevents_logger = \"file\"\n\
             runtime = \"{name}\"\nruntime_supports_json = [\"runc\", \"lifecycle-oci\"]\n[engine.runtimes]\n{name} = [\"{}\"]\n",
            path.display()
        );
        let conf = base.join(format!("{name}.conf"));
        fs::write(&conf, text)?;
        Ok(Self { base, conf })
    }

    #[track_caller]
    fn told(&self, arguments: &[&str]) -> Told {
        let mut command = Command::new("podman");
        for (option, dir) in [("--root", "root"), ("--runroot", "runroot"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.base.join(dir));
        }
        command.args(["--storage-driver", "vfs"]).args(arguments).stdin(Stdio::null());
        scene::told(command.env("CONTAINERS_CONF", &self.conf).env("TMPDIR", self.base.join("tmp")))
    }
}

/// What podman and systemd say of a container's life; the same with every runtime.
fn life(podman: &Podman, slice: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let parent = format!("--cgroup-parent={slice}");
    let run = |more: &[&str]| podman.told(&[&["run", "--network=none", &parent], more].concat());
    let mut said = Vec::new();
    let once = run(&["--rm", "box", "sh", "-c", "echo hello; exit 7"]);
    said.push(format!("{} {} {}", once.code, once.out, once.err));
    let made = run(&["-d", "--name", "c", "--memory=64m", "--pids-limit=33", "box", "sleep", "600"]).ended(0);
    let unit = format!("libpod-{}.scope", made.out.trim());
    for property in ["ActiveState", "Slice", "MemoryMax", "TasksMax", "Delegate"] {
        said.push(program::output("systemctl", &["show", "-p", property, &unit])?);
    }
    let look = "cd /sys/fs/cgroup; cat memory.max pids.max; wc -l < cgroup.procs; exit 3";
    let told = podman.told(&["exec", "c", "sh", "-c", look]);
    said.push(format!("{} {} {}", told.code, told.out, told.err));
    said.push(podman.told(&["stop", "-t", "1", "c"]).ended(0).out);
    said.push(podman.told(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "c"]).ended(0).out);
    podman.told(&["rm", "c"]).ended(0);
    let units = program::output("systemctl", &["list-units", "--all", "--plain", "--no-legend", "libpod-*"])?;
    assert!(!units.contains(&unit), "podman rm leaves {units}");
    Ok(said)
}

fn podman_with_systemd_as_its_cgroup_manager_as_with_runc(lab: &Lab) -> TestResult {
    let (Some(runc), true) = (program::find("runc"), program::find("podman").is_some() && is_unified()) else {
        note("no podman, no runc, or not cgroup v2");
        return Ok(());
    };
    let bundle = Bundle::create(lab.dir().join("image"))?;
    let image = lab.dir().join("image.tar");
    program::quiet("tar", &["-C", &bundle.rootfs().to_string_lossy(), "-cf", &image.to_string_lossy(), "."])?;
    let slice = format!("{}.slice", lab.token().replace('-', "_"));
    let mut lives = Vec::new();
    for (name, path) in [("runc", runc), ("lifecycle-oci", program::lifecycle_oci()?)] {
        let podman = Podman::new(lab, name, &path)?;
        if lives.is_empty() {
            podman.told(&["import", "--quiet", &image.to_string_lossy(), "box"]).ended(0);
        }
        lives.push(life(&podman, &slice)?);
    }
    assert_eq!(lives[1], lives[0], "with lifecycle-oci, and with runc");
    assert_eq!(lives[0][0], "7 hello\n ");
    program::quiet("systemctl", &["stop", &slice])?;
    let left: Vec<_> =
        fs::read_dir("/run/lifecycle").map_or_else(|_| Vec::new(), |entries| entries.flatten().collect());
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}
