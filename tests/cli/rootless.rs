//! Callers that may make no cgroup: an ordinary user, root of a user namespace, and root where the cgroups are read-only.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use lifecycle_tests::bundle::{Bundle, rootless_spec};
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::hierarchies;
use lifecycle_tests::program;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::oci_scene::eventually;
use crate::scene::{self, NOBODY, Scene, Told};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        oci_rootless_a_user_without_a_cgroup_is_warned_and_his_container_is_where_he_is,
        #[needs(Program("unshare"))]
        oci_rootless_without_a_log_the_warning_is_on_stderr,
        #[needs(Program("unshare"))]
        oci_rootless_what_needs_a_cgroup_is_refused_while_planning_by_its_field,
        #[needs(v1(), Program("unshare"))]
        oci_rootless_a_cgroup_below_one_that_was_handed_over_is_made_and_limited,
        oci_rootless_root_where_cgroups_are_read_only_has_to_ask_for_it,
        a_user_without_a_cgroup_is_warned_by_a_plan_too,
    ];
    tests.into_iter().map(|test| test.within("rootless").needs(&[Root, Program("busybox")])).collect()
}

/// An ordinary user may be given a part of version 2, and has a cgroup then: `delegated` looks at that.
pub fn v1() -> Need {
    let version_1 = hierarchies().unwrap_or_default().iter().any(|hierarchy| !hierarchy.unified);
    Need::Other(version_1, "a machine with cgroups of version 1")
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// Somebody who is not root.
    User,
    /// The same, root of a user namespace that he has made.
    Nested,
    /// The machine's own root.
    Root,
}

/// A bundle, and a directory for the caller's state.
struct Without<'a> {
    lab: &'a Lab,
    scene: Scene<'a>,
    bundle: Bundle,
    home: PathBuf,
    id: String,
}

impl<'a> Without<'a> {
    fn new(lab: &'a Lab, arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut scene = Scene::new(lab)?;
        let bundle = Bundle::create(lab.dir().join("bundle"))?;
        bundle.edit(|config| {
            *config = rootless_spec();
            config["process"]["terminal"] = json!(false);
            config["process"]["args"] = json!(arguments);
        })?;
        let home = lab.dir().join("home");
        fs::create_dir(&home)?;
        for path in [&home, &bundle.rootfs().clone()] {
            chown(path, Some(NOBODY), Some(NOBODY))?;
        }
        scene.begins_here()?;
        Ok(Self { lab, scene, bundle, home, id: format!("{}-c1", lab.token()) })
    }

    /// Changes the config; the container's root is the caller.
    fn edit(&mut self, caller: Caller, change: impl FnOnce(&mut Value)) -> TestResult {
        let root = if caller == Caller::User { NOBODY } else { 0 };
        self.bundle.edit(|config| {
            for mappings in ["uidMappings", "gidMappings"] {
                config["linux"][mappings][0]["hostID"] = json!(root);
            }
            change(config);
        })?;
        Ok(self.scene.begins_here()?)
    }

    /// `lifecycle-oci` as the caller runs it.
    fn command(&self, caller: Caller, arguments: &[&str]) -> Command {
        let oci = program::lifecycle_oci().unwrap_or_else(|error| panic!("{error}"));
        let mut command = Command::new(if caller == Caller::Nested { Path::new("unshare") } else { &oci });
        if caller == Caller::Nested {
            command.args(["--user", "--map-root-user", "--mount"]).arg(&oci);
        }
        command.arg("--root").arg(self.home.join("state")).args(arguments).current_dir(self.lab.dir());
        command.env("XDG_RUNTIME_DIR", &self.home).env_remove("HOME").env_remove("NOTIFY_SOCKET");
        if caller != Caller::Root {
            scene::as_nobody(&mut command);
        }
        command
    }

    #[track_caller]
    fn told(&self, caller: Caller, arguments: &[&str]) -> Told {
        scene::told(&mut self.command(caller, arguments))
    }

    /// `run`, with an option before the verb.
    #[track_caller]
    fn run(&self, caller: Caller, option: &str) -> Told {
        self.told(caller, &[option, "run", "--bundle", "bundle", &self.id])
    }

    fn state(&self) -> Result<Value, Box<dyn std::error::Error>> {
        let told = self.told(Caller::User, &["state", &self.id]).ended(0);
        Ok(serde_json::from_str(&told.out)?)
    }

    fn end(self) -> TestResult {
        Ok(self.scene.nothing_left()?)
    }
}

/// Where the process is, in each hierarchy.
fn cgroups(pid: &str) -> std::io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/cgroup"))
}

/// What is said where nothing but a warning is said.
const WARNING: &str = "the caller may make no cgroups: the container has none of its own";

pub fn oci_rootless_a_user_without_a_cgroup_is_warned_and_his_container_is_where_he_is(lab: &Lab) -> TestResult {
    let mut user = Without::new(lab, &["sleep", "600"])?;
    user.edit(Caller::User, |_| {})?;
    let log = user.home.join("log");
    let (log, id) = (log.display().to_string(), user.id.clone());
    // A success is silent where there is a log: the streams are the container's.
    let create = ["--log", &log, "--log-format", "json", "create", "--bundle", "bundle", &id];
    let told = user.told(Caller::User, &create).ended(0);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    let lines = fs::read_to_string(&log)?;
    let last: Value = serde_json::from_str(lines.lines().last().unwrap_or_default())?;
    assert_eq!(last["level"], "warning");
    assert!(last["msg"].as_str().is_some_and(|msg| msg.contains(WARNING)), "{last}");
    let pid = user.state()?["pid"].to_string();
    assert_eq!(cgroups(&pid)?, cgroups("self")?, "it is not where its caller is");
    user.told(Caller::User, &["start", &id]).ended(0);
    let inside = ["exec", &id, "sh", "-c", "id -u; ls /proc | grep -c '^[0-9]'"];
    assert_eq!(user.told(Caller::User, &inside).ended(0).out.lines().next(), Some("0"));
    // What needs a cgroup says so, and does nothing.
    for verb in [&["pause", &id][..], &["update", "--pids-limit", "5", &id]] {
        user.told(Caller::User, verb).ended_badly().says(&["cgroup"]);
        assert_eq!(user.state()?["status"], "running");
    }
    user.told(Caller::User, &["kill", "--all", &id, "KILL"]).ended(0);
    eventually("its end", || Ok(user.state().is_ok_and(|state| state["status"] == "stopped")))?;
    user.told(Caller::User, &["delete", &id]).ended(0);
    fs::remove_file(&log)?;
    user.end()
}

pub fn oci_rootless_without_a_log_the_warning_is_on_stderr(lab: &Lab) -> TestResult {
    let mut user = Without::new(lab, &["cat", "/proc/self/uid_map"])?;
    for caller in [Caller::User, Caller::Nested] {
        user.edit(caller, |_| {})?;
        for option in ["--rootless=auto", "--rootless=true", "--rootless"] {
            let told = user.run(caller, option).ended(0).says(&["level=warning", WARNING]);
            assert_eq!(told.err.lines().count(), 1, "{}", told.err);
            let root = if caller == Caller::User { "65534" } else { "0" };
            assert_eq!(told.out.split_whitespace().collect::<Vec<_>>(), ["0", root, "1"], "{caller:?}");
        }
        let told = user.run(caller, "--rootless=false").ended(1);
        assert_eq!(told.out, "");
        told.says(&["the caller may make no cgroups", "a container without one is not tolerated", "--rootless=true"]);
    }
    user.run(Caller::User, "--rootless=perhaps").ended(1).says(&["perhaps", "auto"]);
    // Its own processes it can have without a namespace for them, too, but not be told from others then.
    user.edit(Caller::User, |config| {
        let all = config["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        config["linux"]["namespaces"] = all.into_iter().filter(|n| n["type"] != "pid").collect();
        let mounts = config["mounts"].as_array().cloned().unwrap_or_default();
        config["mounts"] = mounts.into_iter().filter(|mount| mount["type"] != "proc").collect();
        config["process"]["args"] = json!(["true"]);
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
    })?;
    user.run(Caller::User, "--rootless=auto").ended(0).says(&[WARNING, "shares a pid namespace"]);
    user.end()
}

pub fn oci_rootless_what_needs_a_cgroup_is_refused_while_planning_by_its_field(lab: &Lab) -> TestResult {
    let mut user = Without::new(lab, &["touch", "/made"])?;
    let path = format!("/{}-cgroup", lab.token());
    let asked = [
        (json!({ "cgroupsPath": path }), "linux.cgroupsPath"),
        (json!({ "cgroupsPath": path.trim_start_matches('/') }), "linux.cgroupsPath"),
        (json!({ "resources": { "pids": { "limit": 5 } } }), "linux.resources.pids.limit"),
        (json!({ "resources": { "memory": { "limit": 1 << 26 } } }), "linux.resources.memory.limit"),
        (json!({ "resources": { "cpu": { "cpus": "0" } } }), "linux.resources.cpu.cpus"),
    ];
    for caller in [Caller::User, Caller::Nested] {
        for (more, field) in &asked {
            user.edit(caller, |config| {
                config["linux"]["resources"] = Value::Null;
                config["linux"]["cgroupsPath"] = Value::Null;
                for (name, value) in more.as_object().into_iter().flatten() {
                    config["linux"][name] = value.clone();
                }
            })?;
            for option in ["--rootless=auto", "--rootless=true"] {
                let told = user.run(caller, option).ended(1).says(&[field, "cgroup", "run as root"]);
                assert!(!told.err.contains("taken back"), "something was done first: {}", told.err);
                assert!(!user.bundle.rootfs().join("made").exists(), "it ran");
            }
        }
    }
    user.end()
}

/// A directory in each hierarchy that was handed to the user, as an administrator does it on version 1.
fn hand_over(lab: &Lab) -> Result<Vec<PathBuf>, Box<dyn std::error::Error>> {
    let mut made = Vec::new();
    for hierarchy in hierarchies()?.iter().filter(|hierarchy| !hierarchy.unified) {
        let dir = hierarchy.mount.join(format!("{}-user", lab.token()));
        fs::create_dir(&dir)?;
        for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|file| dir.join(file).exists()) {
            fs::write(dir.join(file), fs::read_to_string(hierarchy.mount.join(file))?.trim())?;
        }
        chown(&dir, Some(NOBODY), Some(NOBODY))?;
        made.push(dir);
    }
    Ok(made)
}

pub fn oci_rootless_a_cgroup_below_one_that_was_handed_over_is_made_and_limited(lab: &Lab) -> TestResult {
    let mut user = Without::new(lab, &["cat", "/proc/self/cgroup"])?;
    let handed = hand_over(lab)?;
    let path = format!("/{}-user/c1", lab.token());
    for caller in [Caller::User, Caller::Nested] {
        user.edit(caller, |config| {
            config["linux"]["cgroupsPath"] = json!(path);
            config["linux"]["resources"] = json!({
                "pids": { "limit": 33 },
                // Nobody but the machine's root can set these.
                "devices": [{ "allow": false, "access": "rwm" }]
            });
        })?;
        for option in ["--rootless=auto", "--rootless=true", "--rootless=false"] {
            let told = user.run(caller, option).ended(0);
            assert_eq!(told.err, "", "{caller:?} {option}");
            let inside = told.out.lines().filter(|line| line.ends_with(&path)).count();
            assert_eq!(inside, handed.len(), "{}", told.out);
        }
    }
    user.edit(Caller::User, |config| config["process"]["args"] = json!(["sleep", "600"]))?;
    user.told(Caller::User, &["run", "--detach", "--bundle", "bundle", &user.id]).ended(0);
    let limit = handed.iter().map(|dir| dir.join("c1/pids.max")).find(|file| file.exists()).ok_or("no cgroup")?;
    assert_eq!(fs::read_to_string(limit)?.trim(), "33");
    user.told(Caller::User, &["delete", "--force", &user.id]).ended(0);
    let scene = user.end();
    handed.iter().try_for_each(fs::remove_dir)?;
    scene
}

/// As in a container that has the machine's root and sees its cgroups: only by its own word root does without.
pub fn oci_rootless_root_where_cgroups_are_read_only_has_to_ask_for_it(lab: &Lab) -> TestResult {
    let mut root = Without::new(lab, &["cat", "/proc/self/cgroup"])?;
    for hierarchy in hierarchies()? {
        let (none, flags) = (None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        mount(none, &hierarchy.mount, none, flags, none)?;
    }
    root.edit(Caller::Root, |_| {})?;
    for option in ["--rootless=auto", "--rootless=false"] {
        let told = root.run(Caller::Root, option).ended(1);
        assert_eq!(told.out, "");
        told.says(&["the caller may make no cgroups", "not tolerated", "--rootless=true"]);
    }
    let told = root.run(Caller::Root, "--rootless=true").ended(0).says(&["level=warning", WARNING]);
    assert_eq!(told.out, cgroups("self")?);
    root.edit(Caller::Root, |config| config["linux"]["cgroupsPath"] = json!(format!("/{}-ro", lab.token())))?;
    root.run(Caller::Root, "--rootless=true").ended(1).says(&["linux.cgroupsPath", "may not make"]);
    root.end()
}

/// The same through the other program.
pub fn a_user_without_a_cgroup_is_warned_by_a_plan_too(lab: &Lab) -> TestResult {
    let mut user = Without::new(lab, &["true"])?;
    user.edit(Caller::User, |_| {})?;
    let told = |more: &[&str]| {
        let mut command = Command::new(program::lifecycle().unwrap_or_else(|error| panic!("{error}")));
        command.args(["run", "oci/run", "-p", "bundle=bundle", "-p", &format!("id={}-c1", lab.token())]).args(more);
        command.current_dir(lab.dir()).env("XDG_RUNTIME_DIR", &user.home).env_remove("HOME");
        scene::told(scene::as_nobody(&mut command))
    };
    told(&[]).ended(0).says(&["warning", WARNING]);
    told(&["-p", "rootless=false"]).ended(125).says(&["is not tolerated"]);
    told(&["-p", "rootless=maybe"]).ended(125).says(&["maybe"]);
    Ok(user.scene.nothing_left()?)
}
