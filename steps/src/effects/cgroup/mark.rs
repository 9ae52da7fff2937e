//! Marks on cgroup directories, as extended attributes: they say whose a directory is for as long as it exists, and die with it.
//!
//! Several runs share the parents of a cgroup path and the controllers enabled there. Whoever is last takes them back, and only the kernel
//! can tell who that is without a file that a crash could leave behind.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

/// `trusted` needs root; `user` works on version 2 since Linux 5.7.
const SPACES: [&str; 2] = ["trusted", "user"];

/// An O_PATH descriptor takes no f*xattr call, but its name in procfs does. `Copy`: one that is borrowed, and open still when the name is used.
fn name_of(directory: impl AsFd + Copy) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()))
}

fn unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::NOSPC)
}

/// Marks the directory. `false`: neither the kernel nor the caller's rights allow a mark, and the journal's word has to do.
#[expect(clippy::disallowed_methods, reason = "the name is that of the open descriptor, in the host's procfs")]
pub(super) fn set(directory: impl AsFd + Copy, key: &str, value: &str) -> Result<bool, Errno> {
    let path = name_of(directory);
    for space in SPACES {
        match setxattr(&path, format!("{space}.{key}"), value.as_bytes(), XattrFlags::empty()) {
            Ok(()) => return Ok(true),
            Err(errno) if unsupported(errno) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(false)
}

/// The mark's value, if the directory has it.
pub(super) fn get(directory: impl AsFd + Copy, key: &str) -> Option<String> {
    let path = name_of(directory);
    SPACES.iter().find_map(|space| {
        let mut value = [0_u8; 256];
        let n = getxattr(&path, format!("{space}.{key}"), &mut value[..]).ok()?;
        String::from_utf8(value[..n].to_vec()).ok()
    })
}

/// Takes the mark away; absence counts as done.
pub(super) fn clear(directory: impl AsFd + Copy, key: &str) -> Result<(), Errno> {
    let path = name_of(directory);
    for space in SPACES {
        match removexattr(&path, format!("{space}.{key}")) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) if unsupported(errno) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The marks whose key begins so, with their values.
pub(super) fn list(directory: impl AsFd + Copy, prefix: &str) -> Vec<(String, String)> {
    let fd = directory.as_fd();
    let mut names = vec![0_u8; 64 << 10];
    let n = listxattr(name_of(fd), &mut names[..]).unwrap_or(0);
    let keys = names[..n].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()?.split_once('.'));
    keys.filter(|(space, key)| SPACES.contains(space) && key.starts_with(prefix))
        .filter_map(|(_, key)| Some((key.to_owned(), get(fd, key)?)))
        .collect()
}
