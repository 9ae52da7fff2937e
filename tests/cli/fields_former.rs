//! Fields that older callers write, as runtimes have taken them.

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use serde_json::json;

use crate::oci_scene::Oci;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        linux_resources_memory_kernel_is_ignored_with_a_warning,
        linux_resources_pids_limit_of_0_is_none_before_version_1_3,
        linux_sysctl_may_say_what_hostname_and_domainname_say,
    ];
    tests.into_iter().map(|test| test.within("fields_former").needs(&[Root, Program("busybox")])).collect()
}

/// Whether `update` and `create` say that it does nothing, and set the other limits.
pub fn linux_resources_memory_kernel_is_ignored_with_a_warning(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let memory = json!({ "kernel": 33_554_432, "limit": 67_108_864 });
    oci.edit(|config| config["linux"]["resources"]["memory"] = memory)?;
    let warning = ["level=warning", "memory.kernel does nothing"];
    let told = oci.told(&["create", "--bundle", "bundle", &oci.id]).ended(0).says(&warning);
    assert_eq!(told.err.lines().count(), 1, "{}", told.err);
    let limit = || oci.limit("memory", "memory.limit_in_bytes").or_else(|_| oci.limit("memory", "memory.max"));
    assert_eq!(limit()?, "67108864");
    let mut update = oci.start(&["update", "--resources=-", &oci.id])?;
    update.type_in(r#"{"memory":{"kernel":33554432,"limit":134217728}}"#, true)?;
    update.end()?.ended(0).says(&warning);
    assert_eq!(limit()?, "134217728");
    Ok(oci.gone()?)
}

pub fn linux_resources_pids_limit_of_0_is_none_before_version_1_3(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sh", "-c", "sleep 600; true"])?;
    for version in ["1.0.2", "1.0.2-dev", "1.2.1"] {
        oci.edit(|config| {
            config["ociVersion"] = json!(version);
            config["linux"]["resources"]["pids"] = json!({ "limit": 0 });
        })?;
        oci.running(&[]);
        assert_eq!(oci.limit("pids", "pids.max")?, "max", "{version}");
        oci.gone()?;
    }
    oci.edit(|config| config["ociVersion"] = json!("1.3.0"))?;
    oci.create(&[]);
    assert_eq!(oci.limit("pids", "pids.max")?, "1");
    Ok(oci.gone()?)
}

pub fn linux_sysctl_may_say_what_hostname_and_domainname_say(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    oci.edit(|config| {
        (config["hostname"], config["domainname"]) = (json!("web"), json!("example.test"));
        config["linux"]["sysctl"] = json!({ "kernel.hostname": "web", "kernel/domainname": "example.test" });
    })?;
    oci.running(&[]);
    let names = ["cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname"];
    assert_eq!(oci.inside(&names), "web\nexample.test\n");
    oci.gone()?;
    for (name, other) in [("kernel.hostname", "hostname"), ("kernel.domainname", "domainname")] {
        oci.edit(|config| config["linux"]["sysctl"] = json!({ name: "other" }))?;
        let told = oci.told(&["create", "--bundle", "bundle", &oci.id]).ended(1);
        told.says(&[name, &format!("conflicts with `{other}`")]);
    }
    Ok(oci.scene.nothing_left()?)
}
