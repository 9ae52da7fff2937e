//! The container's root, as a descriptor, and paths in it.

use super::walk::{Way, refused};
use crate::mounts::table;
use lifecycle_engine::effect::{Cx, Fds};
use lifecycle_engine::error::EffectError;
use pathrs::RootRef;
use pathrs::error::{Error, ErrorKind};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, fstatfs, openat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Under which name the effects of one process keep the root's descriptor.
pub(crate) const ROOT: &str = "rootfs";
/// With a mount's number after it: a file system that was made for the container.
const OWN_FILE_SYSTEM: &str = "file-system:";

/// The container's root.
pub(crate) struct Root<'a> {
    fd: BorrowedFd<'a>,
    fds: Option<&'a Fds>,
}

impl<'a> Root<'a> {
    /// The one that an effect before this one has made.
    pub(crate) fn of(cx: &'a Cx) -> Result<Self, EffectError> {
        Self::in_fds(cx.fds)
    }

    /// The same, by the descriptors alone.
    pub(crate) fn in_fds(fds: &'a Fds) -> Result<Self, EffectError> {
        fds.get(ROOT).map(|fd| Self { fd, fds: Some(fds) }).ok_or_else(|| {
            EffectError::new("there is no root file system yet")
                .help("give rootfs.mount a `root`, or put rootfs.overlay before it")
        })
    }

    /// A directory of the host, as [`open_host`] opens it.
    pub(crate) fn at(directory: &'a OwnedFd) -> Self {
        Self { fd: directory.as_fd(), fds: None }
    }

    /// The directory itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'a> {
        self.fd
    }

    fn inner(&self) -> RootRef<'a> {
        RootRef::from_fd(self.fd)
    }

    /// What the path leads to, symlinks followed as the container would; `None` if there is nothing.
    pub(crate) fn find(&self, path: &Path) -> Result<Option<OwnedFd>, EffectError> {
        optional(self.inner().resolve(path), path)
    }

    /// What is at the path, a symlink at its end not followed; `None` if there is nothing.
    pub(crate) fn find_nofollow(&self, path: &Path) -> Result<Option<OwnedFd>, EffectError> {
        optional(self.inner().resolve_nofollow(path), path)
    }

    /// The directory at the path; it and those on the way, also by symlinks that lead to nothing, are made where they are missing.
    pub(crate) fn directory(&self, path: &Path, mode: u32) -> Result<OwnedFd, EffectError> {
        self.way(path)?.make(mode)
    }

    /// The way to the path as far as there is something, symlinks followed.
    pub(super) fn way<'p>(&self, path: &'p Path) -> Result<Way<'p>, EffectError> {
        Way::to(self.fd, path)
    }

    /// The directory around the path, made where it is missing, and the path's last part, which may be a symlink.
    pub(crate) fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p Path), EffectError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(EffectError::new(format!("\"{}\" does not end in a name", path.display())));
        };
        Ok((self.directory(parent, 0o755)?, Path::new(name)))
    }

    /// What mount(2) has just put on `below`, to which the path leads now. Somebody who shares a volume with the container can bend the path
    /// meanwhile; then it is on another mount, or on none.
    pub(crate) fn top(&self, path: &Path, below: impl AsFd) -> Result<OwnedFd, EffectError> {
        let bent = || {
            EffectError::new(format!("\"{}\" leads elsewhere since it was mounted", path.display()))
                .help("the image, or somebody with access to a volume, bends this path while it is used")
        };
        let top = self.find(path)?.ok_or_else(bent)?;
        if table::is_on(&top, below)? { Ok(top) } else { Err(bent()) }
    }

    /// Whether the directory lies in the root itself, or in a file system that was made for the container. Otherwise it is a directory of the host
    /// that is bound there, whatever its path in the container is: where a path leads is the image's to say.
    pub(crate) fn is_own(&self, directory: impl AsFd) -> Result<bool, EffectError> {
        let number = table::number(directory)?;
        let was_made = || self.fds.is_some_and(|fds| fds.get(&format!("{OWN_FILE_SYSTEM}{number}")).is_some());
        Ok(table::number(self.fd)? == number || was_made())
    }

    /// Where something can be mounted: a directory, or for the mount of a file an empty file; made where it is missing. Symlinks are followed, and
    /// what they lead to is made.
    pub(crate) fn mountpoint(&self, path: &Path, directory: bool) -> Result<OwnedFd, EffectError> {
        self.way(path)?.mountpoint(directory)
    }

    /// Whether it is the root itself, to which the image's symlinks may lead: the same directory of the same mount.
    pub(super) fn is_itself(&self, found: impl AsFd) -> Result<bool, EffectError> {
        let inode = |fd: BorrowedFd| {
            fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).map_err(|errno| EffectError::call("fstat", errno))
        };
        let found = found.as_fd();
        Ok(inode(found)? == inode(self.fd)? && table::number(found)? == table::number(self.fd)?)
    }
}

/// Remembers a file system that was made for the container, by its mount: its number is used for no other as long as that is open.
pub(super) fn remember_own(mount: OwnedFd, fds: &mut Fds) -> Result<(), EffectError> {
    fds.put(format!("{OWN_FILE_SYSTEM}{}", table::number(&mount)?), mount);
    Ok(())
}

fn optional(answer: Result<pathrs::Handle, Error>, path: &Path) -> Result<Option<OwnedFd>, EffectError> {
    match answer {
        Ok(handle) => Ok(Some(handle.into())),
        Err(error) if errno_of(&error) == Some(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed("resolve", path, &error)),
    }
}

fn errno_of(error: &Error) -> Option<Errno> {
    match error.kind() {
        ErrorKind::OsError(errno) => errno.map(Errno::from_raw_os_error),
        _ => None,
    }
}

/// A path in the root that cannot be reached or made.
fn failed(what: &str, path: &Path, error: &Error) -> EffectError {
    let Some(errno) = errno_of(error) else {
        return EffectError::new(format!("{what} \"{}\" in the container's root: {error}", path.display()))
            .help("the image, or somebody with access to it, bends this path while it is used");
    };
    refused(what, path, errno)
}

/// Whether it is a directory.
pub(crate) fn is_directory(fd: impl AsFd) -> Result<bool, EffectError> {
    let stat = fstat(fd).map_err(|errno| EffectError::call("fstat", errno))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// linux/magic.h.
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Whether it is in a proc file system.
pub(crate) fn is_in_proc(fd: impl AsFd) -> Result<bool, EffectError> {
    fstatfs(fd).map(|stat| stat.f_type == PROC_SUPER_MAGIC).map_err(|errno| EffectError::call("fstatfs", errno))
}

/// The inode of every procfs's top: PROC_ROOT_INO, linux/proc_ns.h.
const PROC_ROOT: u64 = 1;

/// Whether it is the top of a proc file system.
pub(crate) fn is_procfs_itself(fd: &OwnedFd) -> Result<bool, EffectError> {
    let inode = fstat(fd).map_err(|errno| EffectError::call("fstat", errno))?.st_ino;
    Ok(inode == PROC_ROOT && is_in_proc(fd)?)
}

/// The null device, and nothing that pretends to be it (CVE-2025-31133): character device 1:3, by descriptor.
pub(crate) fn is_null_device(fd: impl AsFd) -> Result<bool, EffectError> {
    is_device(fd, FileType::CharacterDevice, 1, 3)
}

/// Whether it is this device.
pub(crate) fn is_device(fd: impl AsFd, kind: FileType, major: u32, minor: u32) -> Result<bool, EffectError> {
    let stat = fstat(fd).map_err(|errno| EffectError::call("fstat", errno))?;
    let same_number = stat.st_rdev == rustix::fs::makedev(major, minor);
    Ok(FileType::from_raw_mode(stat.st_mode) == kind && (kind == FileType::Fifo || same_number))
}

/// The path without `.`, `..` and doubled separators, from `/` on. For comparisons while planning; never to open anything.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Opens a directory of the host as the root.
pub(crate) fn open_host(path: &Path) -> Result<OwnedFd, EffectError> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        EffectError::call(format!("open(\"{}\", O_DIRECTORY)", path.display()), errno).help(match errno {
            Errno::NOENT => "the root file system does not exist; unpack the image there",
            Errno::ACCESS => "the container's user namespace may not look there; open the directories on the way (o+x)",
            _ => "the root file system cannot be opened",
        })
    })
}
