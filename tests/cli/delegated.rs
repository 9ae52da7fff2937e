//! An ordinary user on cgroup v2, with a part of the hierarchy that was delegated to him as systemd does it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use lifecycle_tests::bundle::{Bundle, rootless_spec};
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::hierarchies;
use lifecycle_tests::program;
use serde_json::{Value, json};

use crate::scene::{self, NOBODY, Scene, Told};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        an_ordinary_users_limits_are_kept_below_his_own_cgroup,
        an_ordinary_user_names_a_cgroup_of_his_own,
        an_ordinary_user_is_refused_a_cgroup_of_somebody_elses,
        an_ordinary_users_container_is_deleted_with_its_cgroup,
        #[needs(Program("newuidmap"))]
        an_ordinary_user_with_subordinate_ids_has_limits_too,
    ];
    tests
        .into_iter()
        .map(|test| test.within("delegated").needs(&[Root, v2_alone(), Program("busybox"), Program("setpriv")]))
        .collect()
}

/// What these tests cannot do without.
pub fn v2_alone() -> Need {
    let hierarchies = hierarchies().unwrap_or_default();
    let alone = hierarchies.iter().all(|hierarchy| hierarchy.unified) && !hierarchies.is_empty();
    Need::Other(alone, "a machine whose cgroups are those of version 2 alone")
}

/// A user's part of the hierarchy, with his session in it.
struct Delegated<'a> {
    scene: Scene<'a>,
    lab: &'a Lab,
    bundle: Bundle,
    top: PathBuf,
    home: PathBuf,
}

impl<'a> Delegated<'a> {
    fn make(lab: &'a Lab, change: impl FnOnce(&mut Value)) -> Result<Self, Box<dyn std::error::Error>> {
        let mut scene = Scene::new(lab)?;
        let bundle = Bundle::create(lab.dir().join("bundle"))?;
        bundle.edit(|config| {
            *config = rootless_spec();
            config["process"]["terminal"] = json!(false);
            for mappings in ["uidMappings", "gidMappings"] {
                config["linux"][mappings][0]["hostID"] = json!(NOBODY);
            }
            change(config);
        })?;
        let home = lab.dir().join("home");
        fs::create_dir(&home)?;
        chown(&home, Some(NOBODY), Some(NOBODY))?;
        chown(bundle.rootfs(), Some(NOBODY), Some(NOBODY))?;
        let top = hierarchies()?[0].mount.join(format!("{}-user", lab.token()));
        for dir in [top.clone(), top.join("session")] {
            fs::create_dir(&dir)?;
            // What the kernel lists in /sys/kernel/cgroup/delegate, as far as it matters here.
            for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                chown(dir.join(file), Some(NOBODY), Some(NOBODY))?;
            }
        }
        scene.begins_here()?;
        Ok(Self { scene, lab, bundle, top, home })
    }

    /// The program as the user runs it in his session: only root can move him there.
    fn told(&self, plan: &str, more: &[&str]) -> Told {
        let session = self.top.join("session/cgroup.procs");
        let join = format!(
            "echo 0 > {}; exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \"$@\"",
            session.display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &join, "sh"]).arg(program::lifecycle().unwrap_or_else(|error| panic!("{error}")));
        command.args(["run", plan, "-p", &format!("id={}-c1", self.lab.token())]).args(more);
        scene::told(command.current_dir(self.lab.dir()).env("XDG_RUNTIME_DIR", &self.home))
    }

    fn end(self) -> TestResult {
        self.scene.nothing_left()?;
        for dir in [self.top.join("session"), self.top] {
            fs::remove_dir(dir)?;
        }
        Ok(())
    }
}

/// Without a cgroup namespace the container's own cgroup is bound where it looks for cgroups.
const LIMITS: &str = "cd /sys/fs/cgroup; cat pids.max memory.max; cut -d: -f3 /proc/self/cgroup; id -u";

fn limited(config: &mut Value) {
    config["process"]["args"] = json!(["sh", "-c", LIMITS]);
    config["linux"]["resources"] = json!({ "pids": { "limit": 33 }, "memory": { "limit": 67_108_864 } });
}

fn shows_limits(told: &Told, below: &str) {
    let lines: Vec<&str> = told.out.lines().collect();
    assert_eq!(lines[..2], ["33", "67108864"], "{}{}", told.out, told.err);
    assert!(lines[2].starts_with(below), "{}", told.out);
    assert_eq!(lines[3], "0");
}

pub fn an_ordinary_users_limits_are_kept_below_his_own_cgroup(lab: &Lab) -> TestResult {
    let user = Delegated::make(lab, limited)?;
    let told = user.told("oci/run", &["-p", "bundle=bundle"]).ended(0);
    shows_limits(&told, &format!("/{}-user/lifecycle/", lab.token()));
    user.end()
}

pub fn an_ordinary_user_names_a_cgroup_of_his_own(lab: &Lab) -> TestResult {
    let path = format!("/{}-user/containers/c1", lab.token());
    let user = Delegated::make(lab, |config| {
        limited(config);
        config["linux"]["cgroupsPath"] = json!(path);
    })?;
    let told = user.told("oci/run", &["-p", "bundle=bundle"]).ended(0);
    shows_limits(&told, &path);
    user.end()
}

/// Outside of what was delegated he may make nothing, and nothing is left of the attempt.
pub fn an_ordinary_user_is_refused_a_cgroup_of_somebody_elses(lab: &Lab) -> TestResult {
    let path = format!("/{}-else/c1", lab.token());
    let user = Delegated::make(lab, |config| {
        limited(config);
        config["linux"]["cgroupsPath"] = json!(path);
    })?;
    user.told("oci/run", &["-p", "bundle=bundle"]).ended(125).says(&["-else", "a cgroup that was delegated"]);
    user.end()
}

pub fn an_ordinary_users_container_is_deleted_with_its_cgroup(lab: &Lab) -> TestResult {
    let user = Delegated::make(lab, |config| {
        limited(config);
        config["process"]["args"] = json!(["sleep", "1000"]);
    })?;
    user.told("oci/create", &["-p", "bundle=bundle", "--keep"]).ended(0);
    let made: Vec<PathBuf> =
        fs::read_dir(user.top.join("lifecycle"))?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    let cgroup = made.into_iter().find(|path| path.is_dir()).ok_or("no cgroup was made")?;
    assert_eq!(fs::read_to_string(cgroup.join("pids.max"))?.trim(), "33");
    assert!(!fs::read_to_string(cgroup.join("cgroup.procs"))?.is_empty(), "init is not in it");
    user.told("oci/delete", &[]).ended(0);
    user.end()
}

/// With ids that /etc/subuid and /etc/subgid grant him, so that the container has more than one.
pub fn an_ordinary_user_with_subordinate_ids_has_limits_too(lab: &Lab) -> TestResult {
    for file in ["subuid", "subgid"] {
        let own = lab.dir().join(file);
        fs::write(&own, "nobody:100000:65536\n")?;
        let (none, etc) = (None::<&str>, format!("/etc/{file}"));
        nix::mount::mount(Some(&own), etc.as_str(), none, nix::mount::MsFlags::MS_BIND, none)?;
    }
    let user = Delegated::make(lab, |config| {
        limited(config);
        config["process"]["args"] = json!(["sh", "-c", format!("{LIMITS}; cat /proc/self/uid_map")]);
        for mappings in ["uidMappings", "gidMappings"] {
            config["linux"][mappings] = json!([
                { "containerID": 0, "hostID": NOBODY, "size": 1 },
                { "containerID": 1, "hostID": 100_000, "size": 65_536 },
            ]);
        }
    })?;
    let told = user.told("oci/run", &["-p", "bundle=bundle"]).ended(0);
    shows_limits(&told, &format!("/{}-user/lifecycle/", lab.token()));
    assert!(told.out.contains("100000      65536"), "{}", told.out);
    assert!(user.bundle.rootfs().exists());
    user.end()
}
