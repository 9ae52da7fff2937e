//! A directory on the host.

use super::placed::{self, Existing, Place};
use crate::made;
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::Mode;
use rustix::fs::FileType;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// Makes a directory, and those around it that are missing. Undo removes what it made, and only if nothing else is in it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Directory {
    /// Where. Absolute.
    pub path: PathBuf,
    /// Its permissions, whatever the umask. Missing directories around it get 0755.
    pub mode: Mode,
    /// Its owner and group; absent: the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// What to do where there is something already.
    #[serde(default, skip_serializing_if = "Existing::is_default")]
    pub existing: Existing,
    /// It stays, with whatever is in it by then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
}

impl EffectDef for Directory {
    const KIND: &'static str = "directory";

    fn examples(scratch: &Path) -> Vec<Self> {
        let directory = |path: &str, existing| Self {
            path: scratch.join(path),
            mode: Mode(0o711),
            owner: None,
            existing,
            keep: false,
        };
        vec![
            directory("plain", Existing::Refuse),
            directory("with/parents/made", Existing::Refuse),
            directory("", Existing::Keep),
        ]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let keep = if self.existing == Existing::Keep { ", kept if it is there" } else { "" };
        let stays = if self.keep { "; it stays afterwards" } else { "" };
        let owner = owner_text(self.owner);
        format!("make directory {} with mode {}{owner}{keep}{stays}", self.path.display(), self.mode)
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        // Which of the directories around it are missing: they are made, and removed, with it.
        let mut missing: Vec<&Path> = Vec::new();
        for parent in self.path.ancestors().skip(1) {
            match rustix::fs::stat(parent) {
                Ok(_) => break,
                Err(Errno::NOENT) => missing.push(parent),
                Err(errno) => return Err(EffectError::call(format!("stat(\"{}\")", parent.display()), errno)),
            }
        }
        missing.reverse();
        Ok(json!({ "missing": missing }))
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        placed::apply(self, before, cx)
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        placed::undo(self, record, cx)
    }
}

impl Place for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn existing(&self) -> Existing {
        self.existing
    }

    fn stays(&self) -> bool {
        self.keep
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn make(&self, dir: BorrowedFd, name: &Path, _cx: &Cx) -> Result<(), EffectError> {
        made::directory(dir, name, rustix::fs::Mode::from_raw_mode(self.mode.0), self.owner)
    }

    fn parents(&self, before: &Value) -> Vec<PathBuf> {
        Vec::deserialize(&before["missing"]).unwrap_or_default()
    }
}

/// For descriptions.
pub(super) fn owner_text(owner: Option<(u32, u32)>) -> String {
    owner.map_or(String::new(), |(uid, gid)| format!(", owner {uid}:{gid}"))
}
