//! A file that tells a process's id.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::wait::resolve;
use crate::outcomes::Process;

/// The longest earlier file that is remembered: a process's id is shorter by far.
const LONGEST: u64 = 4096;

/// Writes the file, in place of an earlier one. Undo puts that one's text back, unless somebody else has written the file since.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WritePidFile {
    /// The file. Absolute.
    pub path: PathBuf,
    /// The process.
    pub process: Later<Process>,
}

/// The file that was written.
#[derive(Serialize, Deserialize)]
struct Written {
    device: u64,
    inode: u64,
    pid: i32,
}

impl WritePidFile {
    fn failed(&self, what: &str, e: std::io::Error) -> EffectError {
        EffectError::call(format!("{what} {}", self.path.display()), e)
            .help("name a file in a directory that you may write to")
    }

    /// Next to the file, so that it can be renamed into its place; called by the run, so that undo finds it.
    fn draft(&self, cx: &Cx) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.path.with_file_name(format!(".{name}.{}", cx.run.tag()))
    }

    fn write(&self, text: &str, cx: &Cx) -> Result<(u64, u64), EffectError> {
        let draft = self.draft(cx);
        remove(&draft).map_err(|e| self.failed("write", e))?;
        let mut options = std::fs::OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o644).custom_flags(nix::libc::O_NOFOLLOW).open(&draft);
        let written = made.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.metadata()));
        let moved = written.and_then(|made| std::fs::rename(&draft, &self.path).map(|()| made));
        match moved {
            Ok(made) => Ok((made.dev(), made.ino())),
            Err(e) => {
                // The failure that is told is the first one; undo removes the draft again.
                let _ = remove(&draft);
                Err(self.failed("write", e))
            }
        }
    }

    /// Whether the file is the one that this run wrote. Cut off between the rename and the journal, its text tells.
    fn is_ours(&self, record: &Record, cx: &Cx) -> Result<bool, EffectError> {
        let found = match std::fs::symlink_metadata(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound || e.kind() == ErrorKind::NotADirectory => return Ok(false),
            other => other.map_err(|e| self.failed("look at", e))?,
        };
        if let Some(written) = record.outcome::<Written>() {
            return Ok((found.dev(), found.ino()) == (written.device, written.inode));
        }
        let Ok(process) = resolve(&self.process, cx) else { return Ok(false) };
        Ok(found.is_file()
            && found.len() < 16
            && std::fs::read_to_string(&self.path).is_ok_and(|t| t == process.pid.to_string()))
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::NotFound || e.kind() == ErrorKind::NotADirectory => Ok(()),
        other => other,
    }
}

impl EffectDef for WritePidFile {
    const KIND: &'static str = "pid_file";

    fn examples(scratch: &Path) -> Vec<Self> {
        let process = Process { pid: i32::MAX, start: 1, boot: "00000000-0000-0000-0000-000000000000".into() };
        vec![Self { path: scratch.join("pid"), process: Later::Now(process) }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("write the id of {} to {}", self.process, self.path.display())
    }

    fn before(&self, _: &mut Cx) -> Result<Value, EffectError> {
        match std::fs::symlink_metadata(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Value::Null),
            Err(e) => Err(self.failed("look at", e)),
            Ok(found) if found.is_file() && found.len() <= LONGEST => {
                std::fs::read_to_string(&self.path).map(|text| json!(text)).map_err(|e| self.failed("read", e))
            }
            Ok(_) => {
                Err(EffectError::new(format!("{} is there, and is no file with a process's id", self.path.display()))
                    .help("name another file, or remove it"))
            }
        }
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let pid = resolve(&self.process, cx)?.pid;
        let (device, inode) = self.write(&pid.to_string(), cx)?;
        Ok(Applied::outcome(&Written { device, inode, pid }))
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        remove(&self.draft(cx)).map_err(|e| self.failed("remove the draft of", e))?;
        if self.is_ours(record, cx)? {
            match record.before.as_str() {
                Some(text) => self.write(text, cx).map(drop)?,
                None => remove(&self.path).map_err(|e| self.failed("remove", e))?,
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
}
