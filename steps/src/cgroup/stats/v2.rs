//! What cgroup v2 counts: Documentation/admin-guide/cgroup-v2.rst.

use std::io;
use std::path::Path;

use super::files::{huge_page, huge_pages, keyed, number, pressure, text};
use super::{BlkioEntry, Hugetlb, MemoryEntry, MemoryEvents, Stats};

pub(super) fn read(at: &Path, stats: &mut Stats) -> io::Result<()> {
    processor(at, stats)?;
    memory(at, stats)?;
    stats.pids.current = number(at, "pids.current")?;
    stats.pids.limit = number(at, "pids.max").map(|limit| if limit == u64::MAX { 0 } else { limit })?;
    block_io(&text(at, "io.stat")?, stats);
    stats.cpu.psi = pressure(&text(at, "cpu.pressure")?);
    stats.memory.psi = pressure(&text(at, "memory.pressure")?);
    stats.blkio.psi = pressure(&text(at, "io.pressure")?);
    for size in huge_pages(at, "current")? {
        let read = |prefix: &str| {
            // What is reserved has no events of its own.
            let events = keyed(at, &format!("hugetlb.{size}.events"))?;
            let failcnt = events.get("max").copied().unwrap_or(0);
            Ok(Hugetlb { usage: number(at, &format!("{prefix}.current"))?, max: 0, failcnt })
        };
        let counted = huge_page(at, &size, "current", read)?;
        stats.hugetlb.insert(size, counted);
    }
    Ok(())
}

/// Microseconds here, nanoseconds there.
fn processor(at: &Path, stats: &mut Stats) -> io::Result<()> {
    let counted = keyed(at, "cpu.stat")?;
    let get = |key: &str| counted.get(key).copied().unwrap_or(0);
    let cpu = &mut stats.cpu;
    cpu.usage.total = get("usage_usec") * 1000;
    cpu.usage.user = get("user_usec") * 1000;
    cpu.usage.kernel = get("system_usec") * 1000;
    cpu.throttling.periods = get("nr_periods");
    cpu.throttling.throttled_periods = get("nr_throttled");
    cpu.throttling.throttled_time = get("throttled_usec") * 1000;
    Ok(())
}

/// Swap is told together with memory, as version 1 counts it.
fn memory(at: &Path, stats: &mut Stats) -> io::Result<()> {
    let memory = &mut stats.memory;
    memory.raw = keyed(at, "memory.stat")?;
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    let events = keyed(at, "memory.events")?;
    let event = |key: &str| events.get(key).copied().unwrap_or(0);
    memory.event_count = MemoryEvents {
        low: event("low"),
        high: event("high"),
        max: event("max"),
        oom: event("oom"),
        oom_kill: event("oom_kill"),
    };
    memory.usage = MemoryEntry {
        limit: number(at, "memory.max")?,
        usage: number(at, "memory.current")?,
        max: number(at, "memory.peak")?,
        failcnt: event("max"),
    };
    let swap_events = keyed(at, "memory.swap.events")?;
    memory.swap = MemoryEntry {
        limit: number(at, "memory.swap.max")?.saturating_add(memory.usage.limit),
        usage: number(at, "memory.swap.current")?.saturating_add(memory.usage.usage),
        max: 0,
        failcnt: swap_events.get("fail").copied().unwrap_or(0),
    };
    Ok(())
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
pub(super) fn block_io(text: &str, stats: &mut Stats) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|word| word.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (bytes, op) = match key {
                "rbytes" => (true, "Read"),
                "wbytes" => (true, "Write"),
                "dbytes" => (true, "Discard"),
                "rios" => (false, "Read"),
                "wios" => (false, "Write"),
                "dios" => (false, "Discard"),
                _ => continue,
            };
            let io = &mut stats.blkio;
            let table = if bytes { &mut io.io_service_bytes_recursive } else { &mut io.io_serviced_recursive };
            table.push(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().unwrap_or(0) });
        }
    }
}
