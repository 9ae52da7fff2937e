//! Against directories that look like cgroups.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn told(cgroups: &[(&str, &Path)]) -> Value {
    let cgroups: BTreeMap<String, PathBuf> =
        cgroups.iter().map(|(name, at)| ((*name).to_owned(), (*at).to_owned())).collect();
    serde_json::to_value(stats(&cgroups).unwrap()).unwrap()
}

#[test]
fn version_2_is_told_in_the_units_of_runc() {
    let dir = directory(&[
        ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 1\nthrottled_usec 9\n"),
        (
            "cpu.pressure",
            "some avg10=0.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        ),
        ("memory.current", "4096\n"),
        ("memory.max", "max\n"),
        ("memory.stat", "anon 1\nfile 1024\n"),
        ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
        ("memory.swap.current", "100\n"),
        ("memory.swap.max", "200\n"),
        ("pids.current", "2\n"),
        ("pids.max", "16\n"),
        ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
        ("hugetlb.2MB.current", "1\n"),
        ("hugetlb.2MB.rsvd.current", "2097152\n"),
        ("hugetlb.2MB.events", "max 4\n"),
    ]);
    let told = told(&[("", dir.path())]);
    assert_eq!(told["cpu"]["usage"], json!({ "total": 5000, "kernel": 2000, "user": 3000 }));
    assert_eq!(told["cpu"]["throttling"], json!({ "periods": 7, "throttledPeriods": 1, "throttledTime": 9000 }));
    assert_eq!(told["cpu"]["psi"]["some"]["avg10"], json!(0.5));
    assert_eq!(told["memory"]["usage"], json!({ "limit": u64::MAX, "usage": 4096, "failcnt": 3 }));
    assert_eq!(told["memory"]["swap"], json!({ "limit": u64::MAX, "usage": 4196, "failcnt": 0 }));
    assert_eq!((&told["memory"]["cache"], &told["memory"]["raw"]["anon"]), (&json!(1024), &json!(1)));
    assert_eq!(told["memory"]["event_count"], json!({ "max": 3, "oom": 1, "oom_kill": 1 }));
    assert_eq!(told["pids"], json!({ "current": 2, "limit": 16 }));
    let bytes = json!([
        { "major": 8, "op": "Read", "value": 10 },
        { "major": 8, "op": "Write", "value": 20 },
        { "major": 8, "op": "Discard" },
    ]);
    assert_eq!(told["blkio"]["ioServiceBytesRecursive"], bytes);
    assert_eq!(told["hugetlb"], json!({ "2MB": { "usage": 2_097_152, "failcnt": 4 } }));
    assert_eq!(told["network_interfaces"], Value::Null);
}

#[test]
fn version_1_is_told_hierarchy_by_hierarchy() {
    let cpuacct = directory(&[
        ("cpuacct.usage", "30\n"),
        ("cpuacct.usage_percpu", "10 20 \n"),
        ("cpuacct.usage_all", "cpu user system\n0 4 6\n1 8 12\n"),
        ("cpuacct.stat", "user 2\nsystem 3\n"),
    ]);
    let memory = directory(&[
        ("memory.usage_in_bytes", "1\n"),
        ("memory.limit_in_bytes", "5\n"),
        ("memory.max_usage_in_bytes", "3\n"),
        ("memory.failcnt", "2\n"),
        ("memory.memsw.usage_in_bytes", "7\n"),
        ("memory.stat", "cache 9\nrss 1\n"),
    ]);
    let cpuset =
        directory(&[("cpuset.cpus", "0-1,3\n"), ("cpuset.mems", "0\n"), ("cpuset.sched_relax_domain_level", "-1\n")]);
    let blkio = directory(&[("blkio.throttle.io_serviced_recursive", "8:16 Read 5\n8:16 Total 5\nTotal 5\n")]);
    let told = told(&[
        ("cpuacct", cpuacct.path()),
        ("memory", memory.path()),
        ("cpuset", cpuset.path()),
        ("blkio", blkio.path()),
    ]);
    let usage = json!({
        "total": 30, "percpu": [10, 20], "percpu_kernel": [6, 12], "percpu_user": [4, 8],
        "kernel": 30_000_000, "user": 20_000_000,
    });
    assert_eq!(told["cpu"]["usage"], usage);
    assert_eq!(told["memory"]["usage"], json!({ "limit": 5, "usage": 1, "max": 3, "failcnt": 2 }));
    assert_eq!((&told["memory"]["swap"]["usage"], &told["memory"]["cache"]), (&json!(7), &json!(9)));
    assert_eq!((&told["cpuset"]["cpus"], &told["cpuset"]["sched_relax_domain_level"]), (&json!([0, 1, 3]), &json!(-1)));
    let served = json!([
        { "major": 8, "minor": 16, "op": "Read", "value": 5 },
        { "major": 8, "minor": 16, "op": "Total", "value": 5 },
    ]);
    assert_eq!(told["blkio"]["ioServicedRecursive"], served);
}

#[test]
fn interfaces_are_read_as_the_kernel_prints_them() {
    let text = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:    2000      20    1    2    0     0          0         0     3000      30    3    4    0     0       0          0
";
    let found = interfaces(text);
    assert_eq!(found.len(), 1);
    let n = &found[0];
    assert_eq!((n.name.as_str(), n.rx_bytes, n.rx_dropped, n.tx_bytes, n.tx_dropped), ("eth0", 2000, 2, 3000, 4));
}

#[test]
fn the_own_cgroup_has_this_process() {
    let layout: crate::facts::CgroupLayout =
        lifecycle_engine::facts::Facts::live(Box::new(crate::facts::Machine)).get("cgroup.layout").unwrap();
    let mounts = layout.v1.iter().map(|h| h.mount.clone()).chain(layout.v2.map(|unified| unified.mount));
    let all: BTreeMap<String, PathBuf> = mounts.enumerate().map(|(n, at)| (n.to_string(), at)).collect();
    let gone = Process { pid: i32::MAX, start: 1, boot: String::new() };
    let found = pids(&all, &gone).unwrap();
    assert!(all.is_empty() || found.contains(&std::process::id().cast_signed()));
    assert!(found.is_sorted());
}
