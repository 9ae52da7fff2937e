//! When the kernel kills a container's processes because its memory is used up.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use lifecycle_engine::types::Size;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::facts::own_of;

/// Watches a container's memory cgroup. Nothing is polled: the descriptor becomes readable.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// An eventfd that the kernel counts up: memory.rst, "OOM Control". It does so once more when the cgroup goes.
    V1 { control: PathBuf },
    /// inotify on `memory.events`, cgroup-v2.rst, and its count of kills when it was last read.
    V2 { events: PathBuf, killed: u64 },
}

impl OomWatch {
    /// `cgroups` are the directories by controller, as `cgroup.create` tells them. `None` if none of them counts memory.
    ///
    /// # Errors
    ///
    /// The kernel's, for a file that is there and cannot be watched.
    pub fn new(cgroups: &BTreeMap<String, PathBuf>) -> io::Result<Option<Self>> {
        if let Some(dir) = cgroups.get("memory") {
            return Self::v1(dir).map(Some);
        }
        let events = cgroups.get("").map(|dir| dir.join("memory.events")).filter(|file| file.exists());
        events.map(Self::v2).transpose()
    }

    fn v1(dir: &Path) -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = dir.join("memory.oom_control");
        let file = std::fs::File::open(&control)?;
        // The kernel keeps the registration for as long as the eventfd is open.
        std::fs::write(dir.join("cgroup.event_control"), format!("{} {}", fd.as_raw_fd(), file.as_raw_fd()))?;
        Ok(Self { fd, kind: Kind::V1 { control } })
    }

    fn v2(events: PathBuf) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, &events, inotify::WatchFlags::MODIFY)?;
        let killed = killed(&std::fs::read_to_string(&events)?);
        Ok(Self { fd, kind: Kind::V2 { events, killed } })
    }

    /// Readable when there may be something to [`OomWatch::take`].
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether memory has run out since this was last asked.
    ///
    /// # Errors
    ///
    /// The kernel's, for a file that cannot be read.
    pub fn take(&mut self) -> io::Result<bool> {
        let fresh = drain(self.fd.as_fd())?;
        match &mut self.kind {
            Kind::V1 { control } => Ok(fresh && control.exists()),
            Kind::V2 { events, killed: before } => {
                let now = match std::fs::read_to_string(events) {
                    Ok(text) => killed(&text),
                    // The cgroup has gone, and its count with it.
                    Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ENODEV) => {
                        return Ok(false);
                    }
                    Err(e) => return Err(e),
                };
                Ok(std::mem::replace(before, now) < now)
            }
        }
    }
}

/// The memory cgroup of one process, to tell of its end whether memory had run out.
#[derive(Debug)]
pub(crate) struct Memory {
    dir: PathBuf,
    /// How many processes the kernel had killed in it before.
    before: u64,
}

impl Memory {
    /// The cgroup of a process that lives: version 1 does not say where one was that has ended.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let text = |path: String| lifecycle_engine::proc::text(path).ok();
        let mounts = text("/proc/self/mountinfo".to_owned())?;
        let dir_of = |who: &str| {
            let places = own_of(&mounts, &text(format!("/proc/{who}/cgroup"))?);
            let dirs = places.iter().map(|(at, path)| at.join(path.trim_start_matches('/')));
            dirs.into_iter().find(|dir| count_in(dir).is_some())
        };
        let dir = dir_of(&pid.to_string())?;
        // In a cgroup of its own nobody else can have been killed.
        let shared = dir_of("self").as_ref() == Some(&dir);
        let before = if shared { count_in(&dir)? } else { 0 };
        Some(Self { dir, before })
    }

    /// The limit in words, if the kernel has killed a process there for want of memory since.
    pub(crate) fn ran_out(&self) -> Option<String> {
        if count_in(&self.dir)? <= self.before {
            return None;
        }
        let limit = ["memory.max", "memory.limit_in_bytes"]
            .iter()
            .find_map(|name| std::fs::read_to_string(self.dir.join(name)).ok());
        let limit = limit.and_then(|text| text.trim().parse::<u64>().ok()).filter(|limit| *limit < 1 << 60);
        Some(limit.map_or_else(String::new, |limit| format!(" (the limit is {})", Size(limit))))
    }
}

/// How many processes the kernel has killed in a memory cgroup: cgroup-v2.rst, "memory.events"; memory.rst of version 1 (Linux 4.13).
fn count_in(dir: &Path) -> Option<u64> {
    let count = |name: &str| std::fs::read_to_string(dir.join(name)).ok().filter(|text| text.contains("oom_kill "));
    count("memory.events").or_else(|| count("memory.oom_control")).map(|text| killed(&text))
}

/// Reads all that there is; whether there was anything.
fn drain(fd: BorrowedFd) -> io::Result<bool> {
    let mut fresh = false;
    let mut buffer = [0; 4096];
    loop {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(fresh),
            Ok(_) => fresh = true,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn killed(events: &str) -> u64 {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_told_once_by_version_2s_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        std::fs::write(&file, "low 0\noom 1\noom_kill 3\noom_group_kill 0\n").unwrap();
        let mut watch = OomWatch::new(&BTreeMap::from([(String::new(), dir.path().to_owned())])).unwrap().unwrap();
        assert!(!watch.take().unwrap());
        std::fs::write(&file, "low 0\noom 2\noom_kill 4\noom_group_kill 0\n").unwrap();
        assert!(watch.take().unwrap());
        assert!(!watch.take().unwrap());
        std::fs::write(&file, "low 9\noom 2\noom_kill 4\noom_group_kill 0\n").unwrap();
        assert!(!watch.take().unwrap(), "another count than that of kills");
        std::fs::remove_file(&file).unwrap();
        assert!(!watch.take().unwrap());
    }

    #[test]
    fn where_memory_is_not_counted_there_is_nothing_to_watch() {
        assert!(OomWatch::new(&BTreeMap::new()).unwrap().is_none());
    }
}
