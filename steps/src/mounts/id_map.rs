//! User namespaces that exist for the sake of their id maps: an id-mapped mount takes its map from one.

use crate::spec::IdMapping;
use crate::sys::clone::Clone;
use lifecycle_engine::error::EffectError;
use nix::libc;
use rustix::process::{
    Signal, WaitId, WaitIdOptions, getpid, getppid, pidfd_send_signal, set_parent_process_death_signal, waitid,
};
use std::fmt::Write;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// A user namespace with these maps. A process holds it for as long as its maps are written, and is gone when this returns.
pub fn user_namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, EffectError> {
    let holder = Clone { namespaces: libc::CLONE_NEWUSER as u64, ..Clone::default() };
    let maker = getpid();
    let child = holder.spawn(move || {
        // It must not outlive its maker, nor hold anything for longer than the maps take.
        let tied = set_parent_process_death_signal(Some(Signal::KILL));
        while tied.is_ok() && getppid() == Some(maker) {
            nix::unistd::pause();
        }
        1
    });
    let child = child.map_err(|error| EffectError::call("clone3(CLONE_NEWUSER) for an id-mapped mount", error))?;
    let pid = child.pid.as_raw_nonzero();
    let made = write_map(&format!("/proc/{pid}/uid_map"), uids)
        .and_then(|()| write_map(&format!("/proc/{pid}/gid_map"), gids))
        .and_then(|()| {
            let path = format!("/proc/{pid}/ns/user");
            File::open(&path).map(OwnedFd::from).map_err(|error| EffectError::call(format!("open(\"{path}\")"), error))
        });
    pidfd_send_signal(&child.pidfd, Signal::KILL)
        .map_err(|errno| EffectError::call("pidfd_send_signal(SIGKILL)", errno))?;
    waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)
        .map_err(|errno| EffectError::call("waitid", errno))?;
    made
}

fn write_map(path: &str, mappings: &[IdMapping]) -> Result<(), EffectError> {
    let mut text = String::new();
    for map in mappings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", map.container_id, map.host_id, map.size);
    }
    std::fs::write(path, &text).map_err(|error| {
        EffectError::call(format!("write(\"{path}\", {text:?})"), error)
            .help("the ranges must not overlap, and the caller needs CAP_SETUID and CAP_SETGID over the ids")
    })
}
