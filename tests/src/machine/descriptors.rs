//! Open descriptors of a process.

use std::fs;

use super::Things;
use crate::{Result, While};

/// The descriptors, by pid and number, with what each is open on.
pub(super) fn look(pids: &[i32]) -> Result<Things> {
    let mut things = Things::new();
    for pid in pids {
        let dir = format!("/proc/{pid}/fd");
        let entries = fs::read_dir(&dir).when(|| format!("listing {dir}"))?;
        for entry in entries.flatten() {
            // The descriptor that lists the directory is gone by the time it is asked for, when the process is ourselves.
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy();
            if target.ends_with("/fd") && target.starts_with("/proc/") {
                continue;
            }
            things.insert(format!("{pid} fd {}", entry.file_name().to_string_lossy()), kind(&target));
        }
    }
    Ok(things)
}

/// `pipe:[123]` is a pipe, whatever its inode number.
fn kind(target: &str) -> String {
    match target.split_once(":[") {
        Some((kind @ ("pipe" | "socket"), _)) => kind.to_owned(),
        _ => target.to_owned(),
    }
}
