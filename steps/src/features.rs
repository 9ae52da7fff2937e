//! What this runtime knows, in the shape of the runtime-spec's features.md. It is read off the types and tables that a `config.json` is parsed
//! and performed with, so that it cannot say more or less than the program does. It says nothing of the host, as the spec demands.

use rustix::thread::CapabilitySet;
use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value, json};

use crate::mounts::options;
use crate::spec::{
    Hooks, IntelRdt, Linux, MemoryPolicyFlag, MemoryPolicyMode, Mount, NamespaceType, OLDEST_VERSION, Process,
    Resources, SeccompAction, SeccompArch, SeccompFlag, SeccompOperator, VERSION,
};

/// The features structure. `commit` is what the program was built from, if its maker knows.
pub fn features(commit: Option<&str>) -> Value {
    json!({
        "ociVersionMin": OLDEST_VERSION,
        "ociVersionMax": VERSION,
        "hooks": fields::<Hooks>(),
        "mountOptions": sorted(options::known().collect()),
        "linux": {
            "namespaces": sorted(words::<NamespaceType>()),
            "capabilities": CapabilitySet::all().iter_names().map(|(name, _)| format!("CAP_{name}")).collect::<Vec<_>>(),
            "cgroup": cgroup(),
            "seccomp": seccomp(),
            "apparmor": { "enabled": has::<Process>("apparmorProfile") },
            "selinux": { "enabled": has::<Process>("selinuxLabel") },
            "intelRdt": intel_rdt(),
            "memoryPolicy": memory_policy(),
            "mountExtensions": { "idmap": { "enabled": has::<Mount>("uidMappings") } },
            "netDevices": { "enabled": has::<Linux>("netDevices") },
        },
        "annotations": annotations(commit),
        "potentiallyUnsafeConfigAnnotations": if by_systemd() { json!(["org.systemd.property."]) } else { json!([]) },
    })
}

/// Both versions of cgroups are written as files; systemd is asked where the step that makes a cgroup can be told so.
fn cgroup() -> Value {
    let systemd = by_systemd();
    json!({ "v1": true, "v2": true, "systemd": systemd, "systemdUser": systemd, "rdma": has::<Resources>("rdma") })
}

fn by_systemd() -> bool {
    let registry = crate::registry();
    let schema = registry.step("cgroup.create").map(lifecycle_engine::step::StepKind::schema);
    schema.is_some_and(|schema| schema["properties"].get("systemd").is_some())
}

fn seccomp() -> Value {
    let flags = sorted(words::<SeccompFlag>());
    json!({
        "enabled": true,
        "actions": sorted(words::<SeccompAction>()),
        "operators": sorted(words::<SeccompOperator>()),
        "archs": sorted(words::<SeccompArch>()),
        "knownFlags": flags,
        "supportedFlags": flags,
    })
}

fn intel_rdt() -> Value {
    let knows = |field: &str| has::<IntelRdt>(field);
    json!({ "enabled": has::<Linux>("intelRdt"), "schemata": knows("schemata"), "monitoring": knows("enableMonitoring") })
}

fn memory_policy() -> Value {
    json!({ "modes": sorted(words::<MemoryPolicyMode>()), "flags": sorted(words::<MemoryPolicyFlag>()) })
}

fn annotations(commit: Option<&str>) -> Value {
    let mut all = Map::from_iter([("lifecycle.version".to_owned(), json!(env!("CARGO_PKG_VERSION")))]);
    if let Some(commit) = commit {
        all.insert("lifecycle.commit".to_owned(), json!(commit));
    }
    if let Some(version) = libseccomp_version() {
        all.insert("io.github.seccomp.libseccomp.version".to_owned(), json!(version));
    }
    all.into()
}

/// The version of the libseccomp that is linked in; `None` if it does not tell.
pub fn libseccomp_version() -> Option<String> {
    libseccomp::ScmpVersion::current().ok().map(|v| format!("{}.{}.{}", v.major, v.minor, v.micro))
}

fn sorted(mut words: Vec<String>) -> Vec<String> {
    words.sort();
    words.dedup();
    words
}

/// The words that a type's values are written as.
fn words<T: JsonSchema>() -> Vec<String> {
    let schema = schema_for!(T);
    let mut found = Vec::new();
    collect(schema.as_value(), &mut found);
    found
}

/// Variants with a doc comment of their own are a `const` each, the others are together in an `enum`.
fn collect(schema: &Value, found: &mut Vec<String>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    found.extend(schema.get("const").and_then(text));
    found.extend(schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(text));
    for choices in ["oneOf", "anyOf"] {
        schema.get(choices).and_then(Value::as_array).into_iter().flatten().for_each(|one| collect(one, found));
    }
}

/// The names of a structure's fields.
fn fields<T: JsonSchema>() -> Vec<String> {
    let schema = schema_for!(T);
    let properties = schema.as_value().get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(|all| all.keys().cloned()).collect()
}

fn has<T: JsonSchema>(field: &str) -> bool {
    fields::<T>().iter().any(|name| name == field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::Options;
    use crate::spec::Spec;

    fn list(value: &Value) -> Vec<String> {
        value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
    }

    /// A config that asks for it is read.
    fn accepts(linux: &Value) -> bool {
        Spec::parse(&json!({ "ociVersion": VERSION, "linux": linux }).to_string()).is_ok()
    }

    #[test]
    fn what_is_listed_is_what_a_config_may_ask_for() {
        let all = features(None);
        for name in list(&all["linux"]["namespaces"]) {
            assert!(accepts(&json!({ "namespaces": [{ "type": name }] })), "{name}");
        }
        let seccomp = &all["linux"]["seccomp"];
        for (field, config) in [
            ("actions", json!({ "defaultAction": "?" })),
            ("archs", json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["?"] })),
            ("knownFlags", json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["?"] })),
        ] {
            assert!(list(&seccomp[field]).len() >= 4, "{field}");
            for word in list(&seccomp[field]) {
                let config: Value = serde_json::from_str(&config.to_string().replace('?', &word)).unwrap();
                assert!(accepts(&json!({ "seccomp": config })), "{word}");
            }
        }
        assert_eq!(list(&seccomp["operators"]).len(), 7);
        assert_eq!(list(&all["linux"]["namespaces"]).len(), 8);
        assert_eq!(list(&all["hooks"]).len(), 6);
        assert_eq!(list(&all["linux"]["capabilities"]).len(), 41);
    }

    #[test]
    fn a_listed_mount_option_is_understood_and_not_handed_to_the_file_system() {
        for option in options::known() {
            let with = |first: &str| Options::parse(&[first.to_owned(), option.clone()]);
            let options = with("rbind").or_else(|_| with("defaults"));
            assert!(options.is_ok_and(|options| options.data.is_empty()), "{option}");
        }
        for option in ["ro", "rro", "nosymfollow", "rslave", "rprivate", "tmpcopyup", "ridmap", "rstrictatime"] {
            assert!(list(&features(None)["mountOptions"]).iter().any(|known| known == option), "{option}");
        }
    }
}
