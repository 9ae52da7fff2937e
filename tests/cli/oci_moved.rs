//! Containers whose first process has left the cgroup that was made for it (version 2), as systemd, Docker, kind and buildkit in a container do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use serde_json::json;

use crate::delegated::v2_alone;
use crate::oci_scene::{Oci, eventually, reap_later};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        oci_exec_joins_the_cgroup_that_init_has_moved_down_to,
        oci_ps_pause_update_and_exec_follow_a_container_whose_cgroup_is_gone,
        oci_pause_and_kill_all_touch_nobody_else_where_init_has_gone,
    ];
    tests.into_iter().map(|test| test.within("oci_moved").needs(&[Root, Program("busybox"), v2_alone()])).collect()
}

pub fn oci_exec_joins_the_cgroup_that_init_has_moved_down_to(lab: &Lab) -> TestResult {
    let script = "cd /sys/fs/cgroup && mkdir init && echo 1 > init/cgroup.procs && echo +pids > cgroup.subtree_control && exec sleep 600";
    let mut oci = Oci::new(lab, &["sh", "-c", script])?;
    oci.edit(|config| {
        // What it turns on below it has to have itself.
        config["linux"]["resources"]["pids"] = json!({ "limit": 64 });
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        namespaces.push(json!({ "type": "cgroup" }));
        for mount in config["mounts"].as_array_mut().expect("a list") {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"] = json!(["rw"]);
            }
        }
    })?;
    oci.running(&[]);
    let own = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm"));
    let pid = oci.pid()?;
    eventually("its move", || Ok(own(pid).is_ok_and(|name| name.trim() == "sleep")))?;
    assert_eq!(oci.inside(&["cat", "/proc/self/cgroup"]), "0::/init\n");
    oci.told(&["exec", "--cgroup", "/", &oci.id, "true"]).ended_badly().says(&["cgroup"]);
    oci.told(&["exec", "--detach", "--pid-file", "pid", &oci.id, "sleep", "601"]).ended(0);
    let other = fs::read_to_string(lab.dir().join("pid"))?;
    reap_later(other.parse()?);
    let told = oci.told(&["ps", "--format", "json", &oci.id]).ended(0).out;
    assert!(told.contains(&pid.to_string()) && told.contains(&other), "{told}");
    oci.verb("pause").ended(0);
    assert_eq!(oci.state()?["status"], "paused");
    oci.verb("resume").ended(0);
    oci.told(&["update", "--pids-limit", "50", &oci.id]).ended(0);
    oci.told(&["events", "--stats", &oci.id]).ended(0);
    oci.without(&["pid"])?;
    oci.gone()?;
    Ok(eventually("its end", || Ok(!Path::new("/proc").join(&other).exists()))?)
}

/// A cgroup beside all others, which goes with the test.
struct Elsewhere(PathBuf);

impl Elsewhere {
    /// Moves the container there, and takes away the cgroup that was made for it.
    fn with(oci: &Oci) -> Result<Self, Box<dyn std::error::Error>> {
        let at = Path::new("/sys/fs/cgroup").join(format!("{}-elsewhere", oci.lab.token()));
        fs::create_dir(&at)?;
        let (elsewhere, recorded) = (Self(at), oci.cgroup("")?);
        elsewhere.take(&oci.pid()?.to_string())?;
        fs::remove_dir(recorded)?;
        Ok(elsewhere)
    }

    fn take(&self, pid: &str) -> std::io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid)
    }
}

pub fn oci_ps_pause_update_and_exec_follow_a_container_whose_cgroup_is_gone(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    oci.running(&[]);
    let elsewhere = Elsewhere::with(&oci)?;
    let pid = oci.pid()?.to_string();
    assert_eq!(oci.told(&["ps", "--format", "json", &oci.id]).ended(0).out, format!("[{pid}]\n"));
    let own = oci.inside(&["cat", "/proc/self/cgroup"]);
    assert!(own.trim_end().ends_with(&format!("{}-elsewhere", lab.token())), "{own}");
    oci.verb("pause").ended(0);
    assert_eq!(oci.state()?["status"], "paused");
    assert_eq!(fs::read_to_string(elsewhere.0.join("cgroup.freeze"))?, "1\n");
    oci.verb("resume").ended(0);
    assert_eq!(oci.state()?["status"], "running");
    oci.told(&["update", "--pids-limit", "50", &oci.id]).ended(0);
    assert_eq!(fs::read_to_string(elsewhere.0.join("pids.max"))?, "50\n");
    oci.told(&["events", "--stats", &oci.id]).ended(0).prints(&["\"limit\":50"]);
    oci.told(&["kill", "--all", &oci.id, "KILL"]).ended(0);
    oci.wait_for_status("stopped")?;
    oci.verb("delete").ended(0);
    fs::remove_dir(&elsewhere.0)?;
    Ok(oci.scene.nothing_left()?)
}

/// What a container names as its cgroup may be another's: nobody else is stopped, limited or killed for it.
pub fn oci_pause_and_kill_all_touch_nobody_else_where_init_has_gone(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    let mut bystander = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?;
    oci.running(&[]);
    let elsewhere = Elsewhere::with(&oci)?;
    elsewhere.take(&bystander.id().to_string())?;
    let pid = oci.pid()?.to_string();
    assert_eq!(oci.told(&["ps", "--format", "json", &oci.id]).ended(0).out, format!("[{pid}]\n"));
    oci.inside(&["true"]);
    oci.verb("pause").ended(1);
    assert_eq!(fs::read_to_string(elsewhere.0.join("cgroup.freeze"))?, "0\n");
    oci.told(&["update", "--pids-limit", "50", &oci.id]).ended(1);
    assert_eq!(fs::read_to_string(elsewhere.0.join("pids.max"))?, "max\n");
    oci.told(&["kill", "--all", &oci.id, "KILL"]);
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    assert!(bystander.try_wait()?.is_none(), "the bystander was killed");
    bystander.kill()?;
    bystander.wait()?;
    fs::remove_dir(&elsewhere.0)?;
    Ok(oci.scene.nothing_left()?)
}
