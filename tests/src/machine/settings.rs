//! Host-wide settings that a container's step must not leave changed: names and sysctls.

use std::fs;
use std::path::Path;

use super::Things;
use crate::{Result, While};

/// Sysctls that a step may write, or that an escape would write. Not the whole of /proc/sys: much of it is counters.
const FILES: &[&str] = &[
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/msgmax",
    "/proc/sys/kernel/msgmnb",
    "/proc/sys/kernel/msgmni",
    "/proc/sys/kernel/sem",
    "/proc/sys/kernel/shmall",
    "/proc/sys/kernel/shmmax",
    "/proc/sys/kernel/shmmni",
    "/proc/sys/kernel/shm_rmid_forced",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/fs/mqueue/msg_max",
    "/proc/sys/fs/mqueue/msgsize_max",
    "/proc/sys/fs/mqueue/queues_max",
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/core/somaxconn",
];

/// Directories of sysctls that belong to the network namespace, where every file is a setting.
const DIRECTORIES: &[&str] = &["/proc/sys/net/ipv4", "/proc/sys/net/ipv4/conf/all", "/proc/sys/net/ipv6/conf/all"];

/// The settings, by path.
pub(super) fn look() -> Result<Things> {
    let mut things = Things::new();
    for file in FILES {
        add(Path::new(file), &mut things);
    }
    for dir in DIRECTORIES {
        // A kernel without IPv6 lacks its directory.
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries {
            let entry = entry.when(|| format!("listing {dir}"))?;
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                add(&entry.path(), &mut things);
            }
        }
    }
    Ok(things)
}

/// What the kernel lacks or lets nobody read is not a setting here.
fn add(file: &Path, things: &mut Things) {
    if let Ok(value) = fs::read_to_string(file) {
        things.insert(file.display().to_string(), value.trim().to_owned());
    }
}
