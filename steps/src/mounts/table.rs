//! Mounts as the kernel lists them, and what tells one from another.

use lifecycle_engine::error::EffectError;
use lifecycle_engine::proc;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;
use std::path::PathBuf;

/// What tells a mount from every other one of the same boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountId {
    /// The kernel's number for it.
    pub id: u64,
    /// Whether the number is never used again (Linux 6.8).
    pub unique: bool,
}

/// STATX_MNT_ID_UNIQUE, linux/stat.h (Linux 6.8).
const MNT_ID_UNIQUE: u32 = 0x4000;

/// The identity of the mount that `fd` is in. Whether by a number that is used again has to be told: two identities are compared only if both are of
/// one kind. Where the kernel has no other number, it is one that is used again.
pub fn mount_id(fd: impl AsFd, reused: bool) -> Result<MountId, EffectError> {
    if !reused && let Some(id) = unique_id(&fd)? {
        return Ok(MountId { id, unique: true });
    }
    Ok(MountId { id: number(fd)?, unique: false })
}

/// The number that no other mount of this boot has or will have; `None` before Linux 6.8.
fn unique_id(fd: impl AsFd) -> Result<Option<u64>, EffectError> {
    let mask = StatxFlags::from_bits_retain(MNT_ID_UNIQUE);
    let stat =
        statx(fd, c"", AtFlags::EMPTY_PATH, mask).map_err(|errno| EffectError::call("statx(mount id)", errno))?;
    Ok((stat.stx_mask & mask.bits() != 0).then_some(stat.stx_mnt_id))
}

/// Whether this kernel has such numbers.
pub fn has_unique_ids() -> bool {
    unique_id(CWD).is_ok_and(|id| id.is_some())
}

/// The number of the mount that `fd` is in, as mountinfo has it.
pub fn number(fd: impl AsFd) -> Result<u64, EffectError> {
    let stat = statx(fd.as_fd(), c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .map_err(|errno| EffectError::call("statx(mount id)", errno))?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 {
        return Ok(stat.stx_mnt_id);
    }
    // Before 5.8 only procfs tells.
    let path = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd()));
    let text = proc::text(&path).map_err(|error| EffectError::call(format!("read(\"{path}\")"), error))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")).and_then(|id| id.trim().parse().ok());
    id.ok_or_else(|| EffectError::new(format!("{path} names no mount")))
}

/// The mounts of the calling process's namespace.
pub fn read() -> Result<Vec<Mount>, EffectError> {
    let path = "/proc/self/mountinfo";
    let text = proc::text(path).map_err(|error| EffectError::call(format!("read(\"{path}\")"), error))?;
    Ok(parse(&text))
}

/// The mount that `fd` is in, if it is attached in this namespace.
pub fn containing(fd: impl AsFd) -> Result<Option<Mount>, EffectError> {
    let id = number(fd)?;
    Ok(read()?.into_iter().find(|mount| mount.id == id))
}

/// Whether the mount that `fd` is in is attached in this namespace.
pub fn is_attached(fd: impl AsFd) -> Result<bool, EffectError> {
    // The list of a host with many mounts is long.
    if let Some(id) = unique_id(&fd)?
        && let Some(attached) = crate::sys::mount::is_attached(id)
    {
        return Ok(attached);
    }
    Ok(containing(fd)?.is_some())
}

/// Whether the mount that `top` is in is one on the mount that `below` is in.
pub fn is_on(top: impl AsFd, below: impl AsFd) -> Result<bool, EffectError> {
    let (top, below) = (number(top)?, number(below)?);
    Ok(read()?.iter().any(|mount| mount.id == top && mount.parent == below))
}

/// One line of /proc/PID/mountinfo, proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount's id; used again after an unmount.
    pub id: u64,
    /// The id of the mount that it is on.
    pub parent: u64,
    /// Which part of the file system it shows.
    pub root: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// Whether mount events leave it for its peers.
    pub shared: bool,
    /// The file system's type.
    pub kind: String,
    /// The file system's own options.
    pub data: String,
}

/// Reads the text of a mountinfo file. Lines that are not in its form are left out.
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let id = mount.next()?.parse().ok()?;
    let parent = mount.next()?.parse().ok()?;
    let root = unescape(mount.nth(1)?);
    let target = unescape(mount.next()?);
    let shared = mount.any(|field| field.starts_with("shared:"));
    let mut file_system = file_system.split(' ');
    let kind = file_system.next()?.to_owned();
    let data = file_system.nth(1)?.to_owned();
    Some(Mount { id, parent, root, target, shared, kind, data })
}

/// Space, tab, newline and backslash are written as octal numbers.
fn unescape(field: &str) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'\\').then(|| after.get(..3)).flatten();
        if let Some(byte) = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
            out.push(byte);
            rest = &after[3..];
        } else {
            out.push(byte);
            rest = after;
        }
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read() {
        let text = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:1 - ext3 /dev/root rw,errors=continue\n\
                    25 1 0:22 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\nnonsense\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].target, PathBuf::from("/mnt 2"));
        assert!(mounts[0].shared && !mounts[1].shared);
        assert_eq!((mounts[0].parent, &mounts[0].root), (35, &PathBuf::from("/mnt1")));
        assert_eq!((mounts[1].kind.as_str(), mounts[1].data.as_str()), ("cgroup", "rw,cpu,cpuacct"));
    }

    #[test]
    fn a_mount_is_told_from_another() {
        for reused in [false, true] {
            let id = |path: &str| mount_id(std::fs::File::open(path).unwrap(), reused).unwrap();
            assert_ne!(id("/"), id("/proc"));
            assert_eq!(id("/"), id("/"));
            assert_eq!(id("/").unique, !reused && has_unique_ids());
        }
    }
}
