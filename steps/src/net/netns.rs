//! A process's network namespace, to be joined by a worker or to make a link in.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use std::path::Path;

use lifecycle_engine::error::EffectError;
use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags, fstat, fstatfs, open, openat};
use rustix::io::Errno;

use crate::outcomes::Process;
use crate::process::credentials::enter_namespace;
use crate::sys;

/// The caller's own network namespace.
pub fn own() -> Result<OwnedFd, EffectError> {
    open("/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| EffectError::call("open(/proc/self/ns/net)", e))
}

/// The network namespace that a file is pinned to; none where the file has gone or no namespace is mounted on it.
pub fn pinned(path: &Path) -> Result<Option<OwnedFd>, EffectError> {
    let failed = |e| EffectError::call(format!("open({})", path.display()), e);
    match openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(failed(e)),
        Ok(fd) => Ok(Some(fd).filter(|fd| fstatfs(fd).is_ok_and(|found| found.f_type == sys::namespace::NSFS_MAGIC))),
    }
}

/// Whether both are the same namespace.
pub fn is_same(a: impl AsFd, b: impl AsFd) -> Result<bool, EffectError> {
    let id = |fd: BorrowedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let failed = |e| EffectError::call("fstat(network namespace)", e);
    Ok(id(a.as_fd()).map_err(failed)? == id(b.as_fd()).map_err(failed)?)
}

/// The network namespaces of all processes, each once, as far as they can be seen.
pub fn all() -> Vec<OwnedFd> {
    let mut seen = BTreeSet::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let namespaces = processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    namespaces
        .filter_map(|process| {
            let path = process.path().join("ns/net");
            let fd = open(&path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()?;
            let stat = fstat(&fd).ok()?;
            seen.insert((stat.st_dev, stat.st_ino)).then_some(fd)
        })
        .collect()
}

/// Calls the body in another network namespace, and comes back. A socket that it opens stays there.
///
/// Needs CAP_SYS_ADMIN in the user namespaces that own both. The calling thread alone moves.
pub fn within<T>(net: impl AsFd, body: impl FnOnce() -> T) -> Result<T, EffectError> {
    let own = own()?;
    enter_namespace(net, CloneFlags::CLONE_NEWNET).map_err(|e| {
        EffectError::call("setns(CLONE_NEWNET)", e).help(
            "working in another network namespace needs CAP_SYS_ADMIN in the user namespace that owns it, and in the caller's own",
        )
    })?;
    let answer = body();
    if enter_namespace(&own, CloneFlags::CLONE_NEWNET).is_err() {
        // Whoever was let in is let back. If not, nothing that this process does from here on is where it is meant to be.
        std::process::abort();
    }
    Ok(answer)
}

/// The network namespace of a process, and the user namespace of that process.
#[derive(Debug)]
pub struct Netns {
    net: OwnedFd,
    user: OwnedFd,
}

impl Netns {
    /// That of a process which still runs.
    pub fn of(process: &Process) -> Result<Self, EffectError> {
        let gone = || EffectError::new(format!("{process} has ended, and its network namespace with it"));
        let directory =
            process.directory().map_err(|e| EffectError::call(format!("open(/proc/{})", process.pid), e))?;
        let directory = directory.ok_or_else(gone)?;
        let namespace = |name: &str| {
            openat(&directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| EffectError::call(format!("open(/proc/{}/{name})", process.pid), e))
        };
        Ok(Self { net: namespace("ns/net")?, user: namespace("ns/user")? })
    }

    /// The descriptors that a worker needs to join it.
    pub fn fds(&self) -> [RawFd; 2] {
        [self.net.as_raw_fd(), self.user.as_raw_fd()]
    }

    /// The namespace's descriptor.
    pub fn net(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }

    /// Moves the calling process there. For a worker: there is no way back for an ordinary user.
    pub fn join(&self) -> Result<(), EffectError> {
        match enter_namespace(&self.net, CloneFlags::CLONE_NEWNET) {
            Err(Errno::PERM) => {
                // An ordinary user may join what belongs to a user namespace of its own, from within that.
                let user = enter_namespace(&self.user, CloneFlags::CLONE_NEWUSER);
                user.map_err(|e| EffectError::call("setns(CLONE_NEWUSER)", e))?;
                enter_namespace(&self.net, CloneFlags::CLONE_NEWNET)
                    .map_err(|e| EffectError::call("setns(CLONE_NEWNET)", e))
            }
            answer => answer.map_err(|e| EffectError::call("setns(CLONE_NEWNET)", e)),
        }
    }
}
