//! The caller's own directories and files below a state root.
//!
//! What a run's files say is executed as whoever works on the run, so nobody else may have had a hand in them. Each directory on the way and each
//! file is opened from the one before it, without following a link, and judged by its descriptor before anything is read from it: a name that
//! was looked at can lead elsewhere by the time it is opened.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::file::{JournalError, io};
use crate::effect::{BESIDE, RunNames};

/// Where its group or others may write, what is there may be anybody's. Access lists show here too: the group's bits are their mask.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why something cannot be taken for the caller's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// It belongs to somebody else.
    Owner {
        /// To whom.
        owner: u32,
        /// Who looks.
        caller: u32,
    },
    /// Somebody else may write to it.
    Writable {
        /// Its permissions.
        mode: u32,
    },
    /// It leads elsewhere.
    Link,
    /// It is neither the directory nor the file that it should be.
    Kind,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { owner, caller } => write!(f, "is owned by uid {owner}, and the caller is uid {caller}"),
            Self::Writable { mode } => write!(f, "is not the caller's alone: others may write to it (mode {mode:04o})"),
            Self::Link => f.write_str("is a symbolic link"),
            Self::Kind => f.write_str("is of another type than it should be"),
        }
    }
}

impl Foreign {
    /// Why something is not the caller's alone; `None` if it is.
    pub fn of(stat: &Stat) -> Option<Self> {
        let caller = rustix::process::geteuid().as_raw();
        match stat.st_mode & WRITABLE_BY_OTHERS {
            _ if stat.st_uid != caller => Some(Self::Owner { owner: stat.st_uid, caller }),
            0 => None,
            _ => Some(Self::Writable { mode: stat.st_mode & 0o7777 }),
        }
    }

    /// What to do about it.
    pub fn help(&self, path: &Path) -> String {
        match self {
            Self::Owner { .. } => {
                "what it says would be done as the caller: name a state root of your own with --root, or call as its owner".into()
            }
            Self::Writable { .. } => {
                format!("look whether somebody has put anything there, then take that right away: chmod go-w {}", path.display())
            }
            Self::Link => "name the directory that it leads to with --root; a file has to lie where it is named".into(),
            Self::Kind => "look at what is there, and move it out of the way".into(),
        }
    }
}

/// A directory that is the caller's own.
#[derive(Debug)]
pub struct OwnDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl OwnDir {
    /// A state root, or a run's directory whose path was kept.
    pub fn at(path: &Path) -> Result<Self, JournalError> {
        // Without a slash or a dot at its end, which would have a link followed.
        let path: PathBuf = path.components().collect();
        let dir = directory(CWD, &path, path.clone())?;
        if path.ends_with(BESIDE) {
            // It lies in a run's directory, and that in a state root.
            dir.around()?.around()?;
        }
        Ok(dir)
    }

    /// The directory of a run.
    pub fn of(names: &RunNames) -> Result<Self, JournalError> {
        let absent = |e| match e {
            JournalError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                JournalError::Absent { id: names.id.clone(), root: names.root.clone() }
            }
            other => other,
        };
        Self::at(&names.root).and_then(|root| root.dir(&names.id)).map_err(absent)
    }

    /// The directory of that name in it.
    pub(super) fn dir(&self, name: &str) -> Result<Self, JournalError> {
        directory(self.fd.as_fd(), Path::new(name), self.path.join(name))
    }

    fn around(&self) -> Result<Self, JournalError> {
        directory(self.fd.as_fd(), Path::new(".."), self.path.parent().unwrap_or(&self.path).to_owned())
    }

    /// Makes the directory of that name in it.
    pub(super) fn make(&self, name: &str, mode: Mode) -> Result<Self, JournalError> {
        let path = self.path.join(name);
        mkdirat(&self.fd, name, mode).map_err(|e| io("create", &path)(e.into()))?;
        // A file system may give it other owners and permissions than it was asked to.
        self.dir(name).inspect_err(|_| {
            let _ = self.remove_empty(name);
        })
    }

    /// The file of that name in it. A new one is the caller's alone.
    pub fn open(&self, name: &str, flags: OFlags) -> Result<File, JournalError> {
        let path = self.path.join(name);
        // Never waits for the other end of a FIFO that is there instead.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(open(self.fd.as_fd(), Path::new(name), flags, FileType::RegularFile, &path)?.into())
    }

    /// The same; `None` if there is no such file.
    pub fn find(&self, name: &str) -> Result<Option<File>, JournalError> {
        match self.open(name, OFlags::RDONLY) {
            Err(JournalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// What is in the file of that name; `None` if there is no such file.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let Some(mut file) = self.find(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read", &self.path.join(name)))?;
        Ok(Some(bytes))
    }

    /// Who owns it.
    pub fn owner(&self) -> u32 {
        fstat(&self.fd).map_or_else(|_| rustix::process::geteuid().as_raw(), |stat| stat.st_uid)
    }

    /// The names of all that is in it.
    pub(super) fn names(&self) -> Result<Vec<OsString>, JournalError> {
        let entries = std::fs::read_dir(self.by_descriptor("")).map_err(io("read", &self.path))?;
        entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(io("read", &self.path))).collect()
    }

    /// Whether the directory of that name in it is this very one.
    pub(super) fn has(&self, name: &str, dir: &Self) -> bool {
        let there = statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (stat.st_dev, stat.st_ino));
        there.is_ok_and(|there| fstat(&dir.fd).is_ok_and(|stat| there == (stat.st_dev, stat.st_ino)))
    }

    /// Gives what is in it another name.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        renameat(&self.fd, from, &self.fd, to)
    }

    /// Removes the empty directory of that name in it.
    pub(super) fn remove_empty(&self, name: &str) -> Result<(), Errno> {
        unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
    }

    /// Removes the directory of that name in it, with all that it holds.
    pub(super) fn remove(&self, name: &str) -> std::io::Result<()> {
        std::fs::remove_dir_all(self.by_descriptor(name))
    }

    fn by_descriptor(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/fd").join(self.fd.as_raw_fd().to_string()).join(name)
    }
}

impl AsFd for OwnDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn directory(around: BorrowedFd, name: &Path, path: PathBuf) -> Result<OwnDir, JournalError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = open(around, name, flags, FileType::Directory, &path)?;
    Ok(OwnDir { fd, path })
}

/// Opens it, and judges what has been opened.
fn open(around: BorrowedFd, name: &Path, flags: OFlags, kind: FileType, path: &Path) -> Result<OwnedFd, JournalError> {
    let foreign = |why| JournalError::Foreign { path: path.to_owned(), why };
    match openat(around, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => {
            let stat = fstat(&fd).map_err(|e| io("look at", path)(e.into()))?;
            judge(&stat, kind).map_or(Ok(fd), |why| Err(foreign(why)))
        }
        Err(errno) => {
            // What it is tells more than that it cannot be opened.
            let there = statat(around, name, AtFlags::SYMLINK_NOFOLLOW).ok();
            let why = there.and_then(|stat| judge(&stat, kind));
            Err(why.map_or_else(|| io("open", path)(errno.into()), foreign))
        }
    }
}

/// Why it is not the caller's own; `None` if it is.
fn judge(stat: &Stat, kind: FileType) -> Option<Foreign> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Some(Foreign::Link),
        other if other != kind => Some(Foreign::Kind),
        _ => Foreign::of(stat),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn why(result: Result<impl fmt::Debug, JournalError>) -> Foreign {
        match result {
            Err(JournalError::Foreign { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_what_nobody_else_can_have_written_is_opened() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        std::fs::create_dir_all(root.join("web")).unwrap();
        let names = RunNames { root: root.clone(), id: "web".into() };
        let file = root.join("web/journal");
        std::fs::write(&file, "ours").unwrap();
        let read = || OwnDir::of(&names).and_then(|dir| dir.read("journal"));
        for path in [&root, &root.join("web"), &file] {
            mode(path, 0o755);
            assert_eq!(read().unwrap().as_deref(), Some(b"ours".as_slice()));
            for others in [0o775, 0o757, 0o702] {
                mode(path, others);
                assert_eq!(why(read()), Foreign::Writable { mode: others }, "{}", path.display());
            }
            mode(path, 0o700);
            // By a link, with or without what would have it followed.
            let aside = scratch.path().join("aside");
            std::fs::rename(path, &aside).unwrap();
            std::os::unix::fs::symlink(&aside, path).unwrap();
            assert_eq!(why(read()), Foreign::Link, "{}", path.display());
            std::fs::remove_file(path).unwrap();
            std::fs::rename(&aside, path).unwrap();
        }
        std::os::unix::fs::symlink(&root, scratch.path().join("link")).unwrap();
        for name in ["link", "link/", "link/.", "link//"] {
            assert_eq!(why(OwnDir::at(&scratch.path().join(name))), Foreign::Link, "{name}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(read().unwrap(), None);
        rustix::fs::mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(why(read()), Foreign::Kind);
    }

    #[test]
    fn what_lies_in_a_run_is_no_better_than_the_run() {
        let scratch = tempfile::tempdir().unwrap();
        let names = RunNames { root: scratch.path().join("root"), id: "web".into() };
        let beside = names.beside("exec".into());
        std::fs::create_dir_all(beside.dir()).unwrap();
        assert!(OwnDir::of(&beside).is_ok());
        for around in [names.dir(), names.root.clone()] {
            mode(&around, 0o777);
            assert_eq!(why(OwnDir::of(&beside)), Foreign::Writable { mode: 0o777 });
            mode(&around, 0o700);
        }
    }
}
