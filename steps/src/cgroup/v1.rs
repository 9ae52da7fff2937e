//! Limits as cgroup v1 takes them: config-linux.md names the files.

use lifecycle_engine::error::PlanError;

use super::limits::Limit;
use crate::effects::cgroup::Version;
use crate::spec::{BlockIo, Cpu, HugepageLimit, Memory};

fn limit(field: &str, file: impl Into<String>, value: impl ToString) -> Limit {
    Limit::new(Version::V1, field, file, value)
}

/// 0 is "not set" wherever the spec's older, unsigned fields come from Go.
fn set<T: Default + PartialEq + Copy>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

pub(super) fn memory(memory: &Memory, out: &mut Vec<Limit>) -> Result<(), PlanError> {
    if memory.use_hierarchy == Some(false) {
        return Err(PlanError::new("resources.memory.useHierarchy", "cannot be false: kernels count children always")
            .help("remove it"));
    }
    // Kernels since 5.11 always do; an older one has to be told before the cgroup has children.
    out.extend(memory.use_hierarchy.map(|_| limit("memory.useHierarchy", "memory.use_hierarchy", 1).optional()));
    // A limit above the one on memory and swap is refused, so the smaller of both comes first.
    out.extend(set(memory.limit).map(|n| limit("memory.limit", "memory.limit_in_bytes", n)));
    // Without a limit on memory one on swap makes no sense to the kernel.
    let swap = set(memory.swap).or(memory.limit.filter(|limit| *limit == -1));
    out.extend(swap.map(|n| limit("memory.swap", "memory.memsw.limit_in_bytes", n)));
    out.extend(set(memory.reservation).map(|n| limit("memory.reservation", "memory.soft_limit_in_bytes", n)));
    out.extend(set(memory.kernel_tcp).map(|n| limit("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", n)));
    out.extend(memory.swappiness.map(|n| limit("memory.swappiness", "memory.swappiness", n)));
    out.extend(
        memory.disable_oom_killer.filter(|on| *on).map(|_| limit("memory.disableOOMKiller", "memory.oom_control", 1)),
    );
    Ok(())
}

pub(super) fn cpu(cpu: &Cpu, out: &mut Vec<Limit>) {
    out.extend(set(cpu.shares).map(|n| limit("cpu.shares", "cpu.shares", n)));
    // A run time above its period is refused, so the period comes first.
    out.extend(set(cpu.realtime_period).map(|n| limit("cpu.realtimePeriod", "cpu.rt_period_us", n)));
    out.extend(set(cpu.realtime_runtime).map(|n| limit("cpu.realtimeRuntime", "cpu.rt_runtime_us", n)));
    out.extend(set(cpu.period).map(|n| limit("cpu.period", "cpu.cfs_period_us", n)));
    out.extend(set(cpu.quota).map(|n| limit("cpu.quota", "cpu.cfs_quota_us", n)));
    out.extend(cpu.burst.map(|n| limit("cpu.burst", "cpu.cfs_burst_us", n)));
    out.extend(cpu.idle.map(|n| limit("cpu.idle", "cpu.idle", n)));
}

pub(super) fn block_io(io: &BlockIo, out: &mut Vec<Limit>) {
    // The weight is in the hands of the I/O scheduler: CFQ's files are gone with it, BFQ has its own.
    let weighted = |field: &str, file: &str, other: &str, value: String| limit(field, file, &value).or(other, &value);
    out.extend(set(io.weight).map(|n| weighted("blockIO.weight", "blkio.weight", "blkio.bfq.weight", n.to_string())));
    out.extend(set(io.leaf_weight).map(|n| limit("blockIO.leafWeight", "blkio.leaf_weight", n)));
    for device in &io.weight_device {
        let value = |n| format!("{}:{} {n}", device.major, device.minor);
        let weight = set(device.weight).map(value);
        let (file, other) = ("blkio.weight_device", "blkio.bfq.weight_device");
        out.extend(weight.map(|value| weighted("blockIO.weightDevice", file, other, value)));
        out.extend(
            set(device.leaf_weight).map(|n| limit("blockIO.weightDevice", "blkio.leaf_weight_device", value(n))),
        );
    }
    let rates = [
        ("throttleReadBpsDevice", "read_bps", &io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", "write_bps", &io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", "read_iops", &io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", "write_iops", &io.throttle_write_iops_device),
    ];
    for (field, what, devices) in rates {
        let (field, file) = (format!("blockIO.{field}"), format!("blkio.throttle.{what}_device"));
        out.extend(devices.iter().map(|d| limit(&field, &file, format!("{}:{} {}", d.major, d.minor, d.rate))));
    }
}

pub(super) fn huge_pages(pages: &HugepageLimit, out: &mut Vec<Limit>) {
    let file = |middle: &str| format!("hugetlb.{}.{middle}limit_in_bytes", pages.page_size);
    out.push(limit("hugepageLimits", file(""), pages.limit));
    // Reserved pages count since Linux 5.7; without this a mapping kills instead of failing.
    out.push(limit("hugepageLimits", file("rsvd."), pages.limit).optional());
}
