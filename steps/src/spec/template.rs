//! The `config.json` that `spec` writes for somebody to start from: the one that runc writes, and people know.

use serde_json::{Value, json};

use super::VERSION;

/// For root; with `owner`, for a container of an ordinary user, whose root is that user and group.
pub fn template(owner: Option<(u32, u32)>) -> Value {
    // A file of this source tree, which a test reads: it is JSON.
    let mut config: Value = serde_json::from_str(include_str!("fixtures/runc.json")).unwrap_or_default();
    config["ociVersion"] = json!(VERSION);
    config["hostname"] = json!("lifecycle");
    // Nothing in it is inheritable, and so nothing can be ambient.
    if let Some(capabilities) = config["process"]["capabilities"].as_object_mut() {
        capabilities.remove("ambient");
    }
    if let Some((uid, gid)) = owner {
        without_root(&mut config, uid, gid);
    }
    config
}

/// What an ordinary user cannot have is left out: limits, groups that he is not in, a network and so a sysfs of its own.
fn without_root(config: &mut Value, uid: u32, gid: u32) {
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            (mount["type"], mount["source"]) = (json!("none"), json!("/sys"));
            if let Some(options) = mount["options"].as_array_mut() {
                options.insert(0, json!("rbind"));
            }
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| !option.as_str().is_some_and(|o| o.starts_with("gid=") || o.starts_with("uid=")));
        }
    }
    let Some(linux) = config["linux"].as_object_mut() else { return };
    linux.remove("resources");
    let root_is = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1 }]);
    linux.insert("uidMappings".into(), root_is(uid));
    linux.insert("gidMappings".into(), root_is(gid));
    if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Spec, validate};

    #[test]
    fn both_are_what_runc_writes_but_for_the_version_the_name_and_what_cannot_be_ambient() {
        for (fixture, owner) in
            [(include_str!("fixtures/runc.json"), None), (include_str!("fixtures/runc-rootless.json"), Some((0, 0)))]
        {
            let mut wanted: Value = serde_json::from_str(fixture).unwrap();
            (wanted["ociVersion"], wanted["hostname"]) = (json!(VERSION), json!("lifecycle"));
            let capabilities = wanted["process"]["capabilities"].as_object_mut().unwrap();
            assert!(capabilities.remove("ambient").is_some() && !capabilities.contains_key("inheritable"));
            let mut ours = template(owner);
            for config in [&mut wanted, &mut ours] {
                for mount in config["mounts"].as_array_mut().unwrap() {
                    // The order of flags means nothing.
                    if let Some(options) = mount["options"].as_array_mut() {
                        options.sort_by_key(ToString::to_string);
                    }
                }
            }
            assert_eq!(ours, wanted);
            assert_eq!(validate(&Spec::parse(&ours.to_string()).unwrap()), []);
        }
    }
}
