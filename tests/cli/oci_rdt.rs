//! A container in groups of resctrl, as far as that can be seen without a processor that has it: the groups are directories that look like
//! resctrl's, and the container's records are made to name them.

use std::fs;
use std::path::{Path, PathBuf};

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use serde_json::{Value, json};

use crate::oci_scene::{Oci, reap_later};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![oci_exec_joins_the_containers_resctrl_groups_and_events_stats_reads_them,];
    tests.into_iter().map(|test| test.within("oci_rdt").needs(&[Root, Program("busybox")])).collect()
}

/// A tree like that of /sys/fs/resctrl, with the container's class and monitoring group.
fn resctrl(lab: &Lab, id: &str) -> std::io::Result<(PathBuf, PathBuf)> {
    let top = lab.dir().join("resctrl");
    let (class, monitor) = (top.join(id), top.join(id).join("mon_groups").join(id));
    let node = monitor.join("mon_data/mon_L3_00");
    for dir in [&top.join("info/L3_MON"), &node] {
        fs::create_dir_all(dir)?;
    }
    for (file, text) in [
        (top.join("info/L3_MON/mon_features"), "llc_occupancy\nmbm_total_bytes\n"),
        (top.join("schemata"), "    L3:0=fffff\n    MB:0=100\n"),
        (class.join("schemata"), "    L3:0=0000f\n    MB:0= 20\n"),
        (class.join("tasks"), ""),
        (monitor.join("tasks"), ""),
        (node.join("llc_occupancy"), "4096\n"),
        (node.join("mbm_total_bytes"), "700\n"),
    ] {
        fs::write(file, text)?;
    }
    Ok((class, monitor))
}

/// Lets a record of the container name its groups.
fn name_groups(file: &Path, from: &str, groups: &Value) -> TestResult {
    let text = fs::read_to_string(file)?;
    assert!(text.contains(from), "{} has no {from}:\n{text}", file.display());
    Ok(fs::write(file, text.replace(from, &from.replace("{\"group\":null,\"monitor\":null}", &groups.to_string())))?)
}

pub fn oci_exec_joins_the_containers_resctrl_groups_and_events_stats_reads_them(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    oci.running(&[]);
    let (class, monitor) = resctrl(lab, &oci.id)?;
    let groups = json!({ "group": class, "monitor": monitor });
    let run = lab.state_root().join(&oci.id);
    name_groups(&run.join("journal"), "\"rdt\":{\"group\":null,\"monitor\":null}", &groups)?;
    let state: Value = serde_json::from_str(&fs::read_to_string(run.join("state.json"))?)?;
    assert_eq!(state["lifecycle"]["rdt"], Value::Null, "a container without groups says nothing of them");
    let mut named = state;
    named["lifecycle"]["rdt"] = groups;
    fs::write(run.join("state.json"), named.to_string())?;

    oci.told(&["exec", "--detach", "--pid-file", "pid", &oci.id, "sleep", "600"]).ended(0);
    let pid = fs::read_to_string(lab.dir().join("pid"))?;
    reap_later(pid.parse()?);
    for group in [&class, &monitor] {
        assert_eq!(fs::read_to_string(group.join("tasks"))?, pid, "{}", group.display());
    }

    let told = oci.told(&["events", "--stats", &oci.id]).ended(0);
    let event: Value = serde_json::from_str(&told.out)?;
    let expected = json!({
        "l3_cache_schema_root": "L3:0=fffff",
        "l3_cache_schema": "L3:0=0000f",
        "mem_bw_schema_root": "MB:0=100",
        "mem_bw_schema": "MB:0= 20",
        "mbm_stats": [{ "mbm_total_bytes": 700 }],
        "cmt_stats": [{ "llc_occupancy": 4096 }],
    });
    assert_eq!(event["data"]["intel_rdt"], expected);

    // One that somebody has removed: the program runs, and the caller hears of it.
    fs::remove_dir_all(&class)?;
    oci.told(&["exec", &oci.id, "true"]).ended(0).says(&["level=warning", "resctrl group", "is gone"]);
    fs::remove_dir_all(lab.dir().join("resctrl"))?;
    oci.without(&["pid"])?;
    Ok(oci.gone()?)
}
