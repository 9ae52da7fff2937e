//! `linux.resources`.

use super::Problems;
use crate::spec::{BlockIo, Cpu, DeviceType, HugepageLimit, Memory, Resources};
use std::collections::BTreeMap;

pub(super) fn check(resources: &Resources, problems: &mut Problems) {
    for (index, rule) in resources.devices.iter().enumerate() {
        let field = format!("linux.resources.devices[{index}]");
        if rule.access.as_deref().is_some_and(|access| access.contains(|c| !"rwm".contains(c))) {
            problems.add(format!("{field}.access"), "is made of `r`, `w` and `m`");
        }
        if rule.kind == Some(DeviceType::P) {
            problems.add(format!("{field}.type"), "a FIFO is not a device; write `a`, `b` or `c`");
        }
    }
    if let Some(memory) = &resources.memory {
        check_memory(memory, problems);
    }
    if let Some(cpu) = &resources.cpu {
        check_cpu(cpu, problems);
    }
    if let Some(block) = &resources.block_io {
        check_block_io(block, problems);
    }
    hugepages(&resources.hugepage_limits, problems);
    for (device, limit) in &resources.rdma {
        if limit.hca_handles.is_none() && limit.hca_objects.is_none() {
            problems.add(format!("linux.resources.rdma.{device}"), "needs `hcaHandles` or `hcaObjects`");
        }
    }
    unified(&resources.unified, problems);
}

/// The kernel's bounds of a period and of the quota in it, in microseconds: kernel/sched/core.c, `tg_set_cfs_bandwidth`. 0 asks for nothing, as in
/// every runtime written in Go.
fn check_cpu(cpu: &Cpu, problems: &mut Problems) {
    if cpu.idle.is_some_and(|idle| idle != 0 && idle != 1) {
        problems.add("linux.resources.cpu.idle", "is 0 or 1");
    }
    if cpu.period.is_some_and(|period| period != 0 && !(1000..=1_000_000).contains(&period)) {
        problems.add("linux.resources.cpu.period", "must lie between 1000 and 1000000 microseconds");
    }
    if cpu.quota.is_some_and(|quota| quota < -1 || (1..1000).contains(&quota)) {
        problems.add("linux.resources.cpu.quota", "must be at least 1000 microseconds, or -1 for no limit");
    }
    if cpu.burst.is_some_and(|burst| cpu.quota.is_some_and(|quota| quota > 0 && burst > quota as u64)) {
        problems.add("linux.resources.cpu.burst", "cannot be above the quota");
    }
}

fn check_memory(memory: &Memory, problems: &mut Problems) {
    let Memory { limit, reservation, swap, kernel, kernel_tcp, .. } = memory;
    let sizes =
        [("limit", limit), ("reservation", reservation), ("swap", swap), ("kernel", kernel), ("kernelTCP", kernel_tcp)];
    for (name, _) in sizes.iter().filter(|(_, size)| size.is_some_and(|size| size < -1)) {
        problems.add(format!("linux.resources.memory.{name}"), "is a number of bytes, or -1 for no limit");
    }
    if memory.swappiness.is_some_and(|swappiness| swappiness > 100) {
        problems.add("linux.resources.memory.swappiness", "must lie between 0 and 100");
    }
    if let (Some(limit), Some(swap)) = (memory.limit, memory.swap)
        && swap > 0
        && (limit > swap || limit == -1)
    {
        problems.add("linux.resources.memory.swap", "is memory and swap together, so it cannot be below `limit`");
    }
}

fn check_block_io(block: &BlockIo, problems: &mut Problems) {
    // 0 leaves the weight as it is, as in every runtime written in Go.
    let bad = |weight: Option<u16>| weight.is_some_and(|weight| weight != 0 && !(10..=1000).contains(&weight));
    for (name, weight) in [("weight", block.weight), ("leafWeight", block.leaf_weight)] {
        if bad(weight) {
            problems.add(format!("linux.resources.blockIO.{name}"), "must lie between 10 and 1000");
        }
    }
    for (index, device) in block.weight_device.iter().enumerate() {
        let field = format!("linux.resources.blockIO.weightDevice[{index}]");
        if device.weight.is_none() && device.leaf_weight.is_none() {
            problems.add(&field, "needs `weight` or `leafWeight`");
        }
        if bad(device.weight) || bad(device.leaf_weight) {
            problems.add(&field, "its weights must lie between 10 and 1000");
        }
    }
}

fn hugepages(limits: &[HugepageLimit], problems: &mut Problems) {
    for (index, limit) in limits.iter().enumerate() {
        let number = limit
            .page_size
            .strip_suffix("KB")
            .or(limit.page_size.strip_suffix("MB"))
            .or(limit.page_size.strip_suffix("GB"));
        if !number.is_some_and(|number| !number.starts_with('0') && number.parse::<u64>().is_ok()) {
            problems.add(
                format!("linux.resources.hugepageLimits[{index}].pageSize"),
                format!("`{}` is not a size such as 64KB, 2MB or 1GB", limit.page_size),
            );
        }
        if limits[..index].iter().any(|earlier| earlier.page_size == limit.page_size) {
            problems.add(
                format!("linux.resources.hugepageLimits[{index}].pageSize"),
                format!("{} is listed twice", limit.page_size),
            );
        }
    }
}

/// Keys are names of files in the cgroup's directory; anything else would write elsewhere on the host.
fn unified(files: &BTreeMap<String, String>, problems: &mut Problems) {
    for name in files.keys() {
        if name.contains('/') || !name.contains('.') || name.starts_with('.') {
            problems.add(format!("linux.resources.unified.{name}"), "is not a control file's name such as memory.max");
        }
    }
}
