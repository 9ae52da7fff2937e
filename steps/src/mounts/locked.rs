//! Bind mounts for a user namespace, made by the engine with the rights of the host's side.
//!
//! A mount's flags are locked, and what it covers stays covered, only if it came into a mount namespace when that was copied for another user
//! namespace (mount_namespaces(7), "Restrictions on mount namespaces"). A detached copy of one of the host's mounts has no locks: whoever has
//! CAP_SYS_ADMIN in the user namespace that it is attached in makes it writable again, and unmounts what lies on it. So the engine takes its
//! copies where the locks are. A process of its own goes into a copy of the host's mounts that belongs to a user namespace, with the rights of
//! the host's side, and makes the mount there: options against what the host's mount forbids are refused by then. In a second such copy what the
//! options forbid is locked as well, and the mount that comes out of it is handed over.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use lifecycle_engine::error::EffectError;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::net::RecvFlags;
use rustix::process::{chroot, fchdir, getpid};

use super::holder::{Holder, is_tied_to};
use super::{Bind, Options, api};
use crate::effects::inside::root::is_directory;
use crate::process::credentials::enter_namespace;
use crate::process::{Watched, descriptor};
use crate::sys::clone::Clone;

/// A bind of the host's path `source` with all that the options ask for, attached nowhere.
///
/// The caller needs CAP_SYS_ADMIN and CAP_SYS_CHROOT in its user namespace, and one thread.
pub fn bind(source: &Path, options: &Options, id_map: Option<BorrowedFd>) -> Result<OwnedFd, EffectError> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| EffectError::call("socketpair(AF_UNIX)", e))?;
    let maker = getpid();
    let child = Clone::default().spawn(|| {
        let told = is_tied_to(maker) && tell(&theirs, make(source, options, id_map)).is_ok();
        i32::from(!told)
    });
    let child = child.map_err(|e| EffectError::call("clone3 for a locked bind mount", e))?;
    drop(theirs);
    let made = hear(ours);
    Watched::new(child.pidfd).end()?;
    made
}

fn tell(mut socket: &UnixStream, made: Result<OwnedFd, EffectError>) -> std::io::Result<()> {
    match made {
        Ok(mount) => Ok(descriptor::send(socket, mount.as_fd(), b"mount")?),
        Err(error) => socket.write_all(&serde_json::to_vec(&error)?),
    }
}

fn hear(mut socket: UnixStream) -> Result<OwnedFd, EffectError> {
    let mut text = vec![0; 4096];
    let received = rustix::io::retry_on_intr(|| descriptor::receive(&socket, &mut text, RecvFlags::empty()));
    let (length, mount) = received.map_err(|e| EffectError::call("recvmsg(a locked bind mount)", e))?;
    if let Some(mount) = mount {
        return Ok(mount);
    }
    text.truncate(length);
    // Whatever is missing of the error is missing from its end.
    let _ = socket.read_to_end(&mut text);
    let died = |_| EffectError::new("the process that makes a locked bind mount died");
    Err(serde_json::from_slice(&text).unwrap_or_else(died))
}

/// What the process does.
fn make(source: &Path, options: &Options, id_map: Option<BorrowedFd>) -> Result<OwnedFd, EffectError> {
    let bind = options.bind.ok_or_else(|| EffectError::new("only bind mounts are prepared"))?;
    enter_locked_copy()?;
    let mount = api::clone_tree(api::open_source(source)?, source, bind)?;
    api::set_attributes(&mount, options, id_map)?;
    put_alone(mount)?;
    // From here on the process has rights in the namespaces that it makes, and nowhere else. It stays in its directory.
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|e| EffectError::call("unshare(CLONE_NEWUSER|CLONE_NEWNS)", e).help(LIMITED))?;
    let locked = api::clone_tree(api::open_source(Path::new(PLACE))?, source, Bind::Recursive)?;
    api::set_propagation(&locked, options)?;
    Ok(locked)
}

const LIMITED: &str = "a limit of namespaces may be reached: see the user.max_*_namespaces sysctls";

/// Takes the calling process into a copy of its mounts in which all that they forbid is locked. It keeps its rights: the user namespace that the
/// copy belongs to is that of another process, which ends.
fn enter_locked_copy() -> Result<(), EffectError> {
    let owner = Holder::of(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
        .map_err(|e| EffectError::call("clone3(CLONE_NEWUSER|CLONE_NEWNS)", e).help(LIMITED))?;
    enter_namespace(owner.pidfd(), CloneFlags::CLONE_NEWNS).map_err(|e| {
        EffectError::call("setns(CLONE_NEWNS)", e)
            .help("it needs CAP_SYS_ADMIN and CAP_SYS_CHROOT in the caller's user namespace")
    })
}

/// The mount's only neighbour is its root directory.
const PLACE: &str = "mount";

/// Attaches the mount in an empty file system that becomes the calling process's root and working directory: no directory of the host's, closed to
/// others as it may be, lies on the way to it.
fn put_alone(mount: OwnedFd) -> Result<(), EffectError> {
    let failed = |call: &str| {
        let call = call.to_owned();
        move |errno: Errno| EffectError::call(call, errno)
    };
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("fsopen(\"tmpfs\")"))?;
    fsconfig_create(&context).map_err(failed("fsconfig(tmpfs, create)"))?;
    let root =
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(failed("fsmount(tmpfs)"))?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host = openat(CWD, "/", directory, Mode::empty()).map_err(failed("open(\"/\")"))?;
    api::attach(&root, host, Path::new("/"))?;
    fchdir(&root).map_err(failed("fchdir(tmpfs)"))?;
    // Whose root is not that of its mount namespace may make no user namespace.
    chroot(".").map_err(failed("chroot(\".\")"))?;
    let place = if is_directory(&mount)? {
        mkdirat(CWD, PLACE, Mode::RWXU).map_err(failed("mkdirat(tmpfs)"))?;
        openat(CWD, PLACE, directory, Mode::empty())
    } else {
        openat(CWD, PLACE, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR)
    };
    api::attach(mount, place.map_err(failed("open(tmpfs)"))?, Path::new(PLACE))
}
