//! What a container has used: read from its cgroups, in the shape that runc's `events` prints and that callers parse (runc's
//! `types/events.go`).

mod files;
mod rdt;
mod v1;
mod v2;

use lifecycle_engine::proc;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use rdt::rdt;

use crate::effects::cgroup::processes_below;
use crate::facts::members;
use crate::outcomes::Process;

/// Everything. Go's `omitempty` leaves out what is zero, so callers take absence for zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: Cpu,
    /// Where the processes may run (cgroup v1).
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block devices.
    pub blkio: Blkio,
    /// Huge pages by page size, such as `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Cache and memory bandwidth.
    pub intel_rdt: IntelRdt,
    /// Network interfaces; null where nobody has looked ([`network`]).
    pub network_interfaces: Option<Vec<NetworkInterface>>,
}

/// CPU time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// In nanoseconds.
    pub usage: CpuUsage,
    /// How often the quota was used up.
    pub throttling: Throttling,
    /// Pressure (cgroup v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// CPU time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// All of it.
    #[serde(skip_serializing_if = "zero")]
    pub total: u64,
    /// By processor (cgroup v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel, by processor (cgroup v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// In programs, by processor (cgroup v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
}

/// How often the quota was used up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that have passed.
    #[serde(skip_serializing_if = "zero")]
    pub periods: u64,
    /// Periods in which the quota was used up.
    #[serde(skip_serializing_if = "zero")]
    pub throttled_periods: u64,
    /// How long processes had to stand still for that, in nanoseconds.
    #[serde(skip_serializing_if = "zero")]
    pub throttled_time: u64,
}

/// Where the processes may run and allocate (cgroup v1's cpuset).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuSet {
    /// Processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// `cpuset.cpu_exclusive`
    pub cpu_exclusive: u64,
    /// Memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// `cpuset.mem_hardwall`
    pub mem_hardwall: u64,
    /// `cpuset.mem_exclusive`
    pub mem_exclusive: u64,
    /// `cpuset.memory_migrate`
    pub memory_migrate: u64,
    /// `cpuset.memory_spread_page`
    pub memory_spread_page: u64,
    /// `cpuset.memory_spread_slab`
    pub memory_spread_slab: u64,
    /// `cpuset.memory_pressure`
    pub memory_pressure: u64,
    /// `cpuset.sched_load_balance`
    pub sched_load_balance: u64,
    /// `cpuset.sched_relax_domain_level`
    pub sched_relax_domain_level: i64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap together.
    pub swap: MemoryEntry,
    /// Kernel memory (cgroup v1).
    pub kernel: MemoryEntry,
    /// TCP buffers (cgroup v1).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat`, word by word.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure (cgroup v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
    /// How often limits were met (cgroup v2).
    pub event_count: MemoryEvents,
}

/// One kind of memory, in bytes. A limit of 2^64 - 1 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    /// The limit.
    pub limit: u64,
    /// In use.
    #[serde(skip_serializing_if = "zero")]
    pub usage: u64,
    /// The most that was ever in use.
    #[serde(skip_serializing_if = "zero")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// `memory.events`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEvents {
    /// Reclaimed although below `memory.low`.
    #[serde(skip_serializing_if = "zero")]
    pub low: u64,
    /// Throttled above `memory.high`.
    #[serde(skip_serializing_if = "zero")]
    pub high: u64,
    /// About to go over `memory.max`.
    #[serde(skip_serializing_if = "zero")]
    pub max: u64,
    /// Allocations about to fail.
    #[serde(skip_serializing_if = "zero")]
    pub oom: u64,
    /// Processes killed.
    #[serde(skip_serializing_if = "zero")]
    pub oom_kill: u64,
}

/// Tasks. A limit of 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// How many there are.
    #[serde(skip_serializing_if = "zero")]
    pub current: u64,
    /// The limit.
    #[serde(skip_serializing_if = "zero")]
    pub limit: u64,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Requests that wait.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Time of the device, in nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Time in the queue, in nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Merged requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Time of the device, in milliseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Pressure (cgroup v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One number of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    /// The device's major number.
    #[serde(skip_serializing_if = "zero")]
    pub major: u64,
    /// The device's minor number.
    #[serde(skip_serializing_if = "zero")]
    pub minor: u64,
    /// `Read`, `Write`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    #[serde(skip_serializing_if = "zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hugetlb {
    /// In use.
    #[serde(skip_serializing_if = "zero")]
    pub usage: u64,
    /// The most that was ever in use (cgroup v1).
    #[serde(skip_serializing_if = "zero")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Cache and memory bandwidth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IntelRdt {
    /// What the processor has of shared cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<L3CacheInfo>,
    /// The line of cache ways of whoever is in no group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The group's line of cache ways.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// What the processor has of memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<MemBwInfo>,
    /// The line of memory bandwidth of whoever is in no group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The group's line of memory bandwidth.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// Bandwidth, one entry for each memory node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<MbmStats>>,
    /// Cache in use, one entry for each memory node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<CmtStats>>,
}

/// What a processor has of shared cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct L3CacheInfo {
    /// All of its ways, a bit each, in hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cbm_mask: String,
    /// How many bits a group's share has at least.
    #[serde(skip_serializing_if = "zero")]
    pub min_cbm_bits: u64,
    /// How many classes of service there can be.
    #[serde(skip_serializing_if = "zero")]
    pub num_closids: u64,
}

/// What a processor has of memory bandwidth, in percent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemBwInfo {
    /// In steps of this.
    #[serde(skip_serializing_if = "zero")]
    pub bandwidth_gran: u64,
    /// Whether a share is what it says: 1, or 0.
    #[serde(skip_serializing_if = "zero")]
    pub delay_linear: u64,
    /// The least share.
    #[serde(skip_serializing_if = "zero")]
    pub min_bandwidth: u64,
    /// How many classes of service there can be.
    #[serde(skip_serializing_if = "zero")]
    pub num_closids: u64,
}

/// Memory bandwidth of one node, in bytes since the group was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MbmStats {
    /// All of it.
    #[serde(skip_serializing_if = "zero")]
    pub mbm_total_bytes: u64,
    /// To the node's own memory.
    #[serde(skip_serializing_if = "zero")]
    pub mbm_local_bytes: u64,
}

/// Cache of one node, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CmtStats {
    /// In use.
    #[serde(skip_serializing_if = "zero")]
    pub llc_occupancy: u64,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkInterface {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Errors on reception.
    pub rx_errors: u64,
    /// Dropped on reception.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Errors on sending.
    pub tx_errors: u64,
    /// Dropped on sending.
    pub tx_dropped: u64,
}

/// Pressure stall information: Documentation/accounting/psi.rst.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// At least one process waited.
    pub some: PressureLine,
    /// All of them waited.
    pub full: PressureLine,
}

/// Shares of time in percent, and a sum in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PressureLine {
    /// Over 10 seconds.
    pub avg10: f64,
    /// Over 60 seconds.
    pub avg60: f64,
    /// Over 300 seconds.
    pub avg300: f64,
    /// Ever.
    pub total: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn zero(value: &u64) -> bool {
    *value == 0
}

/// Reads what the cgroups count. `cgroups` are the directories by controller, version 2 by an empty name, as `cgroup.create` tells them. What
/// a kernel does not count stays zero; the error is the kernel's for a file that is there and cannot be read.
pub fn stats(cgroups: &BTreeMap<String, PathBuf>) -> io::Result<Stats> {
    let mut stats = Stats::default();
    if let Some(at) = cgroups.get("") {
        v2::read(at, &mut stats)?;
    }
    v1::read(cgroups, &mut stats)?;
    Ok(stats)
}

/// Every process in the container's cgroup and those below it, in ascending order. The error is the kernel's.
///
/// One that is gone has none; then those of `process`, the container's first, are looked for where that is by now.
pub fn pids(cgroups: &BTreeMap<String, PathBuf>, process: &Process) -> io::Result<Vec<i32>> {
    // A process may have moved itself in one hierarchy (a systemd in the container does), so all of them are asked.
    let mut directories: Vec<&Path> = cgroups.values().map(PathBuf::as_path).collect();
    directories.sort_unstable();
    directories.dedup();
    let mut found = Vec::new();
    for directory in directories {
        found.extend(processes_below(directory)?);
    }
    found.extend(cgroups.get("").map(|recorded| members(process, recorded)).unwrap_or_default());
    found.sort_unstable();
    found.dedup();
    // 0 is a process of another PID namespace, which nobody here can name.
    found.retain(|pid| *pid > 0);
    Ok(found)
}

/// The interfaces in the network namespace of a process, without the loopback, from /proc/PID/net/dev.
pub fn network(pid: i32) -> io::Result<Vec<NetworkInterface>> {
    proc::text(format!("/proc/{pid}/net/dev")).map(|text| interfaces(&text))
}

fn interfaces(text: &str) -> Vec<NetworkInterface> {
    let one = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let n: Vec<u64> = numbers.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, .., tx_bytes, tx_packets, tx_errors, tx_dropped, _, _, _, _] =
            n[..]
        else {
            return None;
        };
        let name = name.trim().to_owned();
        Some(NetworkInterface {
            name,
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        })
    };
    text.lines().filter_map(one).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests;
