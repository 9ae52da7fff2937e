//! tmpcopyup: what a directory held goes into the tmpfs that covers it.

use lifecycle_engine::error::EffectError;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod, mkdirat, mknodat,
    openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bounds: the tree is the image's, and the copy is kept in memory.
const MOST_ENTRIES: u32 = 100_000;
const MOST_BYTES: u64 = 1 << 30;
const DEEPEST: u32 = 128;

/// Copies the contents of directory `from` into directory `to`. Symlinks are copied, never followed, and other mounts are not entered.
pub fn copy_tree(from: BorrowedFd, to: BorrowedFd) -> Result<(), EffectError> {
    let device = rustix::fs::fstat(from).map_err(|errno| EffectError::call("fstat", errno))?.st_dev;
    let readable = openat(from, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed("open", c".", errno))?;
    let mut copy = Copy { entries: 0, bytes: 0, device };
    copy.directory(readable.as_fd(), to, 0)?;
    // The root of the tmpfs looks like the directory that it covers.
    let stat = rustix::fs::fstat(from).map_err(|errno| EffectError::call("fstat", errno))?;
    chownat(to, c"", Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), AtFlags::EMPTY_PATH)
        .map_err(|errno| failed("fchownat", c".", errno))
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

    fn entry(&mut self, from: BorrowedFd, to: BorrowedFd, name: &CString, depth: u32) -> Result<(), EffectError> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| failed("fstatat", name, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            // A mountpoint's contents are another mount's.
            FileType::Directory if stat.st_dev != self.device => make_directory(to, name).map(drop),
            FileType::Directory => {
                let source = open(from, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
                let made = make_directory(to, name)?;
                self.directory(source.as_fd(), made.as_fd(), depth + 1)?;
                dress(made.as_fd(), to, name, &stat)
            }
            FileType::RegularFile => self.file(from, to, name, &stat),
            FileType::Symlink => {
                let target = readlinkat(from, name, Vec::new()).map_err(|errno| failed("readlinkat", name, errno))?;
                symlinkat(&target, to, name).map_err(|errno| failed("symlinkat", name, errno))?;
                own(to, name, &stat)
            }
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
                mknodat(
                    to,
                    name,
                    FileType::from_raw_mode(stat.st_mode),
                    Mode::from_raw_mode(stat.st_mode),
                    stat.st_rdev,
                )
                .map_err(|errno| failed("mknodat", name, errno))?;
                own(to, name, &stat)
            }
            FileType::Unknown => {
                Err(EffectError::new(format!("tmpcopyup: {} is of no known type", name.to_string_lossy())))
            }
        }
    }

    fn file(&mut self, from: BorrowedFd, to: BorrowedFd, name: &CStr, stat: &Stat) -> Result<(), EffectError> {
        self.bytes += stat.st_size as u64;
        if self.bytes > MOST_BYTES {
            return Err(EffectError::new(format!("tmpcopyup: the directory holds more than {} MiB", MOST_BYTES >> 20)));
        }
        let source = open(from, name, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made =
            openat(to, name, flags, Mode::from_raw_mode(0o600)).map_err(|errno| failed("openat", name, errno))?;
        let mut source = std::fs::File::from(source);
        let mut made = std::fs::File::from(made);
        // A file that grows while it is copied is copied to the length that it had.
        std::io::copy(&mut std::io::Read::take(&mut source, stat.st_size as u64), &mut made)
            .map_err(|error| EffectError::call(format!("copying {}", name.to_string_lossy()), error))?;
        dress(made.as_fd(), to, name, stat)
    }
}

fn open(dir: BorrowedFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, EffectError> {
    openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed("openat", name, errno))
}

fn make_directory(to: BorrowedFd, name: &CStr) -> Result<OwnedFd, EffectError> {
    mkdirat(to, name, Mode::from_raw_mode(0o700)).map_err(|errno| failed("mkdirat", name, errno))?;
    open(to, name, OFlags::RDONLY | OFlags::DIRECTORY)
}

fn own(dir: BorrowedFd, name: &CStr, stat: &Stat) -> Result<(), EffectError> {
    chownat(dir, name, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| failed("fchownat", name, errno))
}

/// Owner, permissions and times; in this order, because a change of owner clears set-user-id.
fn dress(made: BorrowedFd, dir: BorrowedFd, name: &CStr, stat: &Stat) -> Result<(), EffectError> {
    own(dir, name, stat)?;
    fchmod(made, Mode::from_raw_mode(stat.st_mode)).map_err(|errno| failed("fchmod", name, errno))?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| failed("utimensat", name, errno))
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
