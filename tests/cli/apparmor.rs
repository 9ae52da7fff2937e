//! AppArmor, where the kernel has it in force: in the guest. Profiles are the machine's, so their names hold the lab's token.

use std::fs;
use std::path::Path;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Result, While, program};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;

use crate::oci_scene::Oci;

/// All of them.
pub fn tests() -> Vec<Test> {
    let tests = lifecycle_tests::tests![
        process_apparmor_profile_confines_the_program_and_what_joins_it,
        oci_exec_apparmor_confines_the_command_alone,
    ];
    tests.into_iter().map(|test| test.within("apparmor").needs(&needs())).collect()
}

/// What it takes to be confined.
pub fn needs() -> [Need; 4] {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.trim() == "Y");
    [
        Need::Root,
        Need::Other(enabled, "a kernel with AppArmor in force"),
        Need::Program("apparmor_parser"),
        Need::Program("busybox"),
    ]
}

const SECURITYFS: &str = "/sys/kernel/security";

/// A profile in the kernel, which goes with the test.
pub struct Profile {
    pub name: String,
}

impl Profile {
    /// One that allows everything but to read `/tmp/secret`. It needs securityfs, which the lab has then for itself.
    fn load(lab: &Lab) -> Result<Self> {
        Self::named(format!("lifecycle-{}", lab.token()))
    }

    /// Likewise.
    pub fn named(name: String) -> Result<Self> {
        if !Path::new(SECURITYFS).join("apparmor").exists() {
            let mounted = mount("securityfs", SECURITYFS, "securityfs", MountFlags::empty(), None);
            mounted.when(|| "mounting securityfs".into())?;
        }
        let rules = "file, capability, network, signal, ptrace, unix, mount, umount, deny /**/secret rw,";
        let file = Self { name };
        let text = format!("profile {} flags=(attach_disconnected,mediate_deleted) {{ {rules} }}\n", file.name);
        fs::write(file.file(), text).when(|| "writing the profile".into())?;
        program::quiet("apparmor_parser", &["--replace", "--skip-cache", &file.file()])?;
        Ok(file)
    }

    fn file(&self) -> String {
        format!("/dev/shm/{}", self.name)
    }

    pub fn remove(self) -> Result<()> {
        program::quiet("apparmor_parser", &["--remove", &self.file()])?;
        fs::remove_file(self.file()).when(|| "removing the profile".into())
    }
}

/// What the program sees of its own profile, and of what that denies.
const LOOK: &str = "cat /proc/self/attr/apparmor/current; cat /tmp/secret";

fn with_secret<'a>(lab: &'a Lab, arguments: &[&str]) -> Result<Oci<'a>> {
    let mut oci = Oci::new(lab, arguments)?;
    let secret = oci.bundle.rootfs().join("tmp/secret");
    fs::write(secret, "told\n").when(|| "writing the secret".into())?;
    oci.scene.begins_here()?;
    Ok(oci)
}

pub fn process_apparmor_profile_confines_the_program_and_what_joins_it(lab: &Lab) -> TestResult {
    let profile = Profile::load(lab)?;
    let mut oci = with_secret(lab, &["sh", "-c", LOOK])?;
    let run = |oci: &Oci| oci.told(&["run", "--bundle", "bundle", &oci.id]);
    // As it is without a profile.
    assert_eq!(run(&oci).ended(0).out, "unconfined\ntold\n");
    oci.edit(|config| config["process"]["apparmorProfile"] = json!(profile.name))?;
    let confined = format!("{} (enforce)\n", profile.name);
    let told = run(&oci).ended(1);
    assert_eq!(told.out, confined, "{}", told.err);
    assert!(told.err.contains("secret': Permission denied"), "{}", told.err);
    // Whatever joins the container is under its profile, too.
    oci.bundle.runs(&["sleep", "600"])?;
    oci.scene.begins_here()?;
    oci.running(&[]);
    let told = oci.told(&["exec", &oci.id, "sh", "-c", LOOK]).ended(1);
    assert_eq!(told.out, confined, "{}", told.err);
    oci.gone()?;
    // One that is not loaded is refused before anything is touched, by its name.
    oci.edit(|config| config["process"]["apparmorProfile"] = json!("lifecycle-unknown"))?;
    run(&oci).ended(1).says(&["lifecycle-unknown", "is not loaded", "apparmor_parser"]);
    oci.scene.nothing_left()?;
    // Where securityfs is not mounted only the kernel knows the profiles.
    profile_without_securityfs(&mut oci, &profile, &confined)?;
    profile.remove()?;
    Ok(())
}

fn profile_without_securityfs(oci: &mut Oci, profile: &Profile, confined: &str) -> TestResult {
    unmount(SECURITYFS, UnmountFlags::DETACH)?;
    oci.bundle.runs(&["sh", "-c", LOOK])?;
    oci.edit(|config| config["process"]["apparmorProfile"] = json!(profile.name))?;
    let told = oci.told(&["run", "--bundle", "bundle", &oci.id]).ended(1);
    assert_eq!(told.out, confined, "{}", told.err);
    oci.edit(|config| config["process"]["apparmorProfile"] = json!("lifecycle-unknown"))?;
    let told = oci.told(&["run", "--bundle", "bundle", &oci.id]).ended(1);
    told.says(&["lifecycle-unknown", "this profile is not loaded"]);
    oci.scene.nothing_left()?;
    mount("securityfs", SECURITYFS, "securityfs", MountFlags::empty(), None)?;
    Ok(())
}

pub fn oci_exec_apparmor_confines_the_command_alone(lab: &Lab) -> TestResult {
    let profile = Profile::load(lab)?;
    let oci = with_secret(lab, &["sleep", "600"])?;
    oci.running(&[]);
    assert_eq!(oci.inside(&["sh", "-c", LOOK]), "unconfined\ntold\n");
    let told = oci.told(&["exec", "--apparmor", &profile.name, &oci.id, "sh", "-c", LOOK]).ended(1);
    assert_eq!(told.out, format!("{} (enforce)\n", profile.name), "{}", told.err);
    assert!(told.err.contains("secret': Permission denied"), "{}", told.err);
    let current = fs::read_to_string(format!("/proc/{}/attr/apparmor/current", oci.pid()?))?;
    assert_eq!(current, "unconfined\n");
    let unknown = ["exec", "--apparmor", "lifecycle-unknown", &oci.id, "true"];
    oci.told(&unknown).ended(255).says(&["lifecycle-unknown", "is not loaded"]);
    oci.gone()?;
    profile.remove()?;
    Ok(())
}
