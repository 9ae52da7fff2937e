//! tmpcopyup: what a directory held goes into the tmpfs that covers it.

use super::api::magic_link;
use crate::made;
use lifecycle_engine::error::EffectError;
use rustix::fs::{
    CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fchmod, fstat, futimens, openat, readlinkat,
    symlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bounds: the tree is the image's, and the copy is kept in memory.
const MOST_ENTRIES: u32 = 100_000;
const MOST_BYTES: u64 = 1 << 30;
const DEEPEST: u32 = 128;

/// Copies the contents of directory `from` into directory `to`. Symlinks are copied, never followed, and other mounts are not entered.
pub fn copy_tree(from: BorrowedFd, to: BorrowedFd) -> Result<(), EffectError> {
    let device = fstat(from).map_err(|errno| EffectError::call("fstat", errno))?.st_dev;
    let readable = openat(from, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed("open", c".", errno))?;
    let mut copy = Copy { entries: 0, bytes: 0, device };
    copy.directory(readable.as_fd(), to, 0)?;
    // The root of the tmpfs looks like the directory that it covers.
    let stat = fstat(from).map_err(|errno| EffectError::call("fstat", errno))?;
    made::give(to, Path::new("."), owner(&stat))
}

struct Copy {
    entries: u32,
    bytes: u64,
    device: u64,
}

impl Copy {
    fn directory(&mut self, from: BorrowedFd, to: BorrowedFd, depth: u32) -> Result<(), EffectError> {
        if depth > DEEPEST {
            return Err(EffectError::new(format!("tmpcopyup: the directory is more than {DEEPEST} levels deep")));
        }
        let list = Dir::read_from(from).map_err(|errno| failed("getdents", c".", errno))?;
        for entry in list {
            let name = entry.map_err(|errno| failed("getdents", c".", errno))?.file_name().to_owned();
            if name.as_c_str() == c"." || name.as_c_str() == c".." {
                continue;
            }
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Err(EffectError::new(format!("tmpcopyup: the directory has more than {MOST_ENTRIES} entries")));
            }
            self.entry(from, to, &name, depth)?;
        }
        Ok(())
    }

    /// Whoever has a part in the directory may put something else in an entry's place at any time: it is looked at and read by descriptor.
    fn entry(&mut self, from: BorrowedFd, to: BorrowedFd, name: &CString, depth: u32) -> Result<(), EffectError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(from, name, flags, Mode::empty()).map_err(|errno| failed("openat", name, errno))?;
        let stat = fstat(&found).map_err(|errno| failed("fstat", name, errno))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            // A mountpoint's contents are another mount's.
            FileType::Directory if stat.st_dev != self.device => make_directory(to, name).map(drop),
            FileType::Directory => {
                let source = openat(&found, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|errno| failed("openat", name, errno))?;
                let made = make_directory(to, name)?;
                self.directory(source.as_fd(), made.as_fd(), depth + 1)?;
                dress(made.as_fd(), name, &stat)
            }
            FileType::RegularFile => self.file(&found, to, name, &stat),
            FileType::Symlink => {
                let target = readlinkat(&found, c"", Vec::new()).map_err(|errno| failed("readlinkat", name, errno))?;
                symlinkat(&target, to, name).map_err(|errno| failed("symlinkat", name, errno))?;
                made::own(to, path(name), kind, 0, owner(&stat))
            }
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
                let mode = Mode::from_raw_mode(stat.st_mode);
                made::node(to, path(name), kind, stat.st_rdev, mode, Some(owner(&stat)))
            }
            FileType::Unknown => {
                Err(EffectError::new(format!("tmpcopyup: {} is of no known type", name.to_string_lossy())))
            }
        }
    }

    fn file(&mut self, found: &OwnedFd, to: BorrowedFd, name: &CStr, stat: &Stat) -> Result<(), EffectError> {
        self.bytes += stat.st_size as u64;
        if self.bytes > MOST_BYTES {
            return Err(EffectError::new(format!("tmpcopyup: the directory holds more than {} MiB", MOST_BYTES >> 20)));
        }
        let source = openat(CWD, magic_link(found), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed("openat", name, errno))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made =
            openat(to, name, flags, Mode::from_raw_mode(0o600)).map_err(|errno| failed("openat", name, errno))?;
        let mut source = std::fs::File::from(source);
        let mut made = std::fs::File::from(made);
        // A file that grows while it is copied is copied to the length that it had.
        std::io::copy(&mut std::io::Read::take(&mut source, stat.st_size as u64), &mut made)
            .map_err(|error| EffectError::call(format!("copying {}", name.to_string_lossy()), error))?;
        dress(made.as_fd(), name, stat)
    }
}

fn path(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

fn owner(stat: &Stat) -> made::Owner {
    (stat.st_uid, stat.st_gid)
}

fn make_directory(to: BorrowedFd, name: &CStr) -> Result<OwnedFd, EffectError> {
    made::directory(to, path(name), Mode::from_raw_mode(0o700), None)?;
    made::enter(to, path(name))
}

/// Owner, permissions and times; in this order, because a change of owner clears set-user-id.
fn dress(made: BorrowedFd, name: &CStr, stat: &Stat) -> Result<(), EffectError> {
    made::give(made, path(name), owner(stat))?;
    fchmod(made, Mode::from_raw_mode(stat.st_mode)).map_err(|errno| failed("fchmod", name, errno))?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    futimens(made, &times).map_err(|errno| failed("futimens", name, errno))
}

fn failed(call: &str, name: &CStr, errno: Errno) -> EffectError {
    let error = EffectError::call(format!("{call}(\"{}\") for tmpcopyup", name.to_string_lossy()), errno);
    match errno {
        Errno::NOSPC => error.help("the tmpfs is too small for what the directory holds; give it a larger `size=`"),
        Errno::INVAL | Errno::PERM => {
            error.help("in a user namespace a file whose owner is not mapped cannot be copied")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_as_it_is_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("sub/deep")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("sub/file"), "contents").unwrap();
        fs::set_permissions(from.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        copy_tree(fs::File::open(&from).unwrap().as_fd(), fs::File::open(&to).unwrap().as_fd()).unwrap();
        assert_eq!(fs::read_to_string(to.join("sub/file")).unwrap(), "contents");
        assert_eq!(fs::metadata(to.join("sub/file")).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(
            fs::metadata(to.join("sub/file")).unwrap().mtime(),
            fs::metadata(from.join("sub/file")).unwrap().mtime()
        );
        assert_eq!(fs::read_link(to.join("link")).unwrap().to_str(), Some("/etc/passwd"));
        assert!(to.join("sub/deep").is_dir());
    }
}
