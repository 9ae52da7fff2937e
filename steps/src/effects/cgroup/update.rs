//! Changes the limits of a cgroup in which processes are.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use nix::libc::{EACCES, EINVAL, ENOENT};
use rustix::fs::CWD;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::former::former;
use super::members::processes;
use super::{Alternative, Cgroup, OfField, open_directory, read, refused, write};

/// Writes values into files of one cgroup, all or none.
///
/// What the kernel refuses at first is tried again once the rest is written: a limit on memory cannot be above the one on memory and swap, a
/// burst not above its quota, and which has to move first depends on what is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateCgroup {
    /// The cgroup's directory.
    pub at: PathBuf,
    /// What is written, in this order.
    pub files: Vec<WriteFile>,
    /// A limit on memory below what is in use is refused (config-linux.md, `checkBeforeUpdate`), in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_below: Option<u64>,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    /// Which field of the config asks for it, for messages.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// The file in the cgroup's directory.
    pub file: String,
    /// What is written.
    pub value: String,
    /// What to write where the kernel has no such file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Alternative>,
    /// A kernel without the file has nothing to limit: that is no error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// What was there before.
#[derive(Serialize, Deserialize)]
struct Before {
    /// Which cgroup: what has taken its path since is not ours to change.
    cgroup: Cgroup,
    /// Of each, the file that the kernel has and its text, where it can be read.
    texts: Vec<Option<(String, String)>>,
}

impl WriteFile {
    pub(super) fn new(file: String, value: String) -> Self {
        Self { field: String::new(), file, value, otherwise: None, optional: true }
    }

    /// The file that this kernel has, with its value.
    fn choices(&self) -> impl Iterator<Item = (&str, &str)> {
        let other = self.otherwise.iter().map(|other| (other.file.as_str(), other.value.as_str()));
        std::iter::once((self.file.as_str(), self.value.as_str())).chain(other)
    }

    /// What is told of it, in the cgroup's directory `at`.
    pub(super) fn describe(&self, at: &Path) -> String {
        let other = self.otherwise.as_ref().map(|other| format!(" (or {} to {})", other.value, other.file));
        let condition = if self.optional { ", if the kernel has it" } else { "" };
        let file = at.join(&self.file);
        format!("write {} to {}{}{condition}", self.value, file.display(), other.unwrap_or_default())
    }

    /// Writes it; the kernel's answer, and what is told of that.
    pub(super) fn write(&self, directory: &OwnedFd, at: &Path) -> Result<(), (Errno, EffectError)> {
        for (file, value) in self.choices() {
            match write(directory, file, value) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err((errno, refused(at, file, value, errno).of(&self.field))),
            }
        }
        if self.optional {
            return Ok(());
        }
        Err((Errno::NOENT, refused(at, &self.file, &self.value, Errno::NOENT).of(&self.field)))
    }

    /// What the file holds now.
    pub(super) fn text(&self, directory: &OwnedFd) -> std::io::Result<Option<(String, String)>> {
        for (file, _) in self.choices() {
            match read(directory, file) {
                Ok(text) => return Ok(Some((file.to_owned(), text))),
                // Not there, or write-only: apply says what that means.
                Err(e) if matches!(e.raw_os_error(), Some(ENOENT | EACCES | EINVAL)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// The writes that undo it.
    pub(super) fn former(&self, file: &str, text: &str) -> Vec<Self> {
        let written = self.choices().find(|(name, _)| *name == file).map_or("", |(_, value)| value);
        former(file, text, written).into_iter().map(|value| Self::new(file.to_owned(), value)).collect()
    }
}

/// What the kernel says of a value that does not fit to another one.
fn may_fit_later(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::BUSY | Errno::RANGE)
}

impl UpdateCgroup {
    fn failed(&self, what: &str, errno: impl Into<std::io::Error>) -> EffectError {
        EffectError::call(format!("{what} {}", self.at.display()), errno)
    }

    /// Writes all of them, in as many rounds as it takes while each brings some further.
    fn write_all(&self, directory: &OwnedFd, files: &[WriteFile]) -> Result<(), EffectError> {
        let mut left: Vec<&WriteFile> = files.iter().collect();
        loop {
            let (before, mut refusals) = (left.len(), Vec::new());
            let mut again = Vec::new();
            for one in left {
                match one.write(directory, &self.at) {
                    Ok(()) => {}
                    Err((errno, refusal)) if may_fit_later(errno) => {
                        refusals.push(refusal);
                        again.push(one);
                    }
                    Err((_, refusal)) => return Err(refusal),
                }
            }
            match refusals.into_iter().next() {
                None => return Ok(()),
                Some(refusal) if again.len() == before => return Err(refusal),
                Some(_) => left = again,
            }
        }
    }

    fn check_use(&self, directory: &OwnedFd) -> Result<(), EffectError> {
        let Some(limit) = self.used_below else { return Ok(()) };
        let file = ["memory.current", "memory.usage_in_bytes"].into_iter().find_map(|file| read(directory, file).ok());
        let used: u64 = file.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if used <= limit {
            return Ok(());
        }
        let what =
            format!("the limit of {limit} is too low: {used} bytes of memory are in use in {}", self.at.display());
        Err(EffectError::new(what).help("the config asks for this check by memory.checkBeforeUpdate; raise the limit"))
    }
}

impl EffectDef for UpdateCgroup {
    const KIND: &'static str = "cgroup.update";

    fn examples(scratch: &Path) -> Vec<Self> {
        let files = vec![WriteFile { optional: false, ..WriteFile::new("pids.max".into(), "16".into()) }];
        vec![Self { at: super::example(scratch).0, files, used_below: None }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let check = self.used_below.map(|limit| format!("unless more than {limit} bytes of memory are in use, "));
        let files = self.files.iter().map(|one| one.describe(&self.at)).collect::<Vec<_>>().join("; ");
        format!("{}{files}", check.unwrap_or_default())
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        let directory = open_directory(CWD, &self.at).map_err(|e| self.failed("open", e))?;
        let cgroup = Cgroup::of(&directory, false).map_err(|e| self.failed("fstat", e))?;
        let text = |one: &WriteFile| one.text(&directory).map_err(|e| self.failed(&format!("read {} of", one.file), e));
        let texts = self.files.iter().map(text).collect::<Result<_, _>>()?;
        Ok(json!(Before { cgroup, texts }))
    }

    fn apply(&self, _before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        let directory = open_directory(CWD, &self.at).map_err(|e| self.failed("open", e))?;
        self.check_use(&directory)?;
        self.write_all(&directory, &self.files)?;
        Ok(Applied::done())
    }

    /// Puts the old values back. In a cgroup without processes nothing is limited: its container has ended, and it is about to be removed.
    fn undo(&self, record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        let Ok(before) = Before::deserialize(&record.before) else { return Ok(Undone::Done) };
        let Some(directory) = before.cgroup.open(&self.at).map_err(|e| self.failed("open", e))? else {
            return Ok(Undone::Done);
        };
        let old = |(one, text): (&WriteFile, &Option<(String, String)>)| {
            text.as_ref().map(|(file, text)| one.former(file, text)).unwrap_or_default()
        };
        // The way back, so that every state between is one that has been.
        let files: Vec<WriteFile> = self.files.iter().zip(&before.texts).rev().flat_map(old).collect();
        match self.write_all(&directory, &files) {
            Err(_) if processes(&directory).is_ok_and(|members| members.is_empty()) => Ok(Undone::Done),
            written => written.map(|()| Undone::Done),
        }
    }
}
