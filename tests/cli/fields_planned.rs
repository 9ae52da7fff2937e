//! Fields of `linux` that need what a test machine seldom has: planned against the facts of one that has it. What the effects then do is the
//! law's business, and that they are refused where it is missing that of the other tests.

use std::fs;

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::{Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use serde_json::{Value, json};

use crate::scene::Scene;

/// All of them.
pub fn tests() -> Vec<Test> {
    let tests = lifecycle_tests::tests![
        linux_intel_rdt_clos_id_and_schemata,
        linux_intel_rdt_enable_monitoring_enable_cmt_and_enable_mbm,
        linux_resources_rdma_hca_handles_and_hca_objects,
        linux_resources_cpu_mems_of_a_machine_with_two,
        linux_resources_network_priorities_name_and_priority,
    ];
    tests.into_iter().map(|test| test.within("fields_planned")).collect()
}

/// What creating a container with this `linux.intelRdt` or `linux.resources` would do, on one line, on a host that differs so from one of the
/// fixed ones.
fn planned(
    lab: &Lab,
    host: &str,
    differs: impl FnOnce(&mut Value),
    field: &str,
    value: Value,
) -> Result<String, Box<dyn std::error::Error>> {
    let scene = Scene::new(lab)?;
    let file = program::source().join(format!("snapshots/facts/{host}.json"));
    let mut facts: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    differs(&mut facts["host"]);
    let facts = scene.write("facts.json", &facts.to_string())?;
    let bundle = lab.dir().join("bundle");
    let _ = fs::remove_dir_all(&bundle);
    Bundle::create(&bundle)?.edit(|config| config["linux"][field] = value)?;
    let told = scene.told(&[
        "plan",
        "oci/create",
        "-p",
        "id=c1",
        "-p",
        &format!("bundle={}", bundle.display()),
        "--facts",
        &facts.display().to_string(),
    ]);
    Ok(told.ended(0).out.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn with_resctrl(host: &mut Value) {
    host["cpu.rdt"] = json!(["rdt_a", "cat_l3", "mba", "cqm"]);
    host["resctrl"] = json!({
        "mount": "/sys/fs/resctrl",
        "resources": ["L3", "MB"],
        "monitors": ["llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"],
    });
}

pub fn linux_intel_rdt_clos_id_and_schemata(lab: &Lab) -> TestResult {
    let rdt = json!({
        "closID": "web",
        "schemata": ["L3:0=3"],
        "l3CacheSchema": "L3:0=f",
        "memBwSchema": "MB:0=70",
    });
    let text = planned(lab, "root-hybrid", with_resctrl, "intelRdt", rdt)?;
    for effect in [
        "make the resctrl group /sys/fs/resctrl/web, or take it as it is",
        "write L3:0=f, MB:0=70, L3:0=3 to /sys/fs/resctrl/web/schemata",
        "write ‹init› to /sys/fs/resctrl/web/tasks",
    ] {
        assert!(text.contains(effect), "{effect}:\n{text}");
    }
    assert!(!text.contains("mon_groups"), "{text}");
    Ok(())
}

pub fn linux_intel_rdt_enable_monitoring_enable_cmt_and_enable_mbm(lab: &Lab) -> TestResult {
    for field in ["enableMonitoring", "enableCMT", "enableMBM"] {
        let text = planned(lab, "root-hybrid", with_resctrl, "intelRdt", json!({ field: true }))?;
        for effect in [
            "make the resctrl group /sys/fs/resctrl/c1/mon_groups/c1",
            "write ‹init› to /sys/fs/resctrl/c1/mon_groups/c1/tasks",
        ] {
            assert!(text.contains(effect), "{field}: {effect}:\n{text}");
        }
    }
    Ok(())
}

pub fn linux_resources_rdma_hca_handles_and_hca_objects(lab: &Lab) -> TestResult {
    let rdma = json!({ "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 10 } } });
    let text = planned(lab, "root-v2", |_| (), "resources", rdma)?;
    assert!(text.contains("write mlx5_1 hca_handle=3 hca_object=10 to /sys/fs/cgroup/lifecycle/c1"), "{text}");
    Ok(())
}

/// A machine with one node of memory has nothing else to choose.
pub fn linux_resources_cpu_mems_of_a_machine_with_two(lab: &Lab) -> TestResult {
    let text = planned(lab, "root-v2", |_| (), "resources", json!({ "cpu": { "mems": "1" } }))?;
    assert!(text.contains("write 1 to /sys/fs/cgroup/lifecycle/c1"), "{text}");
    assert!(text.contains("/cpuset.mems"), "{text}");
    Ok(())
}

pub fn linux_resources_network_priorities_name_and_priority(lab: &Lab) -> TestResult {
    let with_net_prio = |host: &mut Value| {
        let mount = "/sys/fs/cgroup/net_prio";
        let own = json!({ "controllers": ["net_prio"], "mount": mount, "writable": true });
        if let Some(all) = host["cgroup.layout"]["v1"].as_array_mut() {
            all.push(own);
        }
        host["cgroup.own"][mount] = json!("/");
    };
    let priorities = json!({ "network": { "priorities": [{ "name": "eth7", "priority": 3 }] } });
    let text = planned(lab, "root-hybrid", with_net_prio, "resources", priorities)?;
    assert!(text.contains("write eth7 3 to /sys/fs/cgroup/net_prio/lifecycle/c1"), "{text}");
    assert!(text.contains("/net_prio.ifpriomap"), "{text}");
    Ok(())
}
