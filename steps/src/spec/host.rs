//! What a config.json asks of the host, as far as the host can be asked before anything is touched.

use std::io::ErrorKind;
use std::path::Path;

use lifecycle_engine::error::{errno_in_words, in_words};
use lifecycle_engine::facts::{Facts, FileKind};

use super::load::with_absolute_source;
use super::{Namespace, NamespaceType, Problem, Spec};
use crate::facts::{NAMESPACE, NamespaceFile};

/// What this host has not, each with its field.
pub(super) fn missing(spec: &Spec, bundle: &Path, facts: &mut Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    // In a mount namespace that is joined, other files may be there.
    if spec.namespace(NamespaceType::Mount).is_none_or(|namespace| namespace.path.is_none()) {
        problems.extend(root(spec, bundle, facts));
        problems.extend(sources(spec, bundle, facts));
    }
    for (index, namespace) in spec.linux.namespaces.iter().enumerate() {
        let wrong = wrong_namespace(namespace, facts);
        problems.extend(wrong.map(|message| problem(format!("linux.namespaces[{index}].path"), message)));
    }
    problems.extend(devices(spec, facts));
    problems
}

fn problem(path: impl Into<String>, message: impl Into<String>) -> Problem {
    Problem { path: path.into(), message: message.into() }
}

/// config.md, "Root": "A directory MUST exist at the path declared by the field."
fn root(spec: &Spec, bundle: &Path, facts: &mut Facts) -> Option<Problem> {
    let root = spec.root.as_ref().filter(|root| !root.path.as_os_str().is_empty())?;
    let path = bundle.join(&root.path);
    let why = match facts.kind(&path) {
        Ok(FileKind::Directory) => return None,
        Ok(_) => "is not a directory".to_owned(),
        Err(e) => format!("cannot be used: {}", in_words(&e)),
    };
    Some(problem("root.path", format!("{} {why}; unpack the image's file system there", path.display())))
}

/// What is not there cannot be bound. A source in the root may be on one of the mounts before it, and one in /proc is another for init.
fn sources(spec: &Spec, bundle: &Path, facts: &mut Facts) -> Vec<Problem> {
    let root = spec.root.as_ref().map(|root| bundle.join(&root.path));
    let mut problems = Vec::new();
    for (index, mount) in spec.mounts.iter().enumerate().filter(|(_, mount)| mount.binds() && !mount.remounts()) {
        let Some(source) = with_absolute_source(mount.clone(), bundle).source else { continue };
        if source.starts_with("/proc") || root.as_ref().is_some_and(|root| source.starts_with(root)) {
            continue;
        }
        if let Err(e) = facts.kind(&source)
            && matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        {
            let message = format!("{} cannot be bound: {}", source.display(), in_words(&e));
            problems.push(problem(format!("mounts[{index}].source"), message));
        }
    }
    problems
}

/// config-linux.md, "Namespaces": "The runtime MUST generate an error if `path` is not associated with a namespace of type `type`."
pub(crate) fn wrong_namespace(namespace: &Namespace, facts: &mut Facts) -> Option<String> {
    let path = namespace.path.as_ref().filter(|path| path.is_absolute())?;
    // Null on a host that was not asked, such as a snapshot's.
    let found: NamespaceFile = facts.get(&format!("{NAMESPACE}{}", path.display()))?;
    let is = match found {
        NamespaceFile::Type(kind) if kind == namespace.kind => return None,
        NamespaceFile::Type(kind) => {
            format!("is a {} namespace, not one of type {}", kind.name(), namespace.kind.name())
        }
        NamespaceFile::Other => "is not a namespace".to_owned(),
        NamespaceFile::Errno(errno) => format!("cannot be joined: {}", errno_in_words(errno)),
    };
    let file = namespace.kind.file();
    let like = if namespace.kind == NamespaceType::Network { " or /run/netns/NAME" } else { "" };
    Some(format!("{} {is}; name a file such as /proc/PID/ns/{file}{like}", path.display()))
}

/// "The runtime MUST check if moving the network interface to the container namespace is possible": what is not there cannot be moved.
fn devices(spec: &Spec, facts: &mut Facts) -> Vec<Problem> {
    let wanted = &spec.linux.net_devices;
    let there: Option<Vec<String>> = if wanted.is_empty() { None } else { facts.get("net.links") };
    let Some(there) = there else { return Vec::new() };
    let absent = wanted.keys().filter(|name| !there.contains(name));
    let why = "there is no such device on the host; see `ip link`";
    absent.map(|name| problem(format!("linux.netDevices.{name}"), why)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle_engine::facts::{FileFact, Recorded};
    use serde_json::{Value, json};

    fn found(config: &Value, host: &[(&str, Value)], kinds: &[(&str, FileFact)]) -> Vec<String> {
        let mut given = Recorded::default();
        given.host.extend(host.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        given.kinds.insert("/box/rootfs".into(), FileFact::Kind(FileKind::Directory));
        given.kinds.extend(kinds.iter().map(|(path, fact)| (path.into(), fact.clone())));
        let mut config = config.clone();
        config["ociVersion"] = json!("1.3.0");
        let spec = Spec::parse(&config.to_string()).unwrap();
        let problems = missing(&spec, Path::new("/box"), &mut Facts::fixed(given));
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_root_is_a_directory() {
        let config = json!({ "root": { "path": "rootfs" } });
        assert_eq!(found(&config, &[], &[]), [""; 0]);
        let file = FileFact::Kind(FileKind::File);
        let wrong = found(&config, &[], &[("/box/rootfs", file)]);
        assert_eq!(wrong, ["root.path: /box/rootfs is not a directory; unpack the image's file system there"]);
        let wrong = found(&json!({ "root": { "path": "/srv/x" } }), &[], &[("/srv/x", FileFact::Errno(2))]);
        assert!(wrong[0].starts_with("root.path: /srv/x cannot be used: No such file"), "{wrong:?}");
    }

    #[test]
    fn a_namespace_that_is_joined_is_there_and_of_its_type() {
        let config = json!({ "linux": { "namespaces": [
            { "type": "network", "path": "/run/netns/a" }, { "type": "ipc" }, { "type": "uts", "path": "/x" },
            { "type": "pid", "path": "/gone" },
        ] } });
        let host = [
            ("namespace:/run/netns/a", json!({ "type": "network" })),
            ("namespace:/x", json!("other")),
            ("namespace:/gone", json!({ "errno": 2 })),
        ];
        let wrong = found(&config, &host, &[]);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert_eq!(wrong[0], "linux.namespaces[2].path: /x is not a namespace; name a file such as /proc/PID/ns/uts");
        assert!(wrong[1].starts_with("linux.namespaces[3].path: /gone cannot be joined: No such file"), "{wrong:?}");
        let host = [("namespace:/run/netns/a", json!({ "type": "ipc" }))];
        let wrong = found(&config, &host, &[]);
        assert!(wrong[0].contains("/run/netns/a is a ipc namespace, not one of type network"), "{wrong:?}");
    }

    #[test]
    fn what_is_bound_is_there_unless_only_the_container_can_say() {
        let bind = |source: &str| json!({ "destination": "/d", "source": source, "options": ["rbind"] });
        let config = json!({
            "root": { "path": "rootfs" },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "absent" }, bind("data"), bind("/srv/a"), bind("rootfs/d"),
                bind("/proc/self/ns"), { "destination": "/d", "type": "bind", "options": ["remount", "ro"] },
            ],
        });
        let absent = || FileFact::Errno(2);
        let kinds = [("/box/data", absent()), ("/srv/a", FileFact::Errno(13)), ("/box/rootfs/d", absent())];
        let wrong = found(&config, &[], &kinds);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].starts_with("mounts[1].source: /box/data cannot be bound: No such file"), "{wrong:?}");
    }

    #[test]
    fn a_device_that_is_moved_is_there() {
        let config = json!({ "linux": { "netDevices": { "eth7": {}, "eth0": {} } } });
        let wrong = found(&config, &[("net.links", json!(["lo", "eth0"]))], &[]);
        assert_eq!(wrong, ["linux.netDevices.eth7: there is no such device on the host; see `ip link`"]);
    }
}
