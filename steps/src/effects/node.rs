//! FIFOs, symlinks and device nodes on the host.

use super::directory::owner_text;
use super::placed::{self, Existing, Place};
use crate::made;
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::Mode;
use rustix::fs::{FileType, symlinkat};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// Makes a FIFO. Undo removes it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fifo {
    /// Where. Absolute.
    pub path: PathBuf,
    /// Its permissions, whatever the umask.
    pub mode: Mode,
    /// Its owner and group; absent: the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
}

/// Makes a symlink. Undo removes it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Symlink {
    /// Where. Absolute.
    pub path: PathBuf,
    /// What it says; need not exist.
    pub target: PathBuf,
}

/// Makes a device node. Undo removes it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Device {
    /// Where. Absolute.
    pub path: PathBuf,
    /// A block device; otherwise a character device.
    #[serde(default)]
    pub block: bool,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// Its permissions, whatever the umask.
    pub mode: Mode,
    /// Its owner and group; absent: the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
}

impl EffectDef for Fifo {
    const KIND: &'static str = "fifo";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { path: scratch.join("fifo"), mode: Mode(0o622), owner: None }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("make FIFO {} with mode {}{}", self.path.display(), self.mode, owner_text(self.owner))
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        placed::apply(self, before, cx)
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        placed::undo(self, record, cx)
    }
}

impl Place for Fifo {
    fn path(&self) -> &Path {
        &self.path
    }

    fn existing(&self) -> Existing {
        Existing::Refuse
    }

    fn file_type(&self) -> FileType {
        FileType::Fifo
    }

    fn make(&self, dir: BorrowedFd, name: &Path, _cx: &Cx) -> Result<(), EffectError> {
        made::node(dir, name, FileType::Fifo, 0, rustix::fs::Mode::from_raw_mode(self.mode.0), self.owner)
    }
}

impl EffectDef for Symlink {
    const KIND: &'static str = "symlink";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { path: scratch.join("link"), target: "nowhere/in/particular".into() }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("make symlink {} -> {}", self.path.display(), self.target.display())
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        placed::apply(self, before, cx)
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        placed::undo(self, record, cx)
    }
}

impl Place for Symlink {
    fn path(&self) -> &Path {
        &self.path
    }

    fn existing(&self) -> Existing {
        Existing::Refuse
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn make(&self, dir: BorrowedFd, name: &Path, _cx: &Cx) -> Result<(), EffectError> {
        symlinkat(&self.target, dir, name).map_err(|errno| {
            EffectError::call(format!("symlinkat(\"{}\")", name.display()), errno)
                .help("the directory around it cannot be written by this user")
        })
    }
}

impl EffectDef for Device {
    const KIND: &'static str = "device";

    fn examples(scratch: &Path) -> Vec<Self> {
        let (path, mode) = (scratch.join("null"), Mode(0o666));
        vec![Self { path, block: false, major: 1, minor: 3, mode, owner: None }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let kind = if self.block { "block" } else { "character" };
        let (path, mode, owner) = (self.path.display(), self.mode, owner_text(self.owner));
        format!("make {kind} device {path} {}:{} with mode {mode}{owner}", self.major, self.minor)
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        placed::apply(self, before, cx)
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        placed::undo(self, record, cx)
    }
}

impl Place for Device {
    fn path(&self) -> &Path {
        &self.path
    }

    fn existing(&self) -> Existing {
        Existing::Refuse
    }

    fn file_type(&self) -> FileType {
        if self.block { FileType::BlockDevice } else { FileType::CharacterDevice }
    }

    fn make(&self, dir: BorrowedFd, name: &Path, _cx: &Cx) -> Result<(), EffectError> {
        let (number, mode) =
            (rustix::fs::makedev(self.major, self.minor), rustix::fs::Mode::from_raw_mode(self.mode.0));
        made::node(dir, name, self.file_type(), number, mode, self.owner)
    }
}
