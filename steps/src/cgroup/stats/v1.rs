//! What cgroup v1 counts: Documentation/admin-guide/cgroup-v1.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{huge_page, huge_pages, keyed, list, number, numbers, text};
use super::{BlkioEntry, CpuSet, Hugetlb, MemoryEntry, Stats};

/// `cpuacct.stat` counts in USER_HZ, which is 100 on every Linux.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

pub(super) fn read(cgroups: &BTreeMap<String, PathBuf>, stats: &mut Stats) -> io::Result<()> {
    let of = |controller: &str| cgroups.get(controller).map(PathBuf::as_path);
    if let Some(at) = of("cpuacct") {
        processor(at, stats)?;
    }
    if let Some(at) = of("cpu") {
        let counted = keyed(at, "cpu.stat")?;
        let get = |key: &str| counted.get(key).copied().unwrap_or(0);
        let throttling = &mut stats.cpu.throttling;
        throttling.periods = get("nr_periods");
        throttling.throttled_periods = get("nr_throttled");
        throttling.throttled_time = get("throttled_time");
    }
    if let Some(at) = of("cpuset") {
        stats.cpuset = cpuset(at)?;
    }
    if let Some(at) = of("memory") {
        memory(at, stats)?;
    }
    if let Some(at) = of("pids") {
        stats.pids.current = number(at, "pids.current")?;
        stats.pids.limit = number(at, "pids.max").map(|limit| if limit == u64::MAX { 0 } else { limit })?;
    }
    if let Some(at) = of("blkio") {
        block_io(at, stats)?;
    }
    if let Some(at) = of("hugetlb") {
        for size in huge_pages(at, "usage_in_bytes")? {
            let read = |prefix: &str| {
                Ok(Hugetlb {
                    usage: number(at, &format!("{prefix}.usage_in_bytes"))?,
                    max: number(at, &format!("{prefix}.max_usage_in_bytes"))?,
                    failcnt: number(at, &format!("{prefix}.failcnt"))?,
                })
            };
            let counted = huge_page(at, &size, "usage_in_bytes", read)?;
            stats.hugetlb.insert(size, counted);
        }
    }
    Ok(())
}

fn processor(at: &Path, stats: &mut Stats) -> io::Result<()> {
    let usage = &mut stats.cpu.usage;
    usage.total = number(at, "cpuacct.usage")?;
    usage.percpu = numbers(at, "cpuacct.usage_percpu")?;
    let ticks = keyed(at, "cpuacct.stat")?;
    usage.user = ticks.get("user").map_or(0, |n| n * NANOSECONDS_PER_TICK);
    usage.kernel = ticks.get("system").map_or(0, |n| n * NANOSECONDS_PER_TICK);
    // `cpu user system`, then a line for each.
    for line in text(at, "cpuacct.usage_all")?.lines().skip(1) {
        let mut numbers = line.split_whitespace().skip(1).map(|word| word.parse().unwrap_or(0));
        usage.percpu_user.extend(numbers.next());
        usage.percpu_kernel.extend(numbers.next());
    }
    Ok(())
}

fn cpuset(at: &Path) -> io::Result<CpuSet> {
    let flag = |name: &str| number(at, &format!("cpuset.{name}"));
    Ok(CpuSet {
        cpus: list(&text(at, "cpuset.cpus")?),
        cpu_exclusive: flag("cpu_exclusive")?,
        mems: list(&text(at, "cpuset.mems")?),
        mem_hardwall: flag("mem_hardwall")?,
        mem_exclusive: flag("mem_exclusive")?,
        memory_migrate: flag("memory_migrate")?,
        memory_spread_page: flag("memory_spread_page")?,
        memory_spread_slab: flag("memory_spread_slab")?,
        memory_pressure: flag("memory_pressure")?,
        sched_load_balance: flag("sched_load_balance")?,
        sched_relax_domain_level: text(at, "cpuset.sched_relax_domain_level")?.trim().parse().unwrap_or(0),
    })
}

fn memory(at: &Path, stats: &mut Stats) -> io::Result<()> {
    let entry = |prefix: &str| -> io::Result<MemoryEntry> {
        Ok(MemoryEntry {
            limit: number(at, &format!("{prefix}.limit_in_bytes"))?,
            usage: number(at, &format!("{prefix}.usage_in_bytes"))?,
            max: number(at, &format!("{prefix}.max_usage_in_bytes"))?,
            failcnt: number(at, &format!("{prefix}.failcnt"))?,
        })
    };
    let memory = &mut stats.memory;
    memory.raw = keyed(at, "memory.stat")?;
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    memory.usage = entry("memory")?;
    memory.swap = entry("memory.memsw")?;
    memory.kernel = entry("memory.kmem")?;
    memory.kernel_tcp = entry("memory.kmem.tcp")?;
    Ok(())
}

/// BFQ counts where it schedules, the throttler everywhere.
fn block_io(at: &Path, stats: &mut Stats) -> io::Result<()> {
    let either = |bfq: &str, other: &str| -> io::Result<Vec<BlkioEntry>> {
        let found = entries(&text(at, bfq)?);
        if found.is_empty() { Ok(entries(&text(at, other)?)) } else { Ok(found) }
    };
    let bfq = |name: &str| text(at, &format!("blkio.bfq.{name}")).map(|text| entries(&text));
    let io = &mut stats.blkio;
    io.io_service_bytes_recursive =
        either("blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive")?;
    io.io_serviced_recursive = either("blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive")?;
    io.io_queued_recursive = bfq("io_queued_recursive")?;
    io.io_service_time_recursive = bfq("io_service_time_recursive")?;
    io.io_wait_time_recursive = bfq("io_wait_time_recursive")?;
    io.io_merged_recursive = bfq("io_merged_recursive")?;
    io.io_time_recursive = bfq("time_recursive")?;
    io.sectors_recursive = bfq("sectors_recursive")?;
    Ok(())
}

/// `8:0 Read 4096`, or `8:0 4096`; the last line is a sum of all devices, which nobody asked for.
pub(super) fn entries(text: &str) -> Vec<BlkioEntry> {
    let one = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let (op, value) = match (words.next()?, words.next()) {
            (op, Some(value)) => (op.to_owned(), value),
            (value, None) => (String::new(), value),
        };
        Some(BlkioEntry { major, minor, op, value: value.parse().ok()? })
    };
    text.lines().filter_map(one).collect()
}
