//! A file that tells a process's id.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::journal::Foreign;
use lifecycle_engine::value::Later;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wait::resolve;
use crate::outcomes::Process;

/// The longest earlier file that is remembered: a process's id is shorter by far.
const LONGEST: i64 = 4096;

/// Writes the file, in place of an earlier one. Undo, but that of a run that has ended well if the file is to stay, puts that one's text back, unless somebody else has written the file since, or could have
/// written the earlier one: another's text is not written in the caller's name.
///
/// All of it is done in the directory that was there in the beginning: whoever owns one above may put another in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WritePidFile {
    /// The file. Absolute.
    pub path: PathBuf,
    /// The process.
    pub process: Later<Process>,
    /// It stays when the run ends well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stays: bool,
}

/// The file that was written.
#[derive(Serialize, Deserialize)]
struct Written {
    device: u64,
    inode: u64,
    pid: i32,
}

/// What was there.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Before {
    Found {
        /// The directory's device and inode.
        directory: (u64, u64),
        /// The earlier file's text.
        text: Option<String>,
    },
    /// As older versions kept it: the text.
    Text(Option<String>),
}

impl WritePidFile {
    fn failed(&self, what: &str, e: impl Into<std::io::Error>) -> EffectError {
        EffectError::call(format!("{what} {}", self.path.display()), e)
            .help("name a file in a directory that you may write to")
    }

    fn directory(&self) -> Result<OwnedFd, Errno> {
        let around = self.path.parent().unwrap_or(Path::new("/"));
        openat(CWD, around, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    fn name(&self) -> &Path {
        Path::new(self.path.file_name().unwrap_or_default())
    }

    /// Next to the file, so that it can be renamed into its place; called by the run, so that undo finds it.
    fn draft(&self, cx: &Cx) -> String {
        format!(".{}.{}", self.name().to_string_lossy(), cx.run.tag())
    }

    fn write(&self, directory: &OwnedFd, text: &str, cx: &Cx) -> Result<Stat, EffectError> {
        let draft = self.draft(cx);
        let failed = |e| self.failed("write", e);
        remove(directory, Path::new(&draft)).map_err(|e| self.failed("write", e))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(directory, &*draft, flags, Mode::from_raw_mode(0o644)).map(File::from);
        let written = made.map_err(std::io::Error::from).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            Ok(fstat(&file)?)
        });
        let moved = written.and_then(|made| {
            renameat(directory, &*draft, directory, self.name())?;
            Ok(made)
        });
        if moved.is_err() {
            // The failure that is told is the first one; undo removes the draft again.
            let _ = remove(directory, Path::new(&draft));
        }
        moved.map_err(failed)
    }

    /// Whether the file is the one that this run wrote. Cut off between the rename and the journal, its text tells.
    fn is_ours(&self, directory: &OwnedFd, record: &Record, cx: &Cx) -> Result<bool, EffectError> {
        let found = match statat(directory, self.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(|e| self.failed("look at", e))?,
        };
        if let Some(written) = record.outcome::<Written>() {
            return Ok((found.st_dev, found.st_ino) == (written.device, written.inode));
        }
        let Ok(process) = resolve(&self.process, cx) else { return Ok(false) };
        let is_ours = found.st_uid == geteuid().as_raw() && found.st_size < 16;
        Ok(is_ours && self.text(directory).is_ok_and(|(_, text)| text == process.pid.to_string()))
    }

    /// The file, if it is a short one. Who may keep others from opening it (fcntl(2), leases) keeps nobody waiting.
    fn text(&self, directory: &OwnedFd) -> Result<(Stat, String), std::io::Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(directory, self.name(), flags, Mode::empty())?;
        let stat = fstat(&file)?;
        let mut text = String::new();
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            File::from(file).take(LONGEST as u64).read_to_string(&mut text)?;
        }
        Ok((stat, text))
    }
}

fn remove(directory: &OwnedFd, name: &Path) -> Result<(), Errno> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

impl EffectDef for WritePidFile {
    const KIND: &'static str = "pid_file";

    fn examples(scratch: &Path) -> Vec<Self> {
        let process = Process { pid: i32::MAX, start: 1, boot: "00000000-0000-0000-0000-000000000000".into() };
        vec![Self { path: scratch.join("pid"), process: Later::Now(process), stays: false }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let stays = if self.stays { ", where it stays" } else { "" };
        format!("write the id of {} to {}{stays}", self.process, self.path.display())
    }

    fn before(&self, _: &mut Cx) -> Result<Value, EffectError> {
        let directory = self.directory().map_err(|e| self.failed("open the directory of", e))?;
        let around = fstat(&directory).map_err(|e| self.failed("look at the directory of", e))?;
        let text = match statat(&directory, self.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            Err(e) => return Err(self.failed("look at", e)),
            Ok(found)
                if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_size <= LONGEST =>
            {
                // Nobody else can have written it.
                let own = [&around, &found].iter().all(|stat| Foreign::of(stat).is_none());
                let read = own.then(|| self.text(&directory)).transpose().map_err(|e| self.failed("read", e))?;
                read.filter(|(stat, _)| Foreign::of(stat).is_none()).map(|(_, text)| text)
            }
            Ok(_) => {
                return Err(EffectError::new(format!(
                    "{} is there, and is no file with a process's id",
                    self.path.display()
                ))
                .help("name another file, or remove it"));
            }
        };
        serde_json::to_value(Before::Found { directory: identity(&around), text })
            .map_err(|e| EffectError::new(format!("what was there cannot be written down: {e}")))
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let pid = resolve(&self.process, cx)?.pid;
        let directory = self.directory().map_err(|e| self.failed("open the directory of", e))?;
        let around = fstat(&directory).map_err(|e| self.failed("look at the directory of", e))?;
        if let Ok(Before::Found { directory, .. }) = Before::deserialize(before)
            && directory != identity(&around)
        {
            return Err(EffectError::new(format!("the directory of {} was exchanged", self.path.display()))
                .help("somebody who owns a directory on the way to it did that; name one that is yours"));
        }
        let made = self.write(&directory, &pid.to_string(), cx)?;
        Applied::outcome(&Written { device: made.st_dev, inode: made.st_ino, pid })
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        let directory = match self.directory() {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Undone::Done),
            Err(e) => return Err(self.failed("open the directory of", e)),
        };
        let before = Before::deserialize(&record.before)
            .map_err(|e| EffectError::new(format!("the journal does not say what was there: {e}")))?;
        let text = match before {
            Before::Found { directory: there, text } => {
                let around = fstat(&directory).map_err(|e| self.failed("look at the directory of", e))?;
                if there != identity(&around) {
                    // What was written has gone with the directory that it is in.
                    return Ok(Undone::Done);
                }
                text
            }
            Before::Text(text) => text,
        };
        remove(&directory, Path::new(&self.draft(cx))).map_err(|e| self.failed("remove the draft of", e))?;
        if self.stays && record.ended_well {
            return Ok(Undone::Done);
        }
        if self.is_ours(&directory, record, cx)? {
            match text {
                Some(text) => self.write(&directory, &text, cx).map(drop)?,
                None => remove(&directory, self.name()).map_err(|e| self.failed("remove", e))?,
            }
        }
        Ok(Undone::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::testing::Bench;

    #[test]
    fn an_earlier_file_comes_back_and_another_ones_stays() {
        let dir = tempfile::tempdir().unwrap();
        let effect = WritePidFile::examples(dir.path()).remove(0);
        let text = || std::fs::read_to_string(&effect.path).ok();
        std::fs::write(&effect.path, "17").unwrap();
        let mut bench = Bench::new(dir.path());
        let (record, answer) = bench.apply(&effect);
        answer.unwrap();
        assert_eq!(text(), Some(i32::MAX.to_string()));
        for _ in 0..2 {
            bench.undo(&effect, &record).unwrap();
            assert_eq!(text().as_deref(), Some("17"));
        }
        let (record, _) = bench.apply(&effect);
        std::fs::remove_file(&effect.path).unwrap();
        std::fs::write(&effect.path, "another's").unwrap();
        bench.undo(&effect, &record).unwrap();
        assert_eq!(text().as_deref(), Some("another's"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "a draft is left");
    }

    #[test]
    fn one_that_stays_goes_with_a_failure_alone() {
        let dir = tempfile::tempdir().unwrap();
        let effect = WritePidFile { stays: true, ..WritePidFile::examples(dir.path()).remove(0) };
        let mut bench = Bench::new(dir.path());
        let (record, answer) = bench.apply(&effect);
        answer.unwrap();
        bench.undo(&effect, &Record { ended_well: true, ..record.clone() }).unwrap();
        assert_eq!(std::fs::read_to_string(&effect.path).unwrap(), i32::MAX.to_string());
        bench.undo(&effect, &record).unwrap();
        assert!(!effect.path.exists());
    }

    #[test]
    fn another_ones_text_is_not_written_again_and_nothing_into_another_directory() {
        let dir = tempfile::tempdir().unwrap();
        let [theirs, moved, target] = ["theirs", "moved", "target"].map(|name| dir.path().join(name));
        std::fs::create_dir(&theirs).unwrap();
        std::fs::create_dir(&target).unwrap();
        let exchange = || {
            std::fs::rename(&theirs, &moved).unwrap();
            std::os::unix::fs::symlink(&target, &theirs).unwrap();
        };
        let back = || {
            std::fs::remove_file(&theirs).unwrap();
            std::fs::rename(&moved, &theirs).unwrap();
        };
        let effect = WritePidFile::examples(&theirs).remove(0);
        std::fs::write(&effect.path, "attacker's").unwrap();
        std::os::unix::fs::chown(&theirs, Some(65534), None).unwrap();
        let mut bench = Bench::new(dir.path());
        let before = bench.with(|cx| effect.before(cx)).unwrap();
        exchange();
        let applied = bench.with(|cx| effect.apply(&before, cx).map(drop));
        assert!(applied.unwrap_err().what.ends_with("was exchanged"));
        back();
        let (record, answer) = bench.apply(&effect);
        answer.unwrap();
        exchange();
        std::fs::hard_link(moved.join("pid"), target.join("pid")).unwrap();
        bench.undo(&effect, &record).unwrap();
        assert_eq!(std::fs::read_to_string(target.join("pid")).unwrap(), i32::MAX.to_string());
        back();
        bench.undo(&effect, &record).unwrap();
        assert!(!effect.path.exists(), "the text of another is written again");
    }
}
