//! How a throw-away view of the host's own root can be made.

use std::io::{Read, Write};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitOptions, getegid, geteuid, waitpid};
use serde_json::{Value, json};

use crate::effects::inside::{Layout, probe};

/// The best layout that works for this caller; null where none does. Tried in a child with a mount namespace of its own, whose mounts go with
/// it.
pub(super) fn layout(user_namespace: bool) -> Value {
    tried(user_namespace).unwrap_or_default()
}

fn tried(user_namespace: bool) -> Option<Value> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).ok()?;
    let child = crate::sys::clone::fork(|| match attempt(user_namespace) {
        Ok(layout) => {
            let answer = json!(layout).to_string();
            i32::from(std::fs::File::from(write).write_all(answer.as_bytes()).is_err())
        }
        Err(_) => 1,
    });
    let child = child.ok()?;
    let mut answer = String::new();
    let text = std::fs::File::from(read).read_to_string(&mut answer);
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(Some((_, status))) if status.exit_status() == Some(0) => break,
            Ok(_) | Err(_) => return None,
        }
    }
    text.ok().and_then(|_| serde_json::from_str(&answer).ok())
}

/// In the child.
fn attempt(user_namespace: bool) -> std::io::Result<Layout> {
    if user_namespace {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1\n"))?;
    } else {
        unshare(CloneFlags::CLONE_NEWNS)?;
    }
    // Nothing that is mounted here may reach the host.
    mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(probe(Path::new(SCRATCH), user_namespace))
}

/// A directory that every host has, covered in the child alone.
const SCRATCH: &str = "/tmp";
