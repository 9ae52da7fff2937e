//! Cgroups: directories in the mounted hierarchies, and what is written into their files.

mod adopt;
mod controllers;
mod devices;
mod directory;
mod former;
mod freeze;
mod give;
mod mark;
mod members;
mod properties;
mod realtime;
mod scope;
mod slices;
#[cfg(test)]
mod tests;
mod thaw;
mod tree;
mod update;
mod write;

pub use adopt::{AdoptCgroup, Freezer};
pub use controllers::EnableControllers;
pub use devices::DeviceFilter;
pub use directory::MakeCgroup;
pub use freeze::FreezeCgroup;
pub use give::GiveRealtime;
pub(crate) use members::processes_below;
pub use properties::SetProperties;
pub use realtime::Realtime;
pub(crate) use realtime::limiting;
pub use scope::StartScope;
pub use slices::Slices;
pub(crate) use thaw::{Frozen, Thawing, thaw_all};
pub use update::{UpdateCgroup, WriteFile};
pub use write::{Alternative, WriteLimit};

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use lifecycle_engine::error::EffectError;
use lifecycle_engine::proc::lossy;
use lifecycle_engine::value::Outcome;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::facts::{CgroupLayout, boot_id};

/// The topmost directory of cgroups whose path the caller did not choose. The name is ours, so whoever finds it empty may remove it.
pub const TOP: &str = "lifecycle";

/// The processes in a cgroup and in those below it. A cgroup that is gone has none.
pub(super) fn members_of(at: &Path) -> std::io::Result<Vec<i32>> {
    match open_directory(CWD, at) {
        Ok(directory) => members::processes(&directory),
        Err(Errno::NOENT) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

/// The version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// Controllers spread over hierarchies.
    V1,
    /// The unified hierarchy.
    V2,
}

/// A cgroup as it was made or found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cgroup {
    /// The run made it: what is in it is ours to kill, and it is ours to remove.
    pub made: bool,
    /// The file system's device number.
    pub dev: u64,
    /// The directory's inode number.
    pub ino: u64,
    /// The boot in which those numbers mean something.
    pub boot: String,
}

impl Outcome for Cgroup {
    const NAME: &'static str = "cgroup";
}

impl Cgroup {
    /// Records the directory.
    fn of(directory: impl AsFd, made: bool) -> Result<Self, Errno> {
        let stat = fstat(directory)?;
        Ok(Self { made, dev: stat.st_dev, ino: stat.st_ino, boot: boot_id().to_owned() })
    }

    /// The directory at that path, if it is still the one that was recorded.
    fn open(&self, at: &Path) -> Result<Option<OwnedFd>, Errno> {
        match open_directory(CWD, at) {
            Ok(fd) if Self::of(&fd, self.made)? == *self => Ok(Some(fd)),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// Opens a directory to work below it.
pub(crate) fn open_directory(below: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(below, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The whole text of one of a cgroup's files.
fn read(directory: impl AsFd, file: &str) -> std::io::Result<String> {
    let fd = openat(directory, file, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    std::fs::File::from(fd).read_to_end(&mut text)?;
    Ok(lossy(text))
}

/// Writes one value, in one write: the kernel takes each write as a whole.
fn write(directory: impl AsFd, file: &str, value: &str) -> Result<(), Errno> {
    let fd = openat(directory, file, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes())).map(drop)
}

/// Removes a cgroup; absence counts as done. `false`: something is still in it.
fn remove(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<bool, Errno> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Adds to a refused write which field of the config asks for it.
trait OfField {
    /// Nobody's where the name is empty.
    fn of(self, field: &str) -> Self;
}

impl OfField for EffectError {
    fn of(mut self, field: &str) -> Self {
        if !field.is_empty() {
            self.what = format!("{field}: {}", self.what);
        }
        self
    }
}

/// A refused write, with what it most likely means.
fn refused(at: &Path, file: &str, value: &str, errno: Errno) -> EffectError {
    let error = EffectError::call(format!("write {:?} to {}", value.trim_end(), at.join(file).display()), errno);
    match errno {
        Errno::INVAL if file.starts_with("cpu.rt_") => error.help(
            "the cgroups above have less real time left to give, or have given some of it away; see their cpu.rt_runtime_us",
        ),
        Errno::NOENT => error.help("this kernel has no such file, or the controller is not enabled here"),
        Errno::INVAL | Errno::RANGE => error.help("the kernel does not accept the value; see the limit in config.json"),
        Errno::ACCESS | Errno::PERM => {
            error.help("the caller may not change this cgroup; run as root, or ask for no limits")
        }
        Errno::BUSY if file.starts_with("memory.") => error.help(too_low(at)),
        Errno::BUSY => {
            error.help("processes or cgroups below it are in the way; choose a cgroup of the container's own")
        }
        _ => error,
    }
}

/// A limit on memory below what is in use, with how much that is: memory.rst, "memory.limit_in_bytes".
fn too_low(at: &Path) -> String {
    let bytes =
        |file: &str| std::fs::read_to_string(at.join(file)).map_or_else(|_| "?".into(), |text| text.trim().to_owned());
    let (used, most) = (bytes("memory.usage_in_bytes"), bytes("memory.max_usage_in_bytes"));
    format!(
        "the limit is too low: {used} bytes are in use, {most} were at most; raise it, or let the container use less"
    )
}

/// Where the machine has cgroups: the examples' effects are made from that, as a run's are from its facts.
pub(crate) fn machine() -> CgroupLayout {
    use lifecycle_engine::facts::Host;
    serde_json::from_value(crate::facts::Machine.read("cgroup.layout")).unwrap_or_default()
}

/// The path of an example's cgroup below a hierarchy's mount. The scratch directory's name makes it the harness's own.
fn example_path(scratch: &Path) -> String {
    let unique = scratch.file_name().map_or_else(|| "example".into(), |name| name.to_string_lossy());
    format!("{TOP}-examples/{unique}/box")
}

/// The directory of an example's cgroup that has the controller pids, and the version of its hierarchy.
pub(crate) fn example(scratch: &Path) -> (PathBuf, Version) {
    example_of("pids", scratch)
}

/// The same for another controller.
fn example_of(controller: &str, scratch: &Path) -> (PathBuf, Version) {
    match machine().v1_of(controller) {
        Some(hierarchy) => (hierarchy.mount.join(example_path(scratch)), Version::V1),
        None => (example_v2(scratch), Version::V2),
    }
}

/// The directory of an example's cgroup in the hierarchy of version 2.
fn example_v2(scratch: &Path) -> PathBuf {
    let mount = machine().v2.map_or_else(|| "/sys/fs/cgroup".into(), |unified| unified.mount);
    mount.join(example_path(scratch))
}
