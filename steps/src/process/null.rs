//! `/dev/null` on a container's stdin, stdout and stderr is one of its own. The host's belongs to root, also in the container, which could change
//! its mode for everybody on the host by a descriptor; it lies on a mount that the container does not have; and criu(8) saves no such file.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use lifecycle_engine::error::EffectError;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, makedev, open, openat, statat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::stdio;

use crate::made;

/// The device.
const NULL: (u32, u32) = (1, 3);

fn is_null(found: &Stat) -> bool {
    let device = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
    FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && device == NULL
}

/// Puts a descriptor in the place of one of stdin, stdout and stderr.
type Put = fn(&OwnedFd) -> Result<(), Errno>;

/// Puts one of the container's own in the place of each that is the null device. The process's root is the container's.
pub(crate) fn leave_hosts_null() -> Result<(), EffectError> {
    let mut places = [None, None, None];
    let theirs = [stdio::stdin(), stdio::stdout(), stdio::stderr()];
    for (place, fd) in places.iter_mut().zip(theirs) {
        // One that is closed is not the host's either.
        if fstat(fd).is_ok_and(|found| is_null(&found)) {
            *place = own()?;
        }
    }
    let put: [Put; 3] = [|fd| stdio::dup2_stdin(fd), |fd| stdio::dup2_stdout(fd), |fd| stdio::dup2_stderr(fd)];
    let wanted = places.iter().zip(put).filter_map(|(place, put)| place.as_ref().map(put));
    wanted.collect::<Result<(), _>>().map_err(|errno| EffectError::call("dup2(/dev/null)", errno))
}

/// The same for what a process is to get as its stdio.
pub(crate) fn replace_hosts_null(stdio: &mut [Option<OwnedFd>; 3]) -> Result<(), EffectError> {
    for place in stdio {
        if place.as_ref().is_some_and(|fd| fstat(fd).is_ok_and(|found| is_null(&found)))
            && let Some(own) = own()?
        {
            *place = Some(own);
        }
    }
    Ok(())
}

/// The container's, or where it has none a device that nobody else has. `None`: nobody here may change the host's.
fn own() -> Result<Option<OwnedFd>, EffectError> {
    let there = statat(CWD, c"/dev/null", AtFlags::SYMLINK_NOFOLLOW);
    if !there.is_ok_and(|found| is_null(&found)) {
        return nobodys();
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let call = |errno| EffectError::call("open(\"/dev/null\")", errno);
    let own = open(c"/dev/null", flags, Mode::empty()).map_err(call)?;
    // Somebody who shares the root may have put another one there meanwhile (CVE-2026-88265).
    if !fstat(&own).is_ok_and(|found| is_null(&found)) {
        return Err(EffectError::new("/dev/null in the container became something else while it was opened"));
    }
    Ok(Some(own))
}

/// A null device on a file system that is mounted nowhere.
fn nobodys() -> Result<Option<OwnedFd>, EffectError> {
    let made = || -> Result<OwnedFd, EffectError> {
        let call = |name: &'static str| move |errno: Errno| EffectError::call(name, errno);
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(call("fsopen(tmpfs)"))?;
        fsconfig_create(&context).map_err(call("fsconfig(tmpfs, create)"))?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NOSUID;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(call("fsmount(tmpfs)"))?;
        let (mode, number) = (Mode::from_raw_mode(0o666), makedev(NULL.0, NULL.1));
        made::node(mount.as_fd(), Path::new("null"), FileType::CharacterDevice, number, mode, None)?;
        openat(&mount, "null", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
            .map_err(call("open(null)"))
    };
    match made() {
        Ok(own) => Ok(Some(own)),
        // In a user namespace nobody makes devices, nor owns the host's.
        Err(e) if matches!(e.errno, Some(errno) if errno == Errno::PERM.raw_os_error() || errno == Errno::ACCESS.raw_os_error()) => {
            Ok(None)
        }
        Err(e) => Err(e.help(
            "the container has no /dev/null that could be its stdio: give it one, or a pipe or a file for stdio",
        )),
    }
}
