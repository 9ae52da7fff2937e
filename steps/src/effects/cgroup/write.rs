//! Writes a limit into one of a cgroup's files.

use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Handle, HandleRef};
use rustix::fs::CWD;
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::former::former;
use super::{Cgroup, OfField, open_directory, read, refused, write};

/// The device rules of version 1: written to one of two files, read from a third.
const DEVICES: [&str; 2] = ["devices.allow", "devices.deny"];

/// Writes a value into a file of a cgroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteLimit {
    /// The cgroup's directory.
    pub at: PathBuf,
    /// The cgroup as it was made.
    pub cgroup: Handle<Cgroup>,
    /// Which field of the config asks for it, for messages.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// The file in it.
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

/// Another file for the same limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// The file.
    pub file: String,
    /// What is written into it.
    pub value: String,
}

/// What a cgroup that was there before had in the file.
#[derive(Serialize, Deserialize)]
struct Before {
    file: String,
    text: String,
}

impl WriteLimit {
    /// The file that this kernel has, with its value.
    fn choices(&self) -> impl Iterator<Item = (&str, &str)> {
        let other = self.otherwise.iter().map(|other| (other.file.as_str(), other.value.as_str()));
        std::iter::once((self.file.as_str(), self.value.as_str())).chain(other)
    }

    fn restore(&self, before: &Before, cgroup: &Cgroup) -> Result<(), EffectError> {
        let failed = |errno| refused(&self.at, &before.file, &before.text, errno);
        let Some(directory) = cgroup.open(&self.at).map_err(failed)? else { return Ok(()) };
        if before.file != "devices.list" {
            let written = self.choices().find(|(file, _)| *file == before.file).map_or("", |(_, value)| value);
            let values = former(&before.file, &before.text, written);
            return values.iter().try_for_each(|value| write(&directory, &before.file, value).map_err(failed));
        }
        write(&directory, "devices.deny", "a").map_err(failed)?;
        before.text.lines().try_for_each(|rule| write(&directory, "devices.allow", rule).map_err(failed))
    }
}

impl EffectDef for WriteLimit {
    const KIND: &'static str = "cgroup.write";

    fn examples(scratch: &Path) -> Vec<Self> {
        let cgroup = HandleRef { step: "cgroup".into(), effect: 0, field: "".into() };
        vec![Self {
            at: super::example(scratch).0,
            cgroup: Handle::new(cgroup),
            field: "resources.pids.limit".into(),
            file: "pids.max".into(),
            value: "16".into(),
            otherwise: None,
            optional: false,
        }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let other = self.otherwise.as_ref().map(|other| format!(" (or {} to {})", other.value, other.file));
        let condition = if self.optional { ", if the kernel has it" } else { "" };
        format!(
            "write {} to {}{}{condition}",
            self.value,
            self.at.join(&self.file).display(),
            other.unwrap_or_default()
        )
    }

    /// A cgroup that the run made goes as a whole; in one that was there before, the old value comes back.
    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError> {
        if cx.resolve(&self.cgroup)?.made {
            return Ok(Value::Null);
        }
        let failed = |errno| refused(&self.at, &self.file, &self.value, errno);
        let directory = open_directory(CWD, &self.at).map_err(failed)?;
        for (file, _) in self.choices() {
            let file = if DEVICES.contains(&file) { "devices.list" } else { file };
            match read(&directory, file) {
                Ok(text) => return Ok(json!(Before { file: file.to_owned(), text })),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(EffectError::call(format!("read {}", self.at.join(file).display()), e)),
            }
        }
        Ok(Value::Null)
    }

    fn apply(&self, _before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        let failed = |errno| refused(&self.at, &self.file, &self.value, errno);
        let directory = open_directory(CWD, &self.at).map_err(failed)?;
        for (file, value) in self.choices() {
            match write(&directory, file, value) {
                Ok(()) => return Ok(Applied::done()),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(refused(&self.at, file, value, errno).of(&self.field)),
            }
        }
        if self.optional { Ok(Applied::done()) } else { Err(failed(Errno::NOENT).of(&self.field)) }
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        if let Ok(before) = Before::deserialize(&record.before) {
            self.restore(&before, &cx.resolve(&self.cgroup)?)?;
        }
        Ok(Undone::Done)
    }
}
