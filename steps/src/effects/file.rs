//! A regular file on the host.

use super::directory::owner_text;
use super::placed::{self, Existing, Place};
use crate::made;
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::Mode;
use lifecycle_engine::value::Text;
use rustix::fs::{FileType, OFlags, fchmod, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// Makes a file with these contents: it appears whole or not at all. Undo removes it, whatever was written into it since.
#[derive(Debug, Serialize, Deserialize)]
pub struct File {
    /// Where. Absolute.
    pub path: PathBuf,
    /// What is in it.
    pub content: Text,
    /// Its permissions, whatever the umask.
    pub mode: Mode,
    /// Its owner and group; absent: the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// What to do where there is something already.
    #[serde(default, skip_serializing_if = "Existing::is_default")]
    pub existing: Existing,
}

impl EffectDef for File {
    const KIND: &'static str = "file";

    fn examples(scratch: &Path) -> Vec<Self> {
        let path = scratch.join("file");
        vec![Self { path, content: "one line\n".into(), mode: Mode(0o640), owner: None, existing: Existing::Refuse }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let content = self.content.to_string();
        let keep = if self.existing == Existing::Keep { ", kept if it is there" } else { "" };
        let (path, mode, owner) = (self.path.display(), self.mode, owner_text(self.owner));
        format!("write {} bytes to file {path} with mode {mode}{owner}{keep}", content.len())
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        placed::apply(self, before, cx)
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        placed::undo(self, record, cx)
    }
}

impl Place for File {
    fn path(&self) -> &Path {
        &self.path
    }

    fn existing(&self) -> Existing {
        self.existing
    }

    fn file_type(&self) -> FileType {
        FileType::RegularFile
    }

    fn make(&self, dir: BorrowedFd, name: &Path, cx: &Cx) -> Result<(), EffectError> {
        let content = cx.text(&self.content)?;
        let mode = rustix::fs::Mode::from_raw_mode(self.mode.0);
        write_new(dir, name, content.as_bytes(), mode, self.owner)
    }
}

/// Makes a file that was not there, and fills it.
pub(super) fn write_new(
    dir: BorrowedFd,
    name: &Path,
    content: &[u8],
    mode: rustix::fs::Mode,
    owner: Option<made::Owner>,
) -> Result<(), EffectError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |call: &str, error: std::io::Error| {
        let full = matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOSPC | Errno::DQUOT));
        let help = if full { "the file system is full" } else { "the file cannot be written there by this user" };
        EffectError::call(format!("{call}(\"{}\")", name.display()), error).help(help)
    };
    let fd = openat(dir, name, flags, rustix::fs::Mode::from_raw_mode(0o600))
        .map_err(|errno| failed("openat", errno.into()))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(content).map_err(|error| failed("write", error))?;
    // Before the permissions: a change of owner takes set-user-id away.
    owner.map_or(Ok(()), |owner| made::give(&file, name, owner))?;
    fchmod(&file, mode).map_err(|errno| failed("fchmod", errno.into()))
}
