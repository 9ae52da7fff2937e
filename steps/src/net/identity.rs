//! Which network device is which, whatever it is called.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lifecycle_engine::error::EffectError;
use rustix::fs::{Dir, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use serde::{Deserialize, Serialize};

/// The number of a device's directory in sysfs. The kernel gives it when the device is made, keeps it through moves and renames, and gives it
/// to nothing else until the next boot; nobody can choose it. Indexes, names, aliases and hardware addresses are for whoever administers the
/// namespace to choose, also for a device that is made in the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(u64);

/// How often the names are gone through while somebody renames devices.
const ROUNDS: u32 = 1000;

/// The devices of a network namespace.
pub struct Devices {
    /// A sysfs of our own: the one at /sys shows the namespace that it was mounted in.
    sysfs: OwnedFd,
}

impl Devices {
    /// Of the network namespace that the calling thread is in.
    pub fn here() -> Result<Self, EffectError> {
        let failed = |what| move |errno: Errno| EffectError::call(what, errno);
        let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("fsopen(sysfs)"))?;
        fsconfig_create(context.as_fd()).map_err(failed("fsconfig(sysfs, create)"))?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let sysfs = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes);
        Ok(Self { sysfs: sysfs.map_err(failed("fsmount(sysfs)"))? })
    }

    /// The device of that name.
    pub fn identity(&self, name: &OsStr) -> Result<Option<Identity>, EffectError> {
        Ok(self.open(name)?.map(|(_, identity)| identity))
    }

    /// The interface index of a device, if it is here.
    pub fn index(&self, identity: Identity) -> Result<Option<u32>, EffectError> {
        for _ in 0..ROUNDS {
            let mut renamed = false;
            for name in self.names()? {
                match self.open(OsStr::from_bytes(&name))? {
                    // The directory is held, so that the index is that of the very device.
                    Some((directory, found)) if found == identity => return index_in(&directory),
                    Some(_) => {}
                    None => renamed = true,
                }
            }
            // It may have been renamed while the names were gone through.
            if !renamed {
                return Ok(None);
            }
        }
        Err(EffectError::new("the network devices in the namespace are renamed all the time, so that none is found")
            .help("end the processes in that network namespace, then undo again"))
    }

    fn names(&self) -> Result<Vec<Vec<u8>>, EffectError> {
        let failed = |errno| EffectError::call("getdents(sysfs, class/net)", errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&self.sysfs, "class/net", flags, Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in Dir::new(directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            // `bonding_masters` is a file among the devices.
            if !matches!(&*name, b"." | b".." | b"bonding_masters") {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &OsStr) -> Result<Option<(OwnedFd, Identity)>, EffectError> {
        let path: PathBuf = Path::new("class/net").join(name);
        let failed = |errno| EffectError::call(format!("open(sysfs, {})", path.display()), errno);
        match openat(&self.sysfs, &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NODEV) => Ok(None),
            Err(errno) => Err(failed(errno)),
            Ok(directory) => {
                let identity = Identity(fstat(&directory).map_err(failed)?.st_ino);
                Ok(Some((directory, identity)))
            }
        }
    }
}

/// The index in the directory of a device; none if it is going away, of which the kernel says EINVAL while the files are still there.
fn index_in(directory: &OwnedFd) -> Result<Option<u32>, EffectError> {
    let gone = |errno: &std::io::Error| {
        errno
            .raw_os_error()
            .map(Errno::from_raw_os_error)
            .is_some_and(|e| matches!(e, Errno::NOENT | Errno::NODEV | Errno::INVAL))
    };
    let read = || {
        let mut text = String::new();
        let file = openat(directory, "ifindex", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(e) if gone(&e) => Ok(None),
        Err(e) => Err(EffectError::call("read(sysfs, ifindex)", e)),
    }
}
