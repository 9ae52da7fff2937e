//! Groups of the resctrl file system: directories that the kernel fills with files of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::example_process;
use super::wait::resolve;
use crate::facts::boot_id;
use crate::outcomes::Process;

/// Makes a group: a class of service, or a monitoring group in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeGroup {
    /// Its directory.
    pub at: PathBuf,
    /// One that is there already is shared with others: it is taken, and it stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
}

/// Writes shares into a group's `schemata`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteSchemata {
    /// The file.
    pub at: PathBuf,
    /// The lines, in this order: a later one for the same resource wins.
    pub lines: Vec<String>,
}

/// Puts a process into a group; its children are born there. It leaves with its end, or with the group's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinGroup {
    /// The group's directory.
    pub at: PathBuf,
    /// Who.
    pub process: Later<Process>,
}

/// A group as it was made or found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    made: bool,
    dev: u64,
    ino: u64,
    boot: String,
}

impl Found {
    fn of(directory: impl AsFd, made: bool) -> Result<Self, Errno> {
        let stat = fstat(directory)?;
        Ok(Self { made, dev: stat.st_dev, ino: stat.st_ino, boot: boot_id().to_owned() })
    }
}

fn open_group(at: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, at, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// One write of one text; the kernel's own explanation is in `info/last_cmd_status`.
fn write(at: &Path, text: &str) -> Result<(), Errno> {
    let fd = openat(CWD, at, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::retry_on_intr(|| rustix::io::write(&fd, text.as_bytes())).map(drop)
}

impl MakeGroup {
    fn failed(&self, call: &str, errno: Errno) -> EffectError {
        let error = EffectError::call(format!("{call}(\"{}\")", self.at.display()), errno);
        match errno {
            Errno::NOSPC => {
                error.help("the processor has no class or counter left; share one by `closID`, or remove one")
            }
            Errno::EXIST => {
                error.help("a group of this name is there already; remove it, or choose another container id")
            }
            _ => error,
        }
    }

    fn is_in_use(&self) -> bool {
        std::fs::read_to_string(self.at.join("tasks")).is_ok_and(|tasks| !tasks.trim().is_empty())
    }
}

impl EffectDef for MakeGroup {
    const KIND: &'static str = "rdt.group";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { at: scratch.join("group"), keep: false }, Self { at: scratch.join("shared"), keep: true }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let keep = if self.keep { ", or take it as it is" } else { "" };
        format!("make the resctrl group {}{keep}", self.at.display())
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        match open_group(&self.at) {
            Ok(_) => Ok(json!({ "there": true })),
            Err(Errno::NOENT) => Ok(json!({ "there": false })),
            Err(errno) => Err(self.failed("open", errno)),
        }
    }

    fn apply(&self, _before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        let made = match mkdirat(CWD, &self.at, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) if self.keep => false,
            Err(errno) => return Err(self.failed("mkdir", errno)),
        };
        let group = open_group(&self.at).map_err(|errno| self.failed("open", errno))?;
        Applied::outcome(&Found::of(&group, made).map_err(|errno| self.failed("fstat", errno))?)
    }

    /// The kernel moves who is left in it to the group above.
    fn undo(&self, record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        let group = match open_group(&self.at) {
            Ok(group) => group,
            Err(Errno::NOENT) => return Ok(Undone::Done),
            Err(errno) => return Err(self.failed("open", errno)),
        };
        let ours = match record.outcome::<Found>() {
            Some(found) => found.made && Found::of(&group, true).map_err(|errno| self.failed("fstat", errno))? == found,
            // Cut off in between: what was not there before the run has the run's own id for a name. A shared one may be somebody else's by
            // now if a process is in it.
            None => record.before["there"] == false && !(self.keep && self.is_in_use()),
        };
        if !ours {
            return Ok(Undone::Done);
        }
        match unlinkat(CWD, &self.at, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(Undone::Done),
            Err(errno) => Err(self.failed("rmdir", errno)),
        }
    }
}

impl EffectDef for WriteSchemata {
    const KIND: &'static str = "rdt.schemata";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { at: scratch.join("schemata"), lines: vec!["L3:0=f".into()] }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("write {} to {}", self.lines.join(", "), self.at.display())
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        match std::fs::read_to_string(&self.at) {
            Ok(text) => Ok(json!(text)),
            Err(e) => Err(EffectError::call(format!("read {}", self.at.display()), e)),
        }
    }

    fn apply(&self, _before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        let text = self.lines.iter().fold(String::new(), |text, line| text + line + "\n");
        write(&self.at, &text).map_err(|errno| {
            EffectError::call(format!("write {:?} to {}", text.trim_end(), self.at.display()), errno)
                .help("the kernel says why in info/last_cmd_status of the resctrl file system")
        })?;
        Ok(Applied::done())
    }

    /// A group that goes takes its shares with it.
    fn undo(&self, record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        let Some(text) = record.before.as_str() else { return Ok(Undone::Done) };
        match write(&self.at, text) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => Ok(Undone::Done),
            Err(errno) => Err(EffectError::call(format!("write the former shares to {}", self.at.display()), errno)),
        }
    }
}

impl EffectDef for JoinGroup {
    const KIND: &'static str = "rdt.join";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { at: scratch.to_owned(), process: Later::Handle(example_process()) }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("write {} to {}", self.process, self.at.join("tasks").display())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let pid = resolve(&self.process, cx)?.pid;
        let file = self.at.join("tasks");
        write(&file, &pid.to_string())
            .map_err(|errno| EffectError::call(format!("write {pid} to {}", file.display()), errno))?;
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::testing::Bench;

    /// A directory that looks like resctrl, with a class that was there before.
    fn resctrl() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for group in ["", "gold"] {
            std::fs::create_dir_all(dir.path().join(group)).unwrap();
            std::fs::write(dir.path().join(group).join("schemata"), "L3:0=fff\n").unwrap();
            std::fs::write(dir.path().join(group).join("tasks"), "").unwrap();
        }
        dir
    }

    #[test]
    fn a_group_is_removed_only_if_this_run_made_it() {
        let dir = resctrl();
        let mut bench = Bench::new(dir.path());
        let own = MakeGroup { at: dir.path().join("web"), keep: false };
        let (record, answer) = bench.apply(&own);
        answer.unwrap();
        assert!(own.at.is_dir());
        for _ in 0..2 {
            bench.undo(&own, &record).unwrap();
            assert!(!own.at.exists());
        }
        // Made anew by somebody else.
        std::fs::create_dir(dir.path().join("other")).unwrap();
        std::fs::create_dir(&own.at).unwrap();
        bench.undo(&own, &record).unwrap();
        assert!(own.at.is_dir());
        assert!(bench.apply(&own).1.is_err());
        let shared = MakeGroup { at: dir.path().join("gold"), keep: true };
        let (record, answer) = bench.apply(&shared);
        answer.unwrap();
        bench.undo(&shared, &record).unwrap();
        assert!(shared.at.is_dir());
        bench.undo(&shared, &Record::default()).unwrap();
        assert!(shared.at.is_dir());
    }

    #[test]
    fn shares_come_back_and_a_process_is_put_where_it_belongs() {
        let dir = resctrl();
        let mut bench = Bench::new(dir.path());
        let write = WriteSchemata { at: dir.path().join("gold/schemata"), lines: vec!["L3:0=0ff".into()] };
        let (record, answer) = bench.apply(&write);
        answer.unwrap();
        assert_eq!(std::fs::read_to_string(&write.at).unwrap(), "L3:0=0ff\n");
        bench.undo(&write, &record).unwrap();
        assert_eq!(std::fs::read_to_string(&write.at).unwrap(), "L3:0=fff\n");
        let process = Process { pid: 77, start: 1, boot: "x".into() };
        let join = JoinGroup { at: dir.path().join("gold"), process: Later::Now(process) };
        bench.apply(&join).1.unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("gold/tasks")).unwrap(), "77");
    }
}
