//! Walks a cgroup and those below it. A container may make them, and name them, as it likes: names are bytes, and however deep they lie, a walk
//! holds three descriptors and calls nothing of its own again.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::{open_directory, remove};

/// Calls `visit` for each cgroup below and then for the directory itself.
pub(super) fn each(
    directory: BorrowedFd<'_>,
    visit: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<()> {
    walk(directory, &mut |left| visit(left.directory).map(|()| true))?;
    visit(directory)
}

/// Removes the cgroup and those below it. `false`: something is still in one of them.
pub(super) fn remove_all(parent: impl AsFd, name: &OsStr) -> io::Result<bool> {
    if remove(&parent, name)? {
        return Ok(true);
    }
    let directory = match open_directory(&parent, name) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(true),
        Err(errno) => return Err(errno.into()),
    };
    let empty = walk(directory.as_fd(), &mut |left| Ok(remove(left.parent, left.name)?))?;
    Ok(empty && remove(&parent, name)?)
}

/// The cgroups in this one; none if somebody removes it meanwhile.
pub(super) fn children(directory: impl AsFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    let fd = match openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NODEV) => return Ok(names),
        Err(errno) => return Err(errno),
    };
    for entry in Dir::read_from(&fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// A cgroup below which everything has been seen.
struct Left<'a> {
    parent: BorrowedFd<'a>,
    name: &'a OsStr,
    directory: BorrowedFd<'a>,
}

/// One on the way down to where the walk is.
struct Level {
    /// Device and inode: what `..` has to lead back to.
    identity: (u64, u64),
    name: OsString,
    /// Its children that have not been seen.
    rest: Vec<OsString>,
}

impl Level {
    fn of(directory: &OwnedFd, name: OsString) -> Result<Self, Errno> {
        Ok(Self { identity: identity(directory)?, name, rest: children(directory)? })
    }
}

/// Calls `leave` for each cgroup below the directory, those below it first, until that answers `false`; answers with whether it never did.
fn walk(top: BorrowedFd<'_>, leave: &mut dyn FnMut(Left) -> io::Result<bool>) -> io::Result<bool> {
    let mut here = top.try_clone_to_owned()?;
    let mut levels = vec![Level::of(&here, OsString::new())?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.rest.pop() {
            match open_directory(&here, name.as_os_str()) {
                Ok(child) => {
                    levels.push(Level::of(&child, name)?);
                    here = child;
                }
                // Removed meanwhile.
                Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) => return Err(errno.into()),
            }
            continue;
        }
        let seen = levels.pop();
        let (Some(seen), Some(above)) = (seen, levels.last()) else { break };
        let parent = open_directory(&here, "..")?;
        // cgroups(7) cannot be moved from one parent to another.
        if identity(&parent)? != above.identity {
            return Err(io::Error::other("a cgroup is not where it was found"));
        }
        if !leave(Left { parent: parent.as_fd(), name: &seen.name, directory: here.as_fd() })? {
            return Ok(false);
        }
        here = parent;
    }
    Ok(true)
}

fn identity(directory: &OwnedFd) -> Result<(u64, u64), Errno> {
    fstat(directory).map(|stat| (stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mkdirat};
    use std::collections::BTreeSet;

    /// What is walked is a tree of directories; that of another file system will do.
    fn tree(names: &[&[u8]]) -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::create_dir_all(dir.path().join("top").join(OsStr::from_bytes(name))).unwrap();
        }
        let top = open_directory(CWD, dir.path().join("top")).unwrap();
        (dir, top)
    }

    #[test]
    fn each_is_seen_once_after_those_below_it() {
        let (_dir, top) = tree(&[b"a/b", b"a/\xff\xfe", b"c"]);
        let id = |path: &[u8]| identity(&open_directory(&top, OsStr::from_bytes(path)).unwrap()).unwrap();
        let mut seen = Vec::new();
        let note = |directory: BorrowedFd| {
            seen.push(identity(&directory.try_clone_to_owned()?)?);
            Ok(())
        };
        each(top.as_fd(), &mut { note }).unwrap();
        let all: [&[u8]; 5] = [b"a/b", b"a/\xff\xfe", b"a", b"c", b"."];
        assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), all.iter().map(|path| id(path)).collect());
        assert_eq!((seen.len(), seen.last()), (5, Some(&id(b"."))));
        let place = |path: &[u8]| seen.iter().position(|found| *found == id(path));
        assert!(place(b"a") > place(b"a/b") && place(b"a") > place(b"a/\xff\xfe"));
    }

    #[test]
    fn a_name_of_any_bytes_and_any_depth_is_removed() {
        let (dir, top) = tree(&[b"\xffx/\x80", b"deep"]);
        let mut here = open_directory(&top, "deep").unwrap();
        for _ in 0..3000 {
            mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = open_directory(&here, "d").unwrap();
        }
        drop(here);
        assert!(remove_all(open_directory(CWD, dir.path()).unwrap(), OsStr::new("top")).unwrap());
        assert!(!dir.path().join("top").exists());
        assert!(remove_all(open_directory(CWD, dir.path()).unwrap(), OsStr::new("top")).unwrap(), "absence is success");
    }
}
