//! Containers that cannot be ended: how long that is tried, what is said, and that they are not forgotten.

use std::fs;
use std::path::{Path, PathBuf};

use lifecycle_tests::harness::{Need, Test, TestResult, note};
use lifecycle_tests::lab::Lab;
use serde_json::json;

use crate::oci_scene::{Oci, eventually, reap_later};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        oci_delete_keeps_a_container_listed_until_nothing_of_it_is_left,
        oci_delete_names_the_process_beside_a_container_that_cannot_die,
    ];
    tests.into_iter().map(|test| test.within("oci_undying").needs(&[Root, Program("busybox")])).collect()
}

/// A cgroup of version 1's freezer around a container's, of somebody else: whoever is in it while it is frozen does not see SIGKILL.
struct Ice(PathBuf);

impl Ice {
    /// `None`: there is no such freezer.
    fn new(name: &str) -> std::io::Result<Option<Self>> {
        let top = Path::new("/sys/fs/cgroup/freezer");
        if !top.is_dir() {
            note("there is no freezer of version 1");
            return Ok(None);
        }
        let at = top.join(name);
        fs::create_dir(&at)?;
        Ok(Some(Self(at)))
    }

    fn write(&self, state: &str) -> std::io::Result<()> {
        fs::write(self.0.join("freezer.state"), state)
    }
}

impl Drop for Ice {
    fn drop(&mut self) {
        let _ = self.write("THAWED");
    }
}

pub fn oci_delete_keeps_a_container_listed_until_nothing_of_it_is_left(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "1000"])?;
    let outside = format!("{}-outside", lab.token());
    let Some(ice) = Ice::new(&outside)? else { return Ok(()) };
    oci.edit(|config| config["linux"]["cgroupsPath"] = json!(format!("/{outside}/box")))?;
    oci.running(&[]);
    let pid = oci.pid()?;
    reap_later(pid);
    ice.write("FROZEN")?;
    for options in [&["delete", "--force"][..], &["delete", "--force"]] {
        let told = oci.told(&[options, &[&oci.id]].concat()).ended(1);
        let held = format!("{pid} (sleep)");
        let told = told.says(&[&held, &ice.0.join("box").display().to_string(), "write THAWED"]);
        assert!(told.err.lines().all(|line| line.len() < 1024), "{}", told.err);
        assert_eq!(oci.pid()?, pid);
        oci.told(&["list", "--quiet"]).ended(0).prints(&[&oci.id]);
        oci.told(&["kill", &oci.id, "CONT"]).ended(0);
    }
    ice.write("THAWED")?;
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    eventually("its end", || Ok(!Path::new("/proc").join(pid.to_string()).exists()))?;
    oci.told(&["list", "--quiet"]).ended(0);
    oci.scene.nothing_left()?;
    Ok(fs::remove_dir(&ice.0)?)
}

/// What was executed in it stands still in a cgroup that another has frozen.
pub fn oci_delete_names_the_process_beside_a_container_that_cannot_die(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "1000"])?;
    let Some(ice) = Ice::new(&format!("{}-outside", lab.token()))? else { return Ok(()) };
    oci.running(&[]);
    oci.told(&["exec", "--detach", "--pid-file", "pid", &oci.id, "sleep", "1001"]).ended(0);
    let other = fs::read_to_string(lab.dir().join("pid"))?;
    reap_later(other.parse()?);
    fs::write(ice.0.join("cgroup.procs"), &other)?;
    ice.write("FROZEN")?;
    let told = oci.told(&["delete", "--force", &oci.id]).ended(1);
    told.says(&[&format!("{other} (sleep)"), &ice.0.display().to_string(), "write THAWED"]);
    assert_eq!(oci.state()?["id"], oci.id.as_str());
    ice.write("THAWED")?;
    oci.told(&["delete", "--force", &oci.id]).ended(0);
    eventually("its end", || Ok(!Path::new("/proc").join(&other).exists()))?;
    fs::remove_dir(&ice.0)?;
    oci.without(&["pid"])?;
    Ok(oci.scene.nothing_left()?)
}
