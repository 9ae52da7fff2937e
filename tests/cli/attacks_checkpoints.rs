//! What somebody gains who has the directory of an image, or has written an image or a plan: nothing of the host, and nothing of the engine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{criu, program};
use serde_json::json;

use crate::oci_scene::{Oci, reap_later};
use crate::scene::{NOBODY, Scene};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        an_images_list_of_descriptors_gives_away_none_of_the_engines,
        a_link_in_another_users_image_changes_no_file_of_the_host,
        an_image_in_a_directory_that_others_may_write_to_is_not_begun,
        planning_executes_no_program_that_a_plan_names,
    ];
    let needs = [Root, Program("busybox"), criu::named()];
    tests.into_iter().map(|test| test.within("attacks_checkpoints").needs(&needs)).collect()
}

fn stand_in(oci: &mut Oci) -> Result<String, Box<dyn std::error::Error>> {
    let path = criu::install(oci.lab.dir(), Some(&oci.lab.dir().join("told")))?;
    oci.scene.begins_here()?;
    Ok(path.display().to_string())
}

/// Nine pipes in the image: the fourth stood for the engine's own descriptor 3, and so on, the run's journal among them.
pub fn an_images_list_of_descriptors_gives_away_none_of_the_engines(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let criu = stand_in(&mut oci)?;
    let image = lab.dir().join("image");
    fs::create_dir(&image)?;
    let pipes: Vec<String> = (0..9).map(|n| format!("pipe:[{n}]")).collect();
    fs::write(image.join("descriptors.json"), json!(pipes).to_string())?;
    oci.scene.begins_here()?;
    let restore = ["--criu", &criu, "restore", "-b", "bundle", "--image-path", "image", "--detach", &oci.id];
    oci.told(&restore).ended(0);
    let told = fs::read_to_string(lab.dir().join("told"))?;
    let given: Vec<&str> = told
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("inherit_fd=")?.rsplit_once(':'))
        .map(|w| w.0)
        .collect();
    assert_eq!(given, ["pipe:[0]", "pipe:[1]", "pipe:[2]"], "{told}");
    let pid = oci.pid()?;
    oci.told(&["kill", &oci.id, "KILL"]).ended(0);
    reap_later(pid);
    oci.wait_for_status("stopped")?;
    oci.verb("delete").ended(0);
    Ok(())
}

/// A file of the host that only root may read, and a directory of somebody else in which these names lead to it.
fn planted(lab: &Lab, name: &str, links: &[&str]) -> std::io::Result<(PathBuf, PathBuf)> {
    let (secret, dir) = (lab.dir().join("of-root"), lab.dir().join(name));
    fs::write(&secret, "of the host\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    fs::create_dir(&dir)?;
    links.iter().try_for_each(|link| symlink(&secret, dir.join(link)))?;
    chown(&dir, Some(NOBODY), Some(NOBODY))?;
    Ok((secret, dir))
}

#[track_caller]
fn is_as_before(secret: &Path) {
    assert_eq!(fs::read_to_string(secret).unwrap_or_default(), "of the host\n", "a file of the host was written");
    assert_eq!(fs::metadata(secret).map_or(0, |stat| stat.mode()) & 0o7777, 0o600);
}

pub fn a_link_in_another_users_image_changes_no_file_of_the_host(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let criu = stand_in(&mut oci)?;
    let (secret, _) = planted(lab, "planted", &["descriptors.json", "inventory.img", "dump.log"])?;
    planted(lab, "planted-log", &["restore.log"])?;
    fs::create_dir(lab.dir().join("image"))?;
    oci.scene.begins_here()?;
    oci.running(&[]);
    let checkpoint =
        |words: &[&str]| oci.told(&[&["--criu", &criu, "checkpoint"], words, &[&oci.id]].concat()).ended(1);
    let refused = ["planted", "owned by uid 65534"];
    checkpoint(&["--image-path", "planted", "--leave-running"]).says(&refused);
    is_as_before(&secret);
    checkpoint(&["--image-path", "image", "--work-path", "planted", "--leave-running"]).says(&refused);
    is_as_before(&secret);
    assert_eq!(oci.state()?["status"], "running");
    // criu opens its log of a restore there as well.
    let restore = ["--criu", &criu, "restore", "-b", "bundle", "--image-path", "planted-log", "--detach", "another"];
    oci.told(&restore).ended(1).says(&refused);
    is_as_before(&secret);
    assert!(!lab.dir().join("told").exists(), "criu was asked for something");
    Ok(oci.gone()?)
}

/// What is undone there is removed by its name, and everybody's names are in it.
pub fn an_image_in_a_directory_that_others_may_write_to_is_not_begun(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let criu = stand_in(&mut oci)?;
    let image = lab.dir().join("image");
    fs::create_dir(&image)?;
    fs::set_permissions(&image, fs::Permissions::from_mode(0o777))?;
    oci.scene.begins_here()?;
    oci.running(&[]);
    let told = oci.told(&["--criu", &criu, "checkpoint", "--image-path", "image", "--leave-running", &oci.id]).ended(1);
    told.says(&["image", "others may write to it", "chmod go-w"]);
    assert_eq!(fs::read_dir(&image)?.count(), 0, "something was made in it");
    Ok(oci.gone()?)
}

/// `lifecycle plan` is for looking at what somebody else has written.
pub fn planning_executes_no_program_that_a_plan_names(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let mark = lab.dir().join("was-executed");
    let program = scene.write("criu", &format!("#!/bin/sh\necho $* >> {}\necho Version: 9.9\n", mark.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let options = format!("{{ images: {}, criu: {} }}", lab.dir().join("image").display(), program.display());
    let init = "init: { uses: process.clone, with: { new: [pid, mount], stdio: log } }";
    let plans = [
        format!("plan: a\nsteps:\n  r: {{ uses: criu.restore, with: {{ rootfs: /, options: {options} }} }}\n"),
        format!(
            "plan: a\nsteps:\n  {init}\n  d: {{ uses: criu.dump, with: {{ process: \"${{init.process}}\", rootfs: /, options: {options} }} }}\n"
        ),
    ];
    for plan in plans {
        let file = scene.write("plan.yaml", &plan)?;
        scene.begins_here()?;
        let told = program::lifecycle().map(|path| {
            let mut command = std::process::Command::new(path);
            crate::scene::told(command.args(["plan", &file.to_string_lossy()]))
        })?;
        told.ended(0).prints(&[&program.to_string_lossy()]);
        assert!(!mark.exists(), "it was executed: {}", fs::read_to_string(&mark)?);
    }
    Ok(scene.nothing_left()?)
}
