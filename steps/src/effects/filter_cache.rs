//! A compiled seccomp filter in the cache.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::fs::DirBuilder;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, RunNames, Undone};
use lifecycle_engine::error::EffectError;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::seccomp::cache::{self, Compiled};

/// Writes a compiled filter into the cache: it appears whole or not at all. The file stays, for later runs; undo removes what a writer that was
/// cut off has left.
///
/// Where it cannot be written (a read-only disk, a full one, a directory that others may write to) there is no cache, and nothing fails.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepFilter {
    /// The cache's directory.
    pub directory: PathBuf,
    /// The file's name: the hash of all that the filter depends on.
    pub key: String,
    /// What is written; nothing where planning found it there. Not part of the effect's data: a run from a saved plan keeps none.
    #[serde(skip)]
    pub program: OnceCell<Rc<[u8]>>,
}

impl KeepFilter {
    /// For a filter that has just been compiled, or found.
    pub(crate) fn of(directory: PathBuf, filter: Compiled) -> Self {
        let program = OnceCell::new();
        if !filter.kept {
            // It was empty until now.
            let _ = program.set(filter.program);
        }
        Self { directory, key: filter.key, program }
    }

    fn write(&self, program: &[u8], draft: &str) -> std::io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let directory = cache::open(&self.directory).ok_or(std::io::ErrorKind::PermissionDenied)?;
        remove(directory.as_fd(), draft)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&directory, draft, flags, Mode::RUSR | Mode::WUSR)?;
        let written = std::fs::File::from(file).write_all(&cache::file(&self.key, program));
        let placed = written.and_then(|()| Ok(renameat(&directory, draft, &directory, &self.key)?));
        placed.inspect_err(|_| {
            // The first error is the one that counts; undo tries again.
            let _ = remove(directory.as_fd(), draft);
        })?;
        make_room(directory.as_fd(), &self.key)
    }
}

/// How many filters are kept: a config is somebody else's, and each can have another profile.
const MOST: usize = 64;
/// How much all of them may take, in bytes.
const LARGEST: u64 = 8 << 20;

/// Removes the oldest filters until the rest is within bounds. What has just been written stays.
fn make_room(directory: BorrowedFd, newest: &str) -> std::io::Result<()> {
    let mut kept = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        // A draft, which is its writer's; `.` and `..`.
        let Some(name) = entry.file_name().to_str().ok().filter(|name| !name.starts_with('.') && *name != newest)
        else {
            continue;
        };
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            kept.push((Reverse((stat.st_mtime, stat.st_mtime_nsec)), name.to_owned(), stat.st_size as u64));
        }
    }
    kept.sort();
    let mut bytes = statat(directory, newest, AtFlags::SYMLINK_NOFOLLOW).map_or(0, |stat| stat.st_size as u64);
    for (place, (_, name, size)) in (1..).zip(kept) {
        bytes += size;
        if place >= MOST || bytes > LARGEST {
            remove(directory, &name)?;
        }
    }
    Ok(())
}

/// A name that only this run has.
fn draft(run: &RunNames) -> String {
    format!(".lifecycle-{}", run.tag())
}

fn remove(directory: BorrowedFd, name: &str) -> std::io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        answer => Ok(answer?),
    }
}

impl EffectDef for KeepFilter {
    const KIND: &'static str = "seccomp_cache";

    fn examples(scratch: &Path) -> Vec<Self> {
        let program = OnceCell::from(Rc::from([6, 0, 0, 0, 0, 0, 255, 127].as_slice()));
        vec![Self { directory: scratch.join("cache/seccomp"), key: "0".repeat(64), program }]
    }

    fn class(&self) -> Class {
        Class::Kept
    }

    fn describe(&self) -> String {
        let short = self.key.get(..12).unwrap_or(&self.key);
        format!("keep the compiled seccomp filter {short}… in {}", self.directory.display())
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let Some(program) = self.program.get() else { return Ok(Applied::done()) };
        let kept = self.write(program, &draft(cx.run)).is_ok();
        Ok(Applied::Done(json!({ "kept": kept })))
    }

    fn undo(&self, _: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        let Some(directory) = cache::open(&self.directory) else { return Ok(Undone::Done) };
        let draft = draft(cx.run);
        remove(directory.as_fd(), &draft)
            .map_err(|e| EffectError::call(format!("unlink({}/{draft})", self.directory.display()), e))?;
        Ok(Undone::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::testing::Bench;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_kept_is_found_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let effect = KeepFilter::examples(dir.path()).remove(0);
        let mut bench = Bench::new(dir.path());
        let (record, answer) = bench.apply(&effect);
        assert_eq!(answer.unwrap(), json!({ "kept": true }));
        assert_eq!(cache::read(&effect.directory, &effect.key).as_ref(), effect.program.get());
        let left = effect.directory.join(draft(&RunNames { root: dir.path().to_owned(), id: "test".into() }));
        std::fs::write(&left, "half").unwrap();
        for _ in 0..2 {
            bench.undo(&effect, &record).unwrap();
        }
        assert!(!left.exists() && cache::read(&effect.directory, &effect.key).is_some());
    }

    #[test]
    fn however_many_profiles_come_the_cache_stays_small_and_the_latest_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("cache");
        let names = || std::fs::read_dir(&directory).unwrap().count();
        let keep = |n: usize, size: usize| {
            let effect = KeepFilter {
                directory: directory.clone(),
                key: format!("{n:064x}"),
                program: OnceCell::from(Rc::from(vec![0; size])),
            };
            assert_eq!(Bench::new(dir.path()).apply(&effect).1.unwrap(), json!({ "kept": true }));
            // The order in which they were written, however coarse the clock.
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
            std::fs::File::open(directory.join(&effect.key)).unwrap().set_modified(time).unwrap();
        };
        (0..MOST + 10).for_each(|n| keep(n, 8));
        assert_eq!(names(), MOST);
        assert!(!directory.join(format!("{:064x}", 9)).exists() && directory.join(format!("{:064x}", 10)).exists());
        (100..100 + MOST).for_each(|n| keep(n, 256 << 10));
        assert!(names() > 16 && names() < 33, "{}", names());
        assert!(directory.join(format!("{:064x}", 100 + MOST - 1)).exists());
    }

    #[test]
    fn a_damaged_file_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let effect = KeepFilter::examples(dir.path()).remove(0);
        let mut bench = Bench::new(dir.path());
        bench.apply(&effect).1.unwrap();
        std::fs::write(effect.directory.join(&effect.key), "damaged").unwrap();
        assert_eq!(cache::read(&effect.directory, &effect.key), None);
        bench.apply(&effect).1.unwrap();
        assert!(cache::read(&effect.directory, &effect.key).is_some());
    }

    #[test]
    fn where_others_may_write_nothing_is_kept_and_nothing_fails() {
        let dir = tempfile::tempdir().unwrap();
        let effect = KeepFilter::examples(dir.path()).remove(0);
        std::fs::create_dir_all(&effect.directory).unwrap();
        std::fs::set_permissions(&effect.directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(Bench::new(dir.path()).apply(&effect).1.unwrap(), json!({ "kept": false }));
        assert_eq!(std::fs::read_dir(&effect.directory).unwrap().count(), 0);
        let file = KeepFilter { directory: "/dev/null/cache".into(), ..effect };
        assert_eq!(Bench::new(dir.path()).apply(&file).1.unwrap(), json!({ "kept": false }));
    }
}
