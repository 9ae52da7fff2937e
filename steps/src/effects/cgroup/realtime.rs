//! Real time for the parents of a cgroup of version 1.
//!
//! A cgroup of the controller cpu can have no more real time than the one above it, and a new one has none (Documentation/scheduler/
//! sched-rt-group.rst, CONFIG_RT_GROUP_SCHED). Parents that runs of ours made have what their containers ask for, and no more: each container
//! leaves a mark there, and the sum of the marks is what the parent gets.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use lifecycle_engine::facts::sha256;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{TOP, directory, mark, open_directory, read, write};

/// The prefix of the marks' keys; a digest of the container's path follows. Values are those of [`Mark`].
const MARK: &str = "lifecycle.realtime.";

/// On a parent whose real time is the sum of the marks, and nobody else's to say.
const OURS: &str = "lifecycle.realtime";

const RUNTIME: &str = "cpu.rt_runtime_us";
const PERIOD: &str = "cpu.rt_period_us";

/// How long the processes of a cgroup may run in real time, of each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Realtime {
    /// Microseconds.
    pub runtime: u64,
    /// Microseconds. Absent: the parent's, as the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
}

impl Realtime {
    /// What a parent with this period needs for it. The kernel rounds shares down, so that a sum that is rounded up always suffices.
    pub fn of_each(self, period: u64) -> u64 {
        let own = self.period.unwrap_or(period).max(1);
        let scaled = (u128::from(self.runtime) * u128::from(period)).div_ceil(u128::from(own));
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

/// What a container needs of a parent, and whose it is: `RUNTIME PERIOD TAG`, the period 0 where none was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    realtime: Realtime,
    tag: String,
}

impl Mark {
    fn text(&self) -> String {
        let Realtime { runtime, period } = self.realtime;
        format!("{runtime} {} {}", period.unwrap_or(0), self.tag)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (runtime, period) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let realtime = Realtime { runtime, period: Some(period).filter(|n| *n > 0) };
        Some(Self { realtime, tag: words.next()?.to_owned() })
    }
}

fn key(path: &str) -> String {
    format!("{MARK}{}", &sha256(path.as_bytes())[..32])
}

/// Nobody else counts the marks or writes the sum meanwhile. Held for a few calls, and gone with its holder.
fn locked(directory: impl AsFd) -> Result<OwnedFd, Errno> {
    let fd = openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::retry_on_intr(|| flock(&fd, FlockOperation::LockExclusive))?;
    Ok(fd)
}

/// What the cgroup has: time and period. `None`: this kernel divides no real time.
fn given(directory: impl AsFd) -> Result<Option<(i64, u64)>, Errno> {
    let number = |file: &str| match read(directory.as_fd(), file) {
        Ok(text) => Ok(text.trim().parse::<i64>().ok()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
    };
    let (runtime, period) = (number(RUNTIME)?, number(PERIOD)?);
    Ok(runtime.zip(period.and_then(|n| u64::try_from(n).ok())))
}

fn needed(directory: impl AsFd + Copy, period: u64) -> i64 {
    let marks = mark::list(directory, MARK);
    let each = marks.iter().filter_map(|(_, text)| Mark::parse(text)).map(|mark| mark.realtime.of_each(period));
    i64::try_from(each.fold(0, u64::saturating_add)).unwrap_or(i64::MAX)
}

/// Lets a parent have what the container at this path needs besides all others. One that somebody else gave some is left as it is.
pub(super) fn give(parent: impl AsFd, path: &str, realtime: Realtime, tag: &str) -> Result<(), Errno> {
    let lock = locked(&parent)?;
    let Some((has, period)) = given(&lock)? else { return Ok(()) };
    if has != 0 && mark::get(&lock, OURS).is_none() {
        return Ok(());
    }
    mark::set(&lock, OURS, "")?;
    // Without a mark nobody could take it back: the kernel then says what the parent lacks.
    if !mark::set(&lock, &key(path), &Mark { realtime, tag: tag.to_owned() }.text())? {
        return Ok(());
    }
    let needed = needed(&lock, period);
    if needed > has { write(&lock, RUNTIME, &needed.to_string()) } else { Ok(()) }
}

/// What the container's mark on a parent says.
pub(super) fn mark_of(parent: impl AsFd, path: &str) -> Option<String> {
    mark::get(parent.as_fd(), &key(path))
}

/// What a mark says where the run with this tag needs so much.
pub(super) fn mark_text(realtime: Realtime, tag: &str) -> String {
    Mark { realtime, tag: tag.to_owned() }.text()
}

/// Has the container's mark on a parent say this from now on, or nothing, and lets the parent have what all of them come to. Unless `exactly` so
/// much is meant, a mark that says more stays. One that somebody else gave some is left as it is.
pub(super) fn exchange(parent: impl AsFd, path: &str, to: Option<&str>, exactly: bool) -> Result<(), Errno> {
    let lock = locked(&parent)?;
    let Some((has, period)) = given(&lock)? else { return Ok(()) };
    if (has != 0 || to.is_none()) && mark::get(&lock, OURS).is_none() {
        return Ok(());
    }
    let of_each = |text: &str| Mark::parse(text).map_or(0, |mark| mark.realtime.of_each(period));
    let former = mark_of(&lock, path).map_or(0, |text| of_each(&text));
    if !exactly && to.is_none_or(|text| of_each(text) <= former) {
        return Ok(());
    }
    mark::set(&lock, OURS, "")?;
    match to {
        // Without a mark nobody could take it back: the kernel then says what the parent lacks.
        Some(text) if !mark::set(&lock, &key(path), text)? => return Ok(()),
        Some(_) => {}
        None => mark::clear(&lock, &key(path))?,
    }
    let needed = needed(&lock, period);
    match write(&lock, RUNTIME, &needed.to_string()) {
        // As in `take_back`.
        Err(Errno::INVAL | Errno::BUSY) if needed < has => Ok(()),
        written => written,
    }
}

/// Lets a cgroup that is about to be removed have none: the kernel counts a removed one for a while still. Where that is refused, processes in it
/// or cgroups below it use some, and it is tried again when they are gone.
pub(super) fn let_go(directory: impl AsFd) {
    let _ = write(directory, RUNTIME, "0");
}

/// Takes back what the container at this path was given by this run. Where there is no mark any more, a run that was killed may have got no
/// further.
pub(super) fn take_back(parent: impl AsFd, path: &str, tag: &str) -> Result<(), Errno> {
    if mark::get(parent.as_fd(), OURS).is_none() {
        return Ok(());
    }
    let lock = locked(&parent)?;
    match mark_of(&lock, path).and_then(|text| Mark::parse(&text)) {
        Some(mark) if mark.tag != tag => return Ok(()),
        Some(_) => mark::clear(&lock, &key(path))?,
        None => {}
    }
    let Some((has, period)) = given(&lock)? else { return Ok(()) };
    let needed = needed(&lock, period);
    if needed >= has {
        return Ok(());
    }
    match write(&lock, RUNTIME, &needed.to_string()) {
        // Something below has more than was asked for here: somebody has written it there, or the kernel still counts what is gone. Whoever is
        // next to give or to take writes the sum anew.
        Err(Errno::INVAL | Errno::BUSY) => Ok(()),
        written => written,
    }
}

/// What limits the real time of a cgroup that is to be made: the lowest directory above it that is there and not ours to give any, with its time
/// and period in microseconds.
pub(crate) fn limiting(mount: &Path, at: &Path) -> Option<(std::path::PathBuf, i64, u64)> {
    let first = at.strip_prefix(mount).ok()?.components().next()?;
    let ours = |above: &Path| above != mount && (first.as_os_str() == TOP || directory::is_shared(above));
    let above = at.ancestors().skip(1).take_while(|above| above.starts_with(mount));
    let found = above.filter_map(|above| Some((above, open_directory(CWD, above).ok()?)));
    let (above, fd) = found.into_iter().find(|(above, fd)| {
        !ours(above)
            || mark::get(fd, OURS).is_none() && given(fd).is_ok_and(|given| given.is_some_and(|(has, _)| has != 0))
    })?;
    let (has, period) = given(&fd).ok()??;
    Some((above.to_owned(), has, period))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_scaled_to_the_parents_period_and_rounded_up() {
        let of = |runtime, period| Realtime { runtime, period };
        assert_eq!(of(1000, None).of_each(1_000_000), 1000);
        assert_eq!(of(1000, Some(500_000)).of_each(1_000_000), 2000);
        assert_eq!(of(1, Some(3_000_000)).of_each(1_000_000), 1);
        assert_eq!(of(u64::MAX, Some(1)).of_each(1_000_000), u64::MAX);
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for period in [None, Some(500_000)] {
            let mark = Mark { realtime: Realtime { runtime: 7, period }, tag: "abc".into() };
            assert_eq!(Mark::parse(&mark.text()), Some(mark));
        }
        assert_eq!(Mark::parse("7"), None);
    }
}
