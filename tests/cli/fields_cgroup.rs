//! Every field of `linux.resources`, seen in the files of the container's cgroups: on whichever version this machine has its controller.
//!
//! Where neither version has it, where its version has no counterpart, or where this kernel has no such file, the config must be refused by
//! the field's name, before anything is made. So no test is skipped; what each has seen is in its note.

use std::fs;
use std::path::{Path, PathBuf};

use lifecycle_tests::Result;
use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::{Need, Test, TestResult, note};
use lifecycle_tests::lab::Lab;
use serde_json::json;

use crate::limited::Expect::{Files, Refused};
use crate::limited::{Container, There, field, kernel_has, there};
use crate::scene::Scene;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        linux_resources_memory_limit,
        linux_resources_memory_reservation,
        linux_resources_memory_swap,
        linux_resources_memory_kernel_tcp,
        linux_resources_memory_swappiness,
        linux_resources_memory_disable_oom_killer,
        linux_resources_memory_use_hierarchy,
        linux_resources_memory_use_hierarchy_false_is_refused,
        linux_resources_cpu_shares,
        linux_resources_cpu_quota,
        linux_resources_cpu_period,
        linux_resources_cpu_burst,
        linux_resources_cpu_realtime_runtime,
        linux_resources_cpu_realtime_runtime_below_parents_that_are_made,
        linux_resources_cpu_realtime_period,
        linux_resources_cpu_idle,
        linux_resources_cpu_cpus,
        linux_resources_cpu_mems,
        linux_resources_pids_limit,
        linux_resources_hugepage_limits,
        linux_resources_hugepage_limits_of_no_size_are_refused,
        linux_resources_network_class_id,
        linux_resources_network_priorities,
        linux_resources_block_io_leaf_weight,
        linux_resources_block_io_weight_device_leaf_weight,
        linux_resources_unified,
        linux_resources_block_io_throttle_read_bps_device,
        linux_resources_block_io_throttle_write_bps_device,
        linux_resources_block_io_throttle_read_iops_device,
        linux_resources_block_io_throttle_write_iops_device,
        linux_resources_block_io_weight,
        linux_resources_block_io_weight_device,
        linux_resources_rdma,
        linux_resources_memory_check_before_update,
        linux_resources_devices,
        #[needs(Need::Other(!Path::new("/sys/fs/resctrl/info").exists(), "a machine without resctrl"))]
        linux_intel_rdt_is_refused_without_resctrl,
    ];
    tests.into_iter().map(|test| test.within("fields_cgroup").needs(&[Root, Program("busybox")])).collect()
}

field!(linux_resources_memory_limit, "resources.memory.limit", { "memory": { "limit": 67_108_864 } },
    "memory" Files(&[("memory.limit_in_bytes", "67108864")]), "memory" Files(&[("memory.max", "67108864")]));
field!(linux_resources_memory_reservation, "resources.memory.reservation", { "memory": { "reservation": 33_554_432 } },
    "memory" Files(&[("memory.soft_limit_in_bytes", "33554432")]), "memory" Files(&[("memory.low", "33554432")]));
field!(linux_resources_memory_swap, "resources.memory.swap",
    { "memory": { "limit": 67_108_864, "swap": 100_663_296 } },
    "memory" Files(&[("memory.memsw.limit_in_bytes", "100663296")]),
    // What is left for swap alone.
    "memory" Files(&[("memory.swap.max", "33554432"), ("memory.max", "67108864")]));
field!(linux_resources_memory_kernel_tcp, "resources.memory.kernelTCP", { "memory": { "kernelTCP": 16_777_216 } },
    "memory" Files(&[("memory.kmem.tcp.limit_in_bytes", "16777216")]),
    // Ignored, with a warning.
    "memory" Files(&[("memory.max", "max")]));
field!(linux_resources_memory_swappiness, "resources.memory.swappiness", { "memory": { "swappiness": 7 } },
    "memory" Files(&[("memory.swappiness", "7")]), "memory" Refused);
field!(linux_resources_memory_disable_oom_killer, "resources.memory.disableOOMKiller",
    { "memory": { "disableOOMKiller": true } },
    "memory" Files(&[("memory.oom_control", "oom_kill_disable 1\n")]), "memory" Refused);
field!(linux_resources_memory_use_hierarchy, "resources.memory.useHierarchy", { "memory": { "useHierarchy": true } },
    "memory" Files(&[("memory.use_hierarchy", "1")]), "memory" Files(&[("cgroup.type", "domain")]));
field!(linux_resources_memory_use_hierarchy_false_is_refused, "resources.memory.useHierarchy",
    { "memory": { "useHierarchy": false } }, "memory" Refused, "memory" Refused);

field!(linux_resources_cpu_shares, "resources.cpu.shares", { "cpu": { "shares": 2000 } },
    // By the formula of runc since 1.3.2 and crun since 1.23; the older one came to 77.
    "cpu" Files(&[("cpu.shares", "2000")]), "cpu" Files(&[("cpu.weight", "170")]));
field!(linux_resources_cpu_quota, "resources.cpu.quota", { "cpu": { "quota": 20_000 } },
    "cpu" Files(&[("cpu.cfs_quota_us", "20000")]), "cpu" Files(&[("cpu.max", "20000 100000")]));
field!(linux_resources_cpu_period, "resources.cpu.period", { "cpu": { "period": 50_000 } },
    "cpu" Files(&[("cpu.cfs_period_us", "50000")]), "cpu" Files(&[("cpu.max", "max 50000")]));
field!(linux_resources_cpu_burst, "resources.cpu.burst", { "cpu": { "quota": 20_000, "burst": 5000 } },
    "cpu" Files(&[("cpu.cfs_burst_us", "5000")]), "cpu" Files(&[("cpu.max.burst", "5000")]));
field!(linux_resources_cpu_realtime_runtime, "resources.cpu.realtimeRuntime", { "cpu": { "realtimeRuntime": 1000 } },
    "cpu" Files(&[("cpu.rt_runtime_us", "1000")]), "cpu" Refused);
field!(linux_resources_cpu_realtime_period, "resources.cpu.realtimePeriod", { "cpu": { "realtimePeriod": 500_000 } },
    "cpu" Files(&[("cpu.rt_period_us", "500000")]), "cpu" Refused);
field!(linux_resources_cpu_idle, "resources.cpu.idle", { "cpu": { "shares": 512, "idle": 1 } },
    "cpu" Files(&[("cpu.idle", "1")]), "cpu" Files(&[("cpu.idle", "1")]));
field!(linux_resources_cpu_cpus, "resources.cpu.cpus", { "cpu": { "cpus": "0" } },
    "cpuset" Files(&[("cpuset.cpus", "0")]), "cpuset" Files(&[("cpuset.cpus", "0")]));
field!(linux_resources_cpu_mems, "resources.cpu.mems", { "cpu": { "mems": "0" } },
    "cpuset" Files(&[("cpuset.mems", "0")]), "cpuset" Files(&[("cpuset.mems", "0")]));

field!(linux_resources_pids_limit, "resources.pids.limit", { "pids": { "limit": 99 } },
    "pids" Files(&[("pids.max", "99")]), "pids" Files(&[("pids.max", "99")]));

field!(linux_resources_hugepage_limits, "resources.hugepageLimits",
    { "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] },
    "hugetlb" Files(&[("hugetlb.2MB.limit_in_bytes", "4194304"), ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304")]),
    "hugetlb" Files(&[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")]));
field!(linux_resources_hugepage_limits_of_no_size_are_refused, "resources.hugepageLimits",
    { "hugepageLimits": [{ "pageSize": "3MB", "limit": 3_145_728 }] }, "hugetlb" Refused, "hugetlb" Refused);

field!(linux_resources_network_class_id, "resources.network.classID", { "network": { "classID": 1_048_577 } },
    "net_cls" Files(&[("net_cls.classid", "1048577")]), "net_cls" Refused);
field!(linux_resources_network_priorities, "resources.network.priorities",
    { "network": { "priorities": [{ "name": "lo", "priority": 3 }] } },
    "net_prio" Files(&[("net_prio.ifpriomap", "lo 3\n")]), "net_prio" Refused);

field!(linux_resources_block_io_leaf_weight, "resources.blockIO.leafWeight", { "blockIO": { "leafWeight": 300 } },
    "blkio" Files(&[("blkio.leaf_weight", "300")]), "io" Refused);

field!(linux_resources_block_io_weight_device_leaf_weight, "resources.blockIO",
    { "blockIO": { "weightDevice": [{ "major": 8, "minor": 0, "leafWeight": 300 }] } },
    "blkio" Files(&[("blkio.leaf_weight_device", "8:0 300\n")]), "io" Refused);

field!(linux_resources_unified, "resources.unified", { "unified": { "pids.max": "77", "cgroup.max.depth": "5" } },
    "no controller" Refused, "pids" Files(&[("pids.max", "77"), ("cgroup.max.depth", "5")]));

/// The first block device of the machine.
fn device() -> std::result::Result<(String, u64, u64), Box<dyn std::error::Error>> {
    let mut names: Vec<String> = fs::read_dir("/sys/block")?
        .map(|e| Ok(e?.file_name().to_string_lossy().into()))
        .collect::<std::io::Result<_>>()?;
    // A real disk before a loop device, which has none behind it.
    names.sort_by_key(|name| (name.starts_with("loop"), name.starts_with("zram"), name.clone()));
    let name = names.into_iter().next().ok_or("no block device")?;
    let number = fs::read_to_string(format!("/sys/block/{name}/dev"))?;
    let (major, minor) = number.trim().split_once(':').ok_or("no number")?;
    Ok((name, major.parse()?, minor.parse()?))
}

fn throttle(lab: &Lab, field: &str, file: &str, key: &str) -> TestResult {
    let (_, major, minor) = device()?;
    let rates = json!([{ "major": major, "minor": minor, "rate": 1_048_576 }]);
    let container = Container::prepare(lab, &json!({ "blockIO": { field: rates } }))?;
    let (controller, file, expected) = match there("blkio", "io")? {
        There::V1(_) => ("blkio", file, format!("{major}:{minor} 1048576\n")),
        There::V2(_) => ("", "io.max", format!("{key}=1048576")),
        There::Nowhere => return container.refused(&["resources.blockIO"]),
    };
    container.create();
    let at = container.cgroup(controller)?.join(file);
    let text = fs::read_to_string(&at)?;
    assert!(text.contains(&expected) && text.starts_with(&format!("{major}:{minor} ")), "{}: {text}", at.display());
    note(format!("{} is {}", at.display(), text.trim()));
    container.delete()
}

pub fn linux_resources_block_io_throttle_read_bps_device(lab: &Lab) -> TestResult {
    throttle(lab, "throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps")
}

pub fn linux_resources_block_io_throttle_write_bps_device(lab: &Lab) -> TestResult {
    throttle(lab, "throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps")
}

pub fn linux_resources_block_io_throttle_read_iops_device(lab: &Lab) -> TestResult {
    throttle(lab, "throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops")
}

pub fn linux_resources_block_io_throttle_write_iops_device(lab: &Lab) -> TestResult {
    throttle(lab, "throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops")
}

/// The file of weights that this kernel has, if any.
fn weights(
    lab: &Lab,
    per_device: bool,
) -> std::result::Result<Option<(&'static str, &'static str)>, Box<dyn std::error::Error>> {
    let (mount, controller, files): (_, _, &[&str]) = match there("blkio", "io")? {
        There::V1(mount) if per_device => (mount, "blkio", &["blkio.weight_device", "blkio.bfq.weight_device"]),
        There::V1(mount) => (mount, "blkio", &["blkio.weight", "blkio.bfq.weight"]),
        There::V2(mount) => (mount, "", &["io.bfq.weight", "io.weight"]),
        There::Nowhere => return Ok(None),
    };
    for &file in files {
        if kernel_has(lab, &mount, file)? {
            return Ok(Some((controller, file)));
        }
    }
    Ok(None)
}

pub fn linux_resources_block_io_weight(lab: &Lab) -> TestResult {
    let container = Container::prepare(lab, &json!({ "blockIO": { "weight": 200 } }))?;
    let Some((controller, file)) = weights(lab, false)? else {
        note("this kernel weighs no I/O, and it is refused");
        return container.refused(&["resources.blockIO"]);
    };
    container.create();
    let expected = match file {
        "io.weight" => "default 1920\n",
        "io.bfq.weight" => "default 200\n",
        _ => "200",
    };
    let text = fs::read_to_string(container.cgroup(controller)?.join(file))?;
    // Older BFQ prints no `default`.
    assert!(text.trim() == "200" || text.lines().any(|line| line == expected.trim()), "{file}: {text}");
    note(format!("{file} is {}", text.trim()));
    container.delete()
}

/// A weight needs a device that BFQ schedules. In a guest one can be given to it; elsewhere the kernel refuses, and so do we.
pub fn linux_resources_block_io_weight_device(lab: &Lab) -> TestResult {
    let (name, major, minor) = device()?;
    let weight = json!([{ "major": major, "minor": minor, "weight": 321 }]);
    let scheduler = format!("/sys/block/{name}/queue/scheduler");
    let mut container = Container::prepare(lab, &json!({ "blockIO": { "weightDevice": weight } }))?;
    let Some((controller, file)) = weights(lab, true)? else {
        note("this kernel weighs no device, and it is refused");
        return container.refused(&["resources.blockIO.weightDevice"]);
    };
    if std::env::var_os("LIFECYCLE_IN_GUEST").is_some() {
        fs::write(&scheduler, "bfq")?;
        container.scene.begins_here()?;
    }
    let told = container.scene.told(&container.arguments("oci/create"));
    if !fs::read_to_string(&scheduler)?.contains("[bfq]") && told.code != 0 {
        note("no device is scheduled by BFQ, and it is refused");
        told.ended(1).says(&["resources.blockIO.weightDevice", file]);
        return Ok(container.scene.nothing_left()?);
    }
    told.ended(0);
    let text = fs::read_to_string(container.cgroup(controller)?.join(file))?;
    assert!(text.lines().any(|line| line == format!("{major}:{minor} 321")), "{file}: {text}");
    note(format!("{file} is {}", text.trim().replace('\n', "; ")));
    container.delete()
}

/// No machine of ours has a device: the kernel refuses the name, after the controller was found, and everything is taken back.
pub fn linux_resources_rdma(lab: &Lab) -> TestResult {
    let container = Container::prepare(lab, &json!({ "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 10 } } }))?;
    match there("rdma", "rdma")? {
        There::Nowhere => container.refused(&["resources.rdma"]),
        There::V1(_) | There::V2(_) => {
            container.refused(&["resources.rdma.mlx5_1", "mlx5_1 hca_handle=3 hca_object=10", "rdma.max"])
        }
    }
}

/// A limit below what the cgroup has in use. A new cgroup uses nothing, so the check can only be seen to let it pass here; `update` is where it
/// refuses.
pub fn linux_resources_memory_check_before_update(lab: &Lab) -> TestResult {
    let memory = json!({ "memory": { "limit": 67_108_864, "checkBeforeUpdate": true } });
    let container = Container::prepare(lab, &memory)?;
    container.create();
    let (controller, file) = match there("memory", "memory")? {
        There::V1(_) => ("memory", "memory.limit_in_bytes"),
        There::V2(_) => ("", "memory.max"),
        There::Nowhere => return Err("this machine has no memory controller".into()),
    };
    container.shows(controller, &[(file, "67108864")])?;
    // Less than any process has: the kernel would refuse it in words of its own, or kill the container.
    let less = r#"resources={"memory":{"limit":4096}}"#;
    let mut update = container.arguments("oci/update");
    update.extend(["-p".to_owned(), less.to_owned()]);
    container.scene.told(&update).ended(1).says(&["memory.checkBeforeUpdate"]);
    container.shows(controller, &[(file, "67108864")])?;
    container.delete()
}

/// Where the real time of version 1 is divided, or why there is nothing to test.
fn realtime() -> Result<Option<PathBuf>> {
    let There::V1(mount) = there("cpu", "cpu")? else {
        note("no cpu controller of version 1 here");
        return Ok(None);
    };
    Ok(Some(mount).filter(|mount| mount.join("cpu.rt_runtime_us").exists()))
}

/// Parents that are made on the way have none of their own: they get what their containers ask for, and give it back.
pub fn linux_resources_cpu_realtime_runtime_below_parents_that_are_made(lab: &Lab) -> TestResult {
    let Some(mount) = realtime()? else { return Ok(()) };
    let mut container = Container::prepare(lab, &json!({ "cpu": { "realtimeRuntime": 1000 } }))?;
    let parent = mount.join(format!("{}-parent", lab.token()));
    let has = |at: &Path| fs::read_to_string(at.join("cpu.rt_runtime_us")).map(|text| text.trim().to_owned());
    // Half of a period is twice the share.
    let second = json!({ "realtimeRuntime": 2000, "realtimePeriod": 500_000 });
    for (name, cpu) in [("c1", json!({ "realtimeRuntime": 1000 })), ("c2", second)] {
        container.bundle.in_cgroup(&format!("/{}-parent/made/{name}", lab.token()))?;
        container.bundle.edit(|config| config["linux"]["resources"]["cpu"] = cpu)?;
        container.id = format!("{}-{name}", lab.token());
        container.create();
    }
    for (at, expected) in [("made/c1", "1000"), ("made/c2", "2000"), ("made", "5000"), ("", "5000")] {
        assert_eq!(has(&parent.join(at))?, expected, "{at}");
    }
    // The first one's share goes with it, and the parents with the second.
    container.id = format!("{}-c1", lab.token());
    container.scene.told(&container.arguments("oci/delete")).ended(0);
    assert_eq!((has(&parent)?, has(&parent.join("made"))?), ("4000".into(), "4000".into()));
    container.id = format!("{}-c2", lab.token());
    container.scene.told(&container.arguments("oci/delete")).ended(0);
    container.scene.begins_here()?;
    assert!(!parent.exists());
    // One that has none, and that is not ours: refused before anything is made.
    fs::create_dir(&parent)?;
    container.scene.begins_here()?;
    let told = container.refused(&["resources.cpu.realtimeRuntime", "-parent", "has 0 of each 1000000 to give"]);
    fs::write(parent.join("cpu.rt_runtime_us"), "5000")?;
    container.create();
    assert_eq!(has(&parent.join("made"))?, "4000");
    container.scene.told(&container.arguments("oci/delete")).ended(0);
    assert_eq!(has(&parent)?, "5000", "what somebody else gave it is his");
    fs::remove_dir(&parent)?;
    told
}

/// What is not on the list is neither read nor written, whoever may make its node; what the config allows is.
pub fn linux_resources_devices(lab: &Lab) -> TestResult {
    let script = "mknod /dev/listed c 10 229; mknod /dev/other c 10 237; mknod /dev/major c 240 229; mknod /dev/zero2 c 1 5; \
        for n in listed other major zero2; do echo $n: $(head -c 1 /dev/$n 2>&1 >/dev/null); done; \
        echo written: $( (: >/dev/listed) 2>&1)";
    let rules = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "r" },
    ]);
    for allowed in [true, false] {
        let mut scene = Scene::new(lab)?;
        let bundle = Bundle::create(lab.dir().join(format!("bundle-{allowed}")))?;
        bundle.runs(&["sh", "-c", script])?;
        bundle.edit(|config| {
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_MKNOD", "CAP_DAC_OVERRIDE"]);
            }
            config["process"]["capabilities"]["ambient"] = json!([]);
            config["linux"]["resources"]["devices"] = if allowed { rules.clone() } else { json!([rules[0]]) };
        })?;
        scene.begins_here()?;
        let directory = format!("bundle={}", bundle.dir().display());
        let told = scene.told(&["run", "oci/run", "-p", &format!("id={}-c1", lab.token()), "-p", &directory]).ended(0);
        let said = |name: &str| told.out.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        let refused = "Operation not permitted";
        for refused_always in ["other:", "major:", "written:"] {
            assert!(said(refused_always).contains(refused), "{refused_always} {}{}", told.out, told.err);
        }
        assert!(!said("zero2:").contains(refused), "a default device: {}{}", told.out, told.err);
        // Allowed, it answers in its own way: there may be nothing behind it.
        assert_eq!(said("listed:").contains(refused), !allowed, "{}{}", told.out, told.err);
        scene.nothing_left()?;
    }
    Ok(())
}

/// No machine of ours has a processor with it: it is said which fact is missing. What is planned where it is there is tested with faked facts.
pub fn linux_intel_rdt_is_refused_without_resctrl(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let bundle = Bundle::create(lab.dir().join("bundle"))?;
    let arguments = ["run", "oci/create", "-p", &format!("id={}-c1", lab.token()), "-p", "bundle=bundle"];
    for asked in [
        json!({ "closID": "web" }),
        json!({ "schemata": ["L3:0=f"] }),
        json!({ "l3CacheSchema": "L3:0=f" }),
        json!({ "memBwSchema": "MB:0=70" }),
        json!({ "enableCMT": true }),
        json!({ "enableMBM": true }),
        json!({ "enableMonitoring": true }),
    ] {
        bundle.edit(|config| config["linux"]["intelRdt"] = asked.clone())?;
        scene.begins_here()?;
        scene.told(&arguments).ended(125).says(&["linux.intelRdt", "resctrl"]);
        scene.nothing_left()?;
    }
    Ok(())
}
