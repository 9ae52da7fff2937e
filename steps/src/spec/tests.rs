use super::*;
use lifecycle_engine::value::{SENSITIVE, decode, encode, redact};
use serde_json::json;

const MINIMAL: &str = include_str!("fixtures/minimal.json");
const RUNC: &str = include_str!("fixtures/runc.json");
const ROOTLESS: &str = include_str!("fixtures/runc-rootless.json");
const EVERYTHING: &str = include_str!("fixtures/everything.json");
const FIXTURES: [&str; 4] = [MINIMAL, RUNC, ROOTLESS, EVERYTHING];

/// A tree without the members that ask for nothing, which one writer leaves out and another writes.
fn essence(value: Value) -> Value {
    match value {
        Value::Object(mut members) if members.contains_key(SENSITIVE) => members.remove(SENSITIVE).unwrap_or_default(),
        Value::Object(members) => {
            let kept = members.into_iter().map(|(name, member)| (name, essence(member)));
            Value::Object(kept.filter(|(_, member)| !asks_nothing(member)).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(essence).collect()),
        other => other,
    }
}

fn asks_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) => false,
    }
}

#[test]
fn what_is_read_is_written() {
    for text in FIXTURES {
        let given: Value = serde_json::from_str(text).unwrap();
        let spec = Spec::parse(text).unwrap();
        assert_eq!(essence(given), essence(serde_json::to_value(&spec).unwrap()));
        assert_eq!(spec, decode(encode(&spec).unwrap()).unwrap());
    }
}

/// The oci-spec crate as the second opinion.
#[test]
fn another_implementation_reads_the_same() {
    for text in FIXTURES {
        // It spells SCHED_FLAG_RESET_ON_FORK without `FLAG_`, so it is given, and compared with, another flag.
        let text = &text.replace("SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM");
        let theirs: oci_spec::runtime::Spec = serde_json::from_str(text).unwrap();
        let mut theirs = serde_json::to_value(theirs).unwrap();
        let mut ours = serde_json::to_value(Spec::parse(text).unwrap()).unwrap();
        leave_out_known_differences(&mut theirs, &mut ours);
        assert_eq!(essence(ours), essence(theirs));
    }
}

/// What oci-spec 0.10 gets wrong, each with what the runtime-spec says.
fn leave_out_known_differences(theirs: &mut Value, ours: &mut Value) {
    for value in [theirs, ours] {
        // It has no vm.hwConfig (1.3) and no freebsd, and keeps capabilities in a set, without order.
        value["vm"] = Value::Null;
        value["freebsd"] = Value::Null;
        // It spells enableCMT and enableMBM as enableCmt and enableMbm.
        if let Some(rdt) = value["linux"]["intelRdt"].as_object_mut() {
            rdt.retain(|name, _| {
                !name.to_lowercase().starts_with("enablecmt") && !name.to_lowercase().starts_with("enablembm")
            });
        }
        if let Some(sets) = value["process"]["capabilities"].as_object_mut() {
            for set in sets.values_mut().filter_map(Value::as_array_mut) {
                set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            }
        }
    }
}

#[test]
fn fixtures_are_valid() {
    for text in FIXTURES {
        assert_eq!(validate(&Spec::parse(text).unwrap()), []);
        assert_eq!(unknown_fields(&serde_json::from_str(text).unwrap()), [""; 0]);
    }
}

#[test]
fn sections_of_other_platforms_are_named() {
    assert_eq!(other_platforms(&Spec::parse(RUNC).unwrap()), []);
    assert_eq!(other_platforms(&Spec::parse(ROOTLESS).unwrap()), []);
    for section in ["vm", "windows", "solaris", "zos", "freebsd"] {
        let mut config: Value = serde_json::from_str(MINIMAL).unwrap();
        config[section] = json!({});
        let named = other_platforms(&Spec::parse(&config.to_string()).unwrap());
        assert_eq!(named.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), [section]);
    }
}

#[test]
fn unknown_members_are_named_by_their_path() {
    let config = json!({
        "ociVersion": "1.3.0",
        "root": { "path": "rootfs", "readOnly": true },
        "mounts": [{ "destination": "/a" }, { "destination": "/b", "optoins": ["ro"] }],
        "linux": { "resources": { "memory": { "limits": 1 } }, "maskedPath": null },
        "annotations": { "anything": "goes" },
        "com.example.own": { "x": 1 },
        "vm": { "whatever": 1 },
    });
    assert_eq!(
        unknown_fields(&config),
        ["root.readOnly", "mounts[1].optoins", "linux.resources.memory.limits", "com.example.own"]
    );
}

#[test]
fn null_and_empty_are_absent() {
    let spec = Spec::parse(
        r#"{"ociVersion": "1.0.0", "hostname": "", "mounts": null, "process": {"cwd": "/", "args": ["a"], "env": null, "user": null, "apparmorProfile": ""}}"#,
    )
    .unwrap();
    assert_eq!(spec.hostname, None);
    assert!(spec.mounts.is_empty());
    assert_eq!(spec.process.unwrap().apparmor_profile, None);
}

#[test]
fn a_wrong_value_is_reported_with_its_place() {
    let error =
        Spec::parse("{\n  \"ociVersion\": \"1.0.0\",\n  \"linux\": {\"namespaces\": [{\"type\": \"pids\"}]}\n}")
            .unwrap_err();
    assert_eq!(error.line(), 3);
    assert!(error.to_string().contains("unknown variant `pids`"), "{error}");
}

/// One violation at a time, on top of the minimal config: the patch, and the path of the problem that must be reported.
#[test]
fn violations_are_found() {
    let cases = [
        (json!({"ociVersion": "1.0"}), "ociVersion"),
        (json!({"ociVersion": "2.0.0"}), "ociVersion"),
        (json!({"ociVersion": "1.01.0"}), "ociVersion"),
        (json!({"root": null}), "root"),
        (json!({"process": {"cwd": "tmp"}}), "process.cwd"),
        (json!({"process": {"args": []}}), "process.args"),
        (json!({"process": {"env": ["=x"]}}), "process.env[0]"),
        (json!({"process": {"env": ["NAME"]}}), "process.env[0]"),
        (json!({"process": {"oomScoreAdj": 1001}}), "process.oomScoreAdj"),
        (
            json!({"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}]}}),
            "process.rlimits[1].type",
        ),
        (json!({"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}}), "process.rlimits[0].soft"),
        (json!({"process": {"scheduler": {"policy": "SCHED_FIFO"}}}), "process.scheduler.priority"),
        (json!({"process": {"user": {"uid": 4_294_967_295_u32}}}), "process.user.uid"),
        (json!({"process": {"user": {"gid": 4_294_967_295_u32}}}), "process.user.gid"),
        (json!({"process": {"user": {"additionalGids": [1, 4_294_967_295_u32]}}}), "process.user.additionalGids[1]"),
        (json!({"hostname": "x"}), "hostname"),
        (json!({"annotations": {"": "x"}}), "annotations"),
        (json!({"root": {"path": ""}}), "root.path"),
        (json!({"linux": {"resources": {"rdma": {"mlx5_1": {}}}}}), "linux.resources.rdma.mlx5_1"),
        (
            json!({"linux": {"resources": {"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}}}}),
            "linux.resources.blockIO.weightDevice[0]",
        ),
        (json!({"linux": {"resources": {"cpu": {"quota": 10, "burst": 20}}}}), "linux.resources.cpu.burst"),
        (json!({"linux": {"personality": {"domain": "LINUX", "flags": ["X"]}}}), "linux.personality.flags"),
        (json!({"linux": {"intelRdt": {"memBwSchema": "L3:0=f"}}}), "linux.intelRdt.memBwSchema"),
        (
            json!({"linux": {"devices": [{"type": "c", "path": "dev/x", "major": 1, "minor": 3}]}}),
            "linux.devices[0].path",
        ),
        (
            json!({"linux": {"devices": [{"type": "p", "path": "/dev/x", "uid": 4_294_967_295_u32}]}}),
            "linux.devices[0].uid",
        ),
        (json!({"linux": {"namespaces": [{"type": "network"}], "netDevices": {"lo": {}}}}), "linux.netDevices.lo"),
        (
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}}}),
            "linux.seccomp.listenerMetadata",
        ),
        (
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}}}),
            "linux.seccomp.defaultErrnoRet",
        ),
        (
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "agent.sock"}}}),
            "linux.seccomp.listenerPath",
        ),
        (
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
                "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}}}),
            "linux.seccomp.syscalls[0].names",
        ),
        (
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}}}),
            "linux.seccomp.syscalls[0].args[0].index",
        ),
        (json!({"domainname": "x"}), "domainname"),
        (json!({"hostname": "a\0b"}), "hostname"),
        (json!({"root": {"path": "root\0fs"}}), "root.path"),
        (json!({"mounts": [{"destination": "/a\0b", "type": "tmpfs"}]}), "mounts[0].destination"),
        (json!({"mounts": [{"destination": "/a", "type": "tmp\0fs"}]}), "mounts[0].type"),
        (json!({"mounts": [{"destination": "/a", "type": "tmpfs", "source": "a\0"}]}), "mounts[0].source"),
        (
            json!({"mounts": [{"destination": "/a", "type": "tmpfs", "options": ["ro", "size\0=1"]}]}),
            "mounts[0].options[1]",
        ),
        (json!({"mounts": [{"destination": "/a", "type": "bind"}]}), "mounts[0].source"),
        (json!({"hooks": {"prestart": [{"path": "/x", "args": ["x", "a\0"]}]}}), "hooks.prestart[0].args[1]"),
        (json!({"linux": {"cgroupsPath": "/a\0b"}}), "linux.cgroupsPath"),
        (json!({"linux": {"namespaces": [{"type": "user"}]}}), "linux.namespaces"),
        (json!({"linux": {"resources": {"cpu": {"period": 999}}}}), "linux.resources.cpu.period"),
        (json!({"linux": {"resources": {"cpu": {"quota": 999}}}}), "linux.resources.cpu.quota"),
        (json!({"linux": {"resources": {"memory": {"reservation": -2}}}}), "linux.resources.memory.reservation"),
        (json!({"hooks": {"poststop": [{"path": "bin/x"}]}}), "hooks.poststop[0].path"),
        (json!({"hooks": {"prestart": [{"path": "/x", "timeout": 0}]}}), "hooks.prestart[0].timeout"),
        (json!({"mounts": [{"destination": "/x", "options": ["rbind"]}]}), "mounts[0].source"),
        (json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "pid"}]}}), "linux.namespaces[1].type"),
        (json!({"linux": {"namespaces": [{"type": "pid", "path": "ns/pid"}]}}), "linux.namespaces[0].path"),
        (json!({"linux": {"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}}), "linux.uidMappings"),
        (json!({"linux": {"namespaces": [{"type": "user"}]}}), "linux.uidMappings"),
        (json!({"linux": {"timeOffsets": {"boottime": {"secs": 1}}}}), "linux.timeOffsets"),
        (json!({"linux": {"devices": [{"type": "c", "path": "/dev/x"}]}}), "linux.devices[0].major"),
        (json!({"linux": {"netDevices": {"eth0": {}}}}), "linux.netDevices"),
        (json!({"linux": {"sysctl": {"kernel.core_pattern": "x"}}}), "linux.sysctl.kernel.core_pattern"),
        (json!({"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}), "linux.sysctl.net.ipv4.ip_forward"),
        (json!({"linux": {"sysctl": {"net/../kernel/core_pattern": "1"}}}), "linux.sysctl.net/../kernel/core_pattern"),
        (
            json!({"linux": {"namespaces": [{"type": "ipc"}], "sysctl": {"kernel.shmmax": "1+kernel.core_pattern=x"}}}),
            "linux.sysctl.kernel.shmmax",
        ),
        (json!({"linux": {"namespaces": [{"type": "mount"}], "readonlyPaths": ["proc"]}}), "linux.readonlyPaths[0]"),
        (json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}}), "linux.seccomp.defaultAction"),
        (
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}}}),
            "linux.seccomp.syscalls[0].names",
        ),
        (
            json!({"linux": {"resources": {"devices": [{"allow": true, "access": "rwx"}]}}}),
            "linux.resources.devices[0].access",
        ),
        (json!({"linux": {"resources": {"unified": {"../memory.max": "1"}}}}), "linux.resources.unified.../memory.max"),
        (
            json!({"linux": {"resources": {"hugepageLimits": [{"pageSize": "2mb", "limit": 0}]}}}),
            "linux.resources.hugepageLimits[0].pageSize",
        ),
        (json!({"linux": {"memoryPolicy": {"mode": "MPOL_BIND"}}}), "linux.memoryPolicy.nodes"),
    ];
    for (patch, path) in cases {
        let mut config: Value = serde_json::from_str(MINIMAL).unwrap();
        merge(&mut config, patch.clone());
        let problems = validate(&Spec::parse(&config.to_string()).unwrap());
        assert!(problems.iter().any(|problem| problem.path == path), "{patch} gave {problems:?}, not {path}");
    }
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, value) in patch {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}

#[test]
fn overlapping_id_ranges_are_found() {
    let mapping = |container_id, host_id, size| IdMapping { container_id, host_id, size };
    let mut spec = Spec::parse(MINIMAL).unwrap();
    spec.linux.namespaces.push(Namespace { kind: NamespaceType::User, path: None });
    spec.linux.gid_mappings = vec![mapping(0, 1000, 1)];
    spec.linux.uid_mappings = vec![mapping(0, 1000, 1), mapping(1, 100_000, 65_535)];
    assert_eq!(validate(&spec), []);
    spec.linux.uid_mappings.push(mapping(65_536, 165_534, 1));
    let problems = validate(&spec);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].to_string(), "linux.uidMappings: two ranges overlap in hostID");
}

#[test]
fn whom_the_program_runs_as_is_an_id_of_its_user_namespace() {
    let mut config: Value = serde_json::from_str(MINIMAL).unwrap();
    let map = |size| json!([{ "containerID": 0, "hostID": 100_000, "size": 1 }, { "containerID": 5, "hostID": 7, "size": size }]);
    config["linux"] = json!({ "namespaces": [{ "type": "mount" }, { "type": "user" }], "uidMappings": map(1), "gidMappings": map(3) });
    config["process"]["user"] = json!({ "uid": 5, "gid": 7, "additionalGids": [0, 6] });
    assert_eq!(validate(&Spec::parse(&config.to_string()).unwrap()), []);
    config["process"]["user"] = json!({ "uid": 6, "gid": 8, "additionalGids": [0, 4] });
    let problems = validate(&Spec::parse(&config.to_string()).unwrap());
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["process.user.uid", "process.user.gid", "process.user.additionalGids[1]"]);
}

#[test]
fn the_schema_has_every_field_described() {
    fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
        if let Some(properties) = schema["properties"].as_object() {
            for (name, property) in properties {
                if !property["description"].is_string() {
                    found.push(format!("{path}.{name}"));
                }
            }
        }
    }
    let schema = serde_json::to_value(schemars::schema_for!(Spec)).unwrap();
    let mut found = Vec::new();
    undescribed(&schema, "Spec", &mut found);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        undescribed(definition, name, &mut found);
    }
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_environment_is_not_shown() {
    let spec = Spec::parse(MINIMAL.replace("\"cwd\"", "\"env\": [\"PASSWORD=hunter2\"], \"cwd\"").as_str()).unwrap();
    let mut value = serde_json::to_value(&spec).unwrap();
    assert!(value.to_string().contains("hunter2"));
    redact(&mut value);
    assert!(!value.to_string().contains("hunter2"));
    assert!(!format!("{spec:?}").contains("hunter2"));
}
