//! Namespaces that something holds: a process that is in them, or a bind mount of their nsfs file.

use std::fs;

use super::{Things, mounts};
use crate::{Result, While};

/// The namespaces of the processes and of the bind mounts, by the kernel's name for them, such as `net:[4026531840]`. The number names a
/// namespace as long as it lives, so that a namespace which was there before keeps it.
pub(super) fn look(pids: &[i32]) -> Result<Things> {
    let mut things = Things::new();
    for pid in pids {
        // A process that ends while we look holds nothing any more.
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/ns")) else { continue };
        for entry in entries.flatten() {
            // `pid_for_children` names the namespace of children that may never be born; it fails until the first one is.
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            things.insert(target.to_string_lossy().into_owned(), "held by a process".into());
        }
    }
    let file = "/proc/thread-self/mountinfo";
    let text = fs::read_to_string(file).when(|| format!("reading {file}"))?;
    for mount in text.lines().filter_map(mounts::parse).filter(|mount| mount.kind == "nsfs") {
        things.entry(mount.root.to_owned()).or_insert_with(|| format!("held by a mount on {}", mount.point));
    }
    Ok(things)
}
