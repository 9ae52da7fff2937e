//! Limits as cgroup v2 takes them. The spec's values are version 1's; conversions follow what runtimes agree on.

use std::collections::BTreeMap;

use lifecycle_engine::error::PlanError;

use super::limits::Limit;
use crate::effects::cgroup::Version;
use crate::facts::CgroupLayout;
use crate::spec::{BlockIo, Cpu, HugepageLimit, Memory, ThrottleDevice};

fn limit(field: &str, file: impl Into<String>, value: impl ToString) -> Limit {
    Limit::new(Version::V2, field, file, value)
}

fn absent(field: &str) -> PlanError {
    PlanError::new(field, "has no counterpart in cgroup v2").help("remove it, or use `resources.unified`")
}

/// -1 is "unlimited".
fn or_max(n: i64) -> String {
    if n < 0 { "max".to_owned() } else { n.to_string() }
}

pub(super) fn memory(memory: &Memory, out: &mut Vec<Limit>) -> Result<(), PlanError> {
    let refused = [
        ("swappiness", memory.swappiness.is_some()),
        ("disableOOMKiller", memory.disable_oom_killer == Some(true)),
        ("useHierarchy", memory.use_hierarchy == Some(false)),
    ];
    if let Some((field, _)) = refused.iter().find(|(_, asked)| *asked) {
        return Err(absent(&format!("resources.memory.{field}")));
    }
    let set = |value: Option<i64>| value.filter(|n| *n != 0);
    out.extend(swap(set(memory.limit), set(memory.swap))?.map(|n| limit("memory.swap", "memory.swap.max", n)));
    out.extend(set(memory.limit).map(|n| limit("memory.limit", "memory.max", or_max(n))));
    out.extend(set(memory.reservation).map(|n| limit("memory.reservation", "memory.low", or_max(n))));
    Ok(())
}

/// The spec's limit is on memory and swap together, cgroup v2's on swap alone.
fn swap(memory: Option<i64>, both: Option<i64>) -> Result<Option<String>, PlanError> {
    match (memory, both) {
        (Some(-1), None) | (_, Some(-1)) => Ok(Some("max".to_owned())),
        (_, None) => Ok(None),
        (Some(memory), Some(both)) if memory >= 0 && both >= memory => Ok(Some((both - memory).to_string())),
        (Some(_), Some(_)) => {
            Err(PlanError::new("resources.memory.swap", "is memory and swap together, and less than `limit`"))
        }
        (None, Some(_)) => {
            Err(PlanError::new("resources.memory.swap", "needs `limit`: it is memory and swap together"))
        }
    }
}

pub(super) fn cpu(cpu: &Cpu, out: &mut Vec<Limit>) -> Result<(), PlanError> {
    let refused = [
        ("realtimeRuntime", cpu.realtime_runtime.is_some_and(|n| n != 0)),
        ("realtimePeriod", cpu.realtime_period.is_some_and(|n| n != 0)),
    ];
    if let Some((field, _)) = refused.iter().find(|(_, asked)| *asked) {
        return Err(absent(&format!("resources.cpu.{field}")));
    }
    // What is idle has no weight to set, so the weight comes first.
    out.extend(cpu.shares.filter(|n| *n != 0).map(|n| limit("cpu.shares", "cpu.weight", weight(n))));
    out.extend(cpu.idle.map(|n| limit("cpu.idle", "cpu.idle", n)));
    let (quota, period) = (cpu.quota.filter(|n| *n != 0), cpu.period.filter(|n| *n != 0));
    if quota.is_some() || period.is_some() {
        let given_quota = quota.is_some();
        let quota = quota.filter(|n| *n > 0).map_or_else(|| "max".to_owned(), |n| n.to_string());
        // The period stays as it is, 100 ms at first, where only a quota is given.
        let period = period.map(|n| format!(" {n}")).unwrap_or_default();
        let field = if given_quota { "cpu.quota" } else { "cpu.period" };
        out.push(limit(field, "cpu.max", format!("{quota}{period}")));
    }
    out.extend(cpu.burst.map(|n| limit("cpu.burst", "cpu.max.burst", n)));
    Ok(())
}

/// Shares run from 2 to 262144 with 1024 as default, weights from 1 to 10000 with 100: a quadratic in the logarithm meets all three.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let l = (shares as f64).log2();
            10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

/// 10 to 1000 becomes 1 to 10000.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10) * 9999) / 990
}

pub(super) fn block_io(io: &BlockIo, out: &mut Vec<Limit>) -> Result<(), PlanError> {
    let leaf = io.leaf_weight.is_some_and(|n| n != 0) || io.weight_device.iter().any(|d| d.leaf_weight.is_some());
    if leaf {
        return Err(absent("resources.blockIO.leafWeight"));
    }
    // BFQ's file takes the spec's own range.
    let given = io.weight.filter(|n| *n != 0);
    out.extend(given.map(|n| limit("blockIO.weight", "io.bfq.weight", n).or("io.weight", io_weight(n))));
    for device in &io.weight_device {
        let name = format!("{}:{}", device.major, device.minor);
        let value = |n: u16| {
            let otherwise = format!("{name} {}", io_weight(n));
            limit("blockIO.weightDevice", "io.bfq.weight", format!("{name} {n}")).or("io.weight", otherwise)
        };
        out.extend(device.weight.filter(|n| *n != 0).map(value));
    }
    let rates: [(&str, &str, &Vec<ThrottleDevice>); 4] = [
        ("throttleReadBpsDevice", "rbps", &io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", "wbps", &io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", "riops", &io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", "wiops", &io.throttle_write_iops_device),
    ];
    for (field, what, devices) in rates {
        let field = format!("blockIO.{field}");
        let value = |d: &ThrottleDevice| format!("{}:{} {what}={}", d.major, d.minor, d.rate);
        out.extend(devices.iter().map(|d| limit(&field, "io.max", value(d))));
    }
    Ok(())
}

pub(super) fn huge_pages(pages: &HugepageLimit, out: &mut Vec<Limit>) {
    out.push(limit("hugepageLimits", format!("hugetlb.{}.max", pages.page_size), pages.limit));
    out.push(limit("hugepageLimits", format!("hugetlb.{}.rsvd.max", pages.page_size), pages.limit).optional());
}

/// The files of the cgroup itself that are limits. The others move processes, anybody's, kill or stop them, or change what the cgroup is.
const LIMITS_OF_THE_CGROUP: [&str; 2] = ["cgroup.max.depth", "cgroup.max.descendants"];

/// Files and values that the config names itself.
pub(super) fn unified(
    given: &BTreeMap<String, String>,
    layout: &CgroupLayout,
    out: &mut Vec<Limit>,
) -> Result<(), PlanError> {
    for (file, value) in given {
        let field = || format!("resources.unified.{file}");
        let Some((controller, _)) = file.split_once('.').filter(|_| !file.contains('/')) else {
            return Err(PlanError::new(field(), "is not a cgroup's file, such as `memory.high`"));
        };
        if controller == "cgroup" && !LIMITS_OF_THE_CGROUP.contains(&file.as_str()) {
            return Err(PlanError::new(field(), "is no limit")
                .help(format!("of the cgroup's own files take {}", LIMITS_OF_THE_CGROUP.join(" or "))));
        }
        if controller != "cgroup" && layout.v2_of(controller).is_none() {
            return Err(PlanError::new(field(), format!("needs cgroup v2 with the controller `{controller}`"))
                .help("`lifecycle facts` shows which hierarchy has which controllers"));
        }
        // Each line is a write of its own: the kernel takes one entry at a time.
        let field = format!("unified.{file}");
        out.extend(value.lines().filter(|line| !line.trim().is_empty()).map(|line| limit(&field, file, line.trim())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_with_the_defaults_meeting() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
        assert_eq!([10, 500, 1000].map(io_weight), [1, 4950, 10_000]);
    }

    #[test]
    fn swap_is_what_is_left_of_memory_and_swap() {
        assert_eq!(swap(Some(64), Some(100)), Ok(Some("36".into())));
        assert_eq!(swap(Some(64), Some(64)), Ok(Some("0".into())));
        assert_eq!(swap(Some(64), Some(-1)), Ok(Some("max".into())));
        assert_eq!(swap(Some(-1), None), Ok(Some("max".into())));
        assert_eq!(swap(Some(64), None), Ok(None));
        assert!(swap(Some(64), Some(10)).is_err());
        assert!(swap(None, Some(10)).is_err());
    }
}
