//! A compiled seccomp filter in the cache.

use std::cell::OnceCell;
use std::fs::DirBuilder;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, RunNames, Undone};
use lifecycle_engine::error::EffectError;
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
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
        })
    }
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
