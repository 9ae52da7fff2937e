//! Whether a container is paused.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Whether the freezer has stopped the processes of a cgroup, or is about to: `freezer.state` of version 1 (freezer-subsystem.rst), the `frozen`
/// of `cgroup.events` of version 2 (cgroup-v2.rst). The directories are by controller, that of version 2 by an empty name. A cgroup that is
/// gone is not frozen.
pub fn is_frozen(paths: &BTreeMap<String, PathBuf>) -> std::io::Result<bool> {
    let read = |dir: &PathBuf, file: &str| match std::fs::read_to_string(dir.join(file)) {
        // The top of a hierarchy has no such file, and cannot be frozen.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound) || e.raw_os_error() == Some(nix::libc::ENODEV) => {
            Ok(String::new())
        }
        other => other,
    };
    match (paths.get("freezer"), paths.get("")) {
        (Some(dir), _) => read(dir, "freezer.state").map(|state| matches!(state.trim(), "FROZEN" | "FREEZING")),
        (None, Some(dir)) => read(dir, "cgroup.events").map(|events| events.lines().any(|line| line == "frozen 1")),
        (None, None) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let of = |controller: &str| BTreeMap::from([(controller.to_owned(), dir.path().to_owned())]);
        assert!(!is_frozen(&of("freezer")).unwrap() && !is_frozen(&of("")).unwrap() && !is_frozen(&of("cpu")).unwrap());
        std::fs::write(dir.path().join("freezer.state"), "FREEZING\n").unwrap();
        std::fs::write(dir.path().join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        assert!(is_frozen(&of("freezer")).unwrap() && is_frozen(&of("")).unwrap() && !is_frozen(&of("cpu")).unwrap());
        std::fs::write(dir.path().join("freezer.state"), "THAWED\n").unwrap();
        std::fs::write(dir.path().join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        assert!(!is_frozen(&of("freezer")).unwrap() && !is_frozen(&of("")).unwrap());
    }
}
