//! User namespaces that exist for the sake of their id maps: an id-mapped mount takes its map from one.

use super::holder::Holder;
use crate::spec::IdMapping;
use lifecycle_engine::error::EffectError;
use nix::libc;
use pathrs::error::ErrorKind;
use pathrs::flags::OpenFlags;
use pathrs::procfs::{ProcfsBase, ProcfsHandleBuilder};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

/// A user namespace with these maps. A process holds it for as long as its maps are written, and is gone when this returns.
pub fn user_namespace(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, EffectError> {
    let holder = Holder::of(libc::CLONE_NEWUSER)
        .map_err(|error| EffectError::call("clone3(CLONE_NEWUSER) for an id-mapped mount", error))?;
    maps_of(holder.pid.as_raw_nonzero().get().cast_unsigned(), uids, gids)
}

/// By a procfs of the caller's own pid namespace: the one on /proc may be the host's, where the process has another id.
fn maps_of(pid: u32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, EffectError> {
    let base = ProcfsBase::ProcPid(pid);
    let failed = |what: String| {
        move |error: pathrs::error::Error| match error.kind() {
            ErrorKind::OsError(Some(errno)) => EffectError::call(what, std::io::Error::from_raw_os_error(errno)),
            _ => EffectError::new(format!("{what}: {error}")),
        }
    };
    // Not the one that pathrs keeps for good: the engine closes its descriptors in init, and init would have it by a number that is another's.
    let proc = ProcfsHandleBuilder::new().unmasked().build().map_err(failed("open(/proc)".into()))?;
    for (name, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{pid}/{name}");
        let file = proc.open(base, name, OpenFlags::O_WRONLY).map_err(failed(format!("open({path})")))?;
        write_map(file, &path, mappings)?;
    }
    let namespace = proc.open_follow(base, "ns/user", OpenFlags::O_RDONLY);
    namespace.map(OwnedFd::from).map_err(failed(format!("open(/proc/{pid}/ns/user)")))
}

fn write_map(mut file: File, path: &str, mappings: &[IdMapping]) -> Result<(), EffectError> {
    let mut text = String::new();
    for map in mappings {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {} {}", map.container_id, map.host_id, map.size);
    }
    file.write_all(text.as_bytes()).map_err(|error| {
        EffectError::call(format!("write(\"{path}\", {text:?})"), error)
            .help("the ranges must not overlap, and the caller needs CAP_SETUID and CAP_SETGID over the ids")
    })
}
