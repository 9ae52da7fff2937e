//! Limits, device rules and annotations as properties of a systemd unit: systemd.resource-control(5).
//!
//! systemd applies its properties again whenever it reloads, so it has to know what it can express. What a property cannot say exactly is
//! written into the cgroup's files besides.

use std::collections::BTreeMap;

use lifecycle_engine::error::PlanError;

use super::devices::{DeviceRules, Exception};
use super::limits::Limit;
use crate::dbus::{Value, parse};
use crate::effects::cgroup::Version;
use crate::systemd::Property;

/// The start of the annotations that set properties.
const ANNOTATION: &str = "org.systemd.property.";

/// systemd's word for "no limit".
const INFINITY: u64 = u64::MAX;

/// The period of a CPU quota where none is given: the kernel's own, in microseconds.
const PERIOD: u64 = 100_000;

/// systemd keeps a quota in hundredths of a processor: 10 ms of each second.
const QUOTA_STEP: u64 = 10_000;

/// What limits are as properties; those without a property are left out.
pub(super) fn of_limits(limits: &[Limit]) -> Vec<Property> {
    let mut out = Vec::new();
    for limit in limits {
        if let Some((name, value)) = plain(limit) {
            out.push(Property::new(name, &value));
        }
    }
    out.extend(quota(limits));
    out
}

/// A limit that is one property.
fn plain(limit: &Limit) -> Option<(&'static str, Value)> {
    let bytes = |text: &str| match text {
        "max" | "-1" => Some(INFINITY),
        text => text.parse().ok(),
    };
    let number = bytes(&limit.value);
    let within = |low: u64, high: u64| number.map(|n| Value::U64(n.clamp(low, high)));
    Some(match (limit.version, limit.file.as_str()) {
        (Version::V2, "memory.max") => ("MemoryMax", Value::U64(number?)),
        (Version::V2, "memory.high") => ("MemoryHigh", Value::U64(number?)),
        (Version::V2, "memory.low") => ("MemoryLow", Value::U64(number?)),
        (Version::V2, "memory.min") => ("MemoryMin", Value::U64(number?)),
        (Version::V2, "memory.swap.max") => ("MemorySwapMax", Value::U64(number?)),
        (Version::V2, "cpu.weight") => ("CPUWeight", within(1, 10_000)?),
        (Version::V2, "io.bfq.weight" | "io.weight") => {
            let weight = limit.otherwise.as_ref().map_or(&limit.value, |other| &other.value);
            ("IOWeight", Value::U64(weight.parse::<u64>().ok()?.clamp(1, 10_000)))
        }
        (Version::V2, "cpuset.cpus") => ("AllowedCPUs", mask(&limit.value)?),
        (Version::V2, "cpuset.mems") => ("AllowedMemoryNodes", mask(&limit.value)?),
        (Version::V1, "memory.limit_in_bytes") => ("MemoryLimit", Value::U64(number?)),
        (Version::V1, "cpu.shares") => ("CPUShares", within(2, 262_144)?),
        (Version::V1, "blkio.weight") => ("BlockIOWeight", within(10, 1000)?),
        (_, "pids.max") => ("TasksMax", Value::U64(number?)),
        _ => return None,
    })
}

/// The share of a processor, from one file in version 2 and two in version 1.
fn quota(limits: &[Limit]) -> Vec<Property> {
    let file = |name: &str| limits.iter().rfind(|limit| limit.file == name).map(|limit| limit.value.as_str());
    let both = file("cpu.max").map(|text| text.split_once(' ').unwrap_or((text, "")));
    let (quota, period) = match both {
        Some((quota, period)) => (Some(quota), Some(period)),
        None => (file("cpu.cfs_quota_us"), file("cpu.cfs_period_us")),
    };
    let period = period.and_then(|text| text.parse::<u64>().ok());
    let mut out = Vec::new();
    out.extend(period.map(|period| Property::new("CPUQuotaPeriodUSec", &Value::U64(period))));
    if quota.is_some() || period.is_some() {
        let quota = quota.and_then(|text| text.parse::<u64>().ok());
        let per_second = quota.map_or(INFINITY, |quota| per_second(quota, period.unwrap_or(PERIOD)));
        out.push(Property::new("CPUQuotaPerSecUSec", &Value::U64(per_second)));
    }
    out
}

/// Rounded up, so that what is below the unit can have what it was promised.
fn per_second(quota: u64, period: u64) -> u64 {
    (quota.saturating_mul(1_000_000) / period.max(1)).next_multiple_of(QUOTA_STEP)
}

/// A list such as `0-2,7` as a bit mask, the lowest byte first.
fn mask(list: &str) -> Option<Value> {
    // NR_CPUS is at most 8192 anywhere; a longer list is the kernel's to refuse.
    const MOST: usize = 8192;
    let mut bytes = Vec::<u8>::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        for n in (first..=last).take_while(|n| *n < MOST) {
            bytes.resize(bytes.len().max(n / 8 + 1), 0);
            bytes[n / 8] |= 1 << (n % 8);
        }
    }
    Some(Value::Array("y".into(), bytes.into_iter().map(Value::Byte).collect()))
}

/// Device rules as systemd has them: a list of what is allowed, or no rules.
///
/// systemd knows no list of what is denied. On version 2 its filter and ours must both allow a device, so it gets none; on version 1 both write
/// the same file and ours is written last, so it gets the strictest.
pub(super) fn of_devices(version: Version, rules: &DeviceRules) -> Vec<Property> {
    let entries: Vec<Option<Value>> = rules.exceptions.iter().map(device).collect();
    let expressible = !rules.allow_all && entries.iter().all(Option::is_some);
    let open = rules.allow_all && rules.exceptions.is_empty();
    let (policy, allow) = match version {
        _ if open => ("auto", Vec::new()),
        Version::V2 if !expressible => ("auto", Vec::new()),
        Version::V1 if rules.allow_all => ("strict", Vec::new()),
        _ => ("strict", entries.into_iter().flatten().collect()),
    };
    vec![
        Property::new("DevicePolicy", &Value::str(policy)),
        Property::new("DeviceAllow", &Value::Array("(ss)".into(), allow)),
    ]
}

/// One allowed device, or all of one kind or number. `None`: systemd has no words for all devices with one minor number.
fn device(exception: &Exception) -> Option<Value> {
    let kind = if exception.kind == 'b' { "block" } else { "char" };
    let name = match (exception.major, exception.minor) {
        (None, None) => format!("{kind}-*"),
        (None, Some(_)) => return None,
        (Some(major), None) => format!("{kind}-{major}"),
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
    };
    Some(Value::Struct(vec![Value::str(name), Value::str(&exception.access)]))
}

/// Whether a property takes that value.
type Takes = fn(&Value) -> bool;

/// What annotations may set, with the values that they may give it.
///
/// podman and others put an image's annotations among the config's, so whoever has made the image speaks here. To systemd almost every property
/// is a way to the host: units are stopped by `Conflicts`, the machine is rebooted by `FailureAction`, limits and devices are undone. These are
/// none. Nothing that the config asks for is among them, and neither is a text that would go on in the next line of the file which systemd keeps
/// of a unit and reads again.
const ANNOTATED: [(&str, Takes); 7] = [
    (
        "CollectMode",
        |value| matches!(value, Value::Str(mode) if ["inactive", "inactive-or-failed"].contains(&mode.as_str())),
    ),
    ("Description", |value| matches!(value, Value::Str(text) if is_plain(text))),
    ("RuntimeMaxUSec", |value| matches!(value, Value::U64(_))),
    ("TimeoutStopUSec", |value| matches!(value, Value::U64(_))),
    // What CRI-O and containerd ask for.
    ("After", |value| *value == Value::Array("s".into(), vec![Value::str("crio.service")])),
    ("DefaultDependencies", |value| matches!(value, Value::Bool(_))),
    ("Delegate", |value| *value == Value::Bool(true)),
];

/// Whether it is one line, and not too long for one, whatever stands behind it.
fn is_plain(text: &str) -> bool {
    text.len() <= 256 && !text.chars().any(|c| c.is_control() || c == '\\')
}

/// The properties that annotations ask for.
pub(super) fn of_annotations(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, PlanError> {
    let asked = annotations.iter().filter_map(|(key, text)| Some((key, key.strip_prefix(ANNOTATION)?, text)));
    asked.map(|(key, name, text)| annotated(key, name, text)).collect()
}

fn annotated(key: &str, name: &str, text: &str) -> Result<Property, PlanError> {
    let wrong = |why: String| PlanError::new(format!("annotations.{key}"), why);
    // Over D-Bus times are in microseconds, and so are their names.
    let seconds = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    let property = seconds.map_or_else(|| name.to_owned(), |stem| format!("{stem}USec"));
    let Some((_, takes)) = ANNOTATED.iter().find(|(allowed, _)| *allowed == property) else {
        let allowed = ANNOTATED.map(|(allowed, _)| allowed).join(", ");
        return Err(wrong(format!("`{name}` is no property for an annotation to set, since an image has annotations too"))
            .help(format!("what can be set is {allowed}; limits and devices are set in linux.resources, the slice in linux.cgroupsPath")));
    };
    let mut value = parse(text).map_err(|why| {
        wrong(why).help("a value is in GVariant's text format: `uint64 5`, `true`, `'text'`, `['a', 'b']`")
    })?;
    if seconds.is_some() {
        value = Value::U64(micros(&value).ok_or_else(|| {
            wrong(format!("`{text}` is no number of seconds"))
                .help(format!("or set `{ANNOTATION}{property}` in microseconds"))
        })?);
    }
    if !takes(&value) {
        return Err(wrong(format!(
            "`{text}` is no value that an annotation may give it, since an image has annotations too"
        ))
        .help(
            "such as `uint64 5000000` for a time, `'inactive-or-failed'`, one line of text, `['crio.service']`, `true`",
        ));
    }
    Ok(Property::new(&property, &value))
}

fn micros(seconds: &Value) -> Option<u64> {
    let whole = |n: i128| u64::try_from(n.checked_mul(1_000_000)?).ok();
    match seconds {
        Value::Byte(n) => whole(i128::from(*n)),
        Value::I16(n) => whole(i128::from(*n)),
        Value::U16(n) => whole(i128::from(*n)),
        Value::I32(n) => whole(i128::from(*n)),
        Value::U32(n) => whole(i128::from(*n)),
        Value::I64(n) => whole(i128::from(*n)),
        Value::U64(n) => whole(i128::from(*n)),
        Value::Double(n) if *n >= 0.0 && *n < 1.8e13 => Some((n * 1e6) as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(properties: &[Property]) -> Vec<String> {
        properties.iter().map(Property::to_string).collect()
    }

    fn v2(file: &str, value: &str) -> Limit {
        Limit::new(Version::V2, "", file, value)
    }

    #[test]
    fn limits_become_properties() {
        let limits = [
            v2("memory.max", "67108864"),
            v2("memory.swap.max", "max"),
            v2("cpu.weight", "20"),
            v2("pids.max", "16"),
            v2("cpuset.cpus", "0-1,9"),
            v2("io.bfq.weight", "500").or("io.weight", 4950),
            v2("hugetlb.2MB.max", "0"),
        ];
        let expected = [
            "MemoryMax=uint64 67108864",
            "MemorySwapMax=uint64 18446744073709551615",
            "CPUWeight=uint64 20",
            "TasksMax=uint64 16",
            "AllowedCPUs=[byte 0x03, byte 0x02]",
            "IOWeight=uint64 4950",
        ];
        assert_eq!(shown(&of_limits(&limits)), expected);
    }

    #[test]
    fn a_quota_is_rounded_up_to_a_hundredth_of_a_processor() {
        let one = |limits: &[Limit]| shown(&of_limits(limits));
        let period = "CPUQuotaPeriodUSec=uint64 100000";
        assert_eq!(one(&[v2("cpu.max", "12345 100000")]), [period, "CPUQuotaPerSecUSec=uint64 130000"]);
        assert_eq!(one(&[v2("cpu.max", "max 100000")]), [period, "CPUQuotaPerSecUSec=uint64 18446744073709551615"]);
        let v1 = |file, value| Limit::new(Version::V1, "cpu", file, value);
        assert_eq!(one(&[v1("cpu.cfs_quota_us", "50000")]), ["CPUQuotaPerSecUSec=uint64 500000"]);
    }

    #[test]
    fn devices_are_a_list_of_what_is_allowed() {
        let exception = |major, minor| Exception { kind: 'c', major, minor, access: "rw".into() };
        let rules = |allow_all, exceptions| DeviceRules { allow_all, exceptions };
        let allowed =
            rules(false, vec![exception(Some(1), Some(3)), exception(Some(136), None), exception(None, None)]);
        let list = "DeviceAllow=[('/dev/char/1:3', 'rw'), ('char-136', 'rw'), ('char-*', 'rw')]";
        assert_eq!(shown(&of_devices(Version::V2, &allowed)), ["DevicePolicy='strict'", list]);
        let open = ["DevicePolicy='auto'", "DeviceAllow=@a(ss) []"];
        let shut = ["DevicePolicy='strict'", "DeviceAllow=@a(ss) []"];
        assert_eq!(shown(&of_devices(Version::V1, &rules(true, Vec::new()))), open);
        let denied = rules(true, vec![exception(Some(1), Some(3))]);
        assert_eq!(shown(&of_devices(Version::V2, &denied)), open);
        assert_eq!(shown(&of_devices(Version::V1, &denied)), shut);
        assert_eq!(shown(&of_devices(Version::V2, &rules(false, vec![exception(None, Some(1))]))), open);
    }

    #[test]
    fn annotations_set_properties() {
        let of = |key: &str, text: &str| of_annotations(&[(format!("{ANNOTATION}{key}"), text.to_owned())].into());
        let one = |key, text| of(key, text).map(|p| shown(&p).concat());
        assert_eq!(one("TimeoutStopUSec", "uint64 123456789"), Ok("TimeoutStopUSec=uint64 123456789".into()));
        assert_eq!(one("TimeoutStopSec", "2.5"), Ok("TimeoutStopUSec=uint64 2500000".into()));
        assert_eq!(one("TimeoutStopSec", "uint64 7"), Ok("TimeoutStopUSec=uint64 7000000".into()));
        assert_eq!(one("CollectMode", "'inactive-or-failed'"), Ok("CollectMode='inactive-or-failed'".into()));
        for (key, text) in
            [("TimeoutStopSec", "'long'"), ("X", "1"), ("A.B", "1"), ("NoSuchProperty", "true"), ("CollectMode", "")]
        {
            assert!(of(key, text).is_err(), "{key}");
        }
        // podman has an image's annotations among the config's.
        let hostile = [
            ("Conflicts", "['victim.service']"),
            ("OnFailure", "['victim.service']"),
            ("After", "['victim.service']"),
            ("SuccessAction", "'reboot-force'"),
            ("FailureAction", "'reboot-force'"),
            ("TasksMax", "uint64 18446744073709551615"),
            ("MemoryMax", "uint64 18446744073709551615"),
            ("DevicePolicy", "'auto'"),
            ("DeviceAllow", "[('char-*', 'rwm')]"),
            ("BPFProgram", "[('device', '/sys/fs/bpf/x')]"),
            ("Delegate", "false"),
            ("PIDs", "[uint32 1]"),
            ("Slice", "'a.slice'"),
            // In the file that systemd keeps of a unit these would go on in the next line, or swallow it.
            ("Description", "'x\\nConflicts=victim.service'"),
            ("Description", "'x\\\\'"),
            ("CollectMode", "'x'"),
            ("TimeoutStopUSec", "'x'"),
        ];
        for (key, text) in hostile {
            let refused = of(key, text).expect_err(key);
            assert!(refused.field.ends_with(key) && refused.help.is_some(), "{refused:?}");
        }
        // CRI-O's own, and containerd's.
        for (key, text) in [("After", "['crio.service']"), ("DefaultDependencies", "true"), ("Delegate", "true")] {
            assert_eq!(one(key, text), Ok(format!("{key}={text}")));
        }
        assert_eq!(of_annotations(&[("other".to_owned(), "?".to_owned())].into()), Ok(Vec::new()));
    }
}
