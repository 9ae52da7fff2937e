//! Writes a limit into one of a cgroup's files.

use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Handle, HandleRef};
use rustix::fs::CWD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::update::WriteFile;
use super::{Cgroup, open_directory, refused, write};

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
    fn one(&self) -> WriteFile {
        let Self { field, file, value, otherwise, optional, .. } = self.clone();
        WriteFile { field, file, value, otherwise, optional }
    }

    fn restore(&self, before: &Before, cgroup: &Cgroup) -> Result<(), EffectError> {
        let failed = |errno| refused(&self.at, &before.file, &before.text, errno);
        let Some(directory) = cgroup.open(&self.at).map_err(failed)? else { return Ok(()) };
        if before.file != "devices.list" {
            let values = self.one().former(&before.file, &before.text);
            return values.iter().try_for_each(|one| write(&directory, &one.file, &one.value).map_err(failed));
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
        self.one().describe(&self.at)
    }

    /// A cgroup that the run made goes as a whole; in one that was there before, the old value comes back.
    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError> {
        if cx.resolve(&self.cgroup)?.made {
            return Ok(Value::Null);
        }
        let failed = |errno| refused(&self.at, &self.file, &self.value, errno);
        let directory = open_directory(CWD, &self.at).map_err(failed)?;
        let devices =
            DEVICES.contains(&self.file.as_str()).then(|| WriteFile::new("devices.list".into(), String::new()));
        let text = devices.unwrap_or_else(|| self.one()).text(&directory);
        let found = text.map_err(|e| EffectError::call(format!("read {}", self.at.join(&self.file).display()), e))?;
        Ok(found.map_or(Value::Null, |(file, text)| json!(Before { file, text })))
    }

    fn apply(&self, _before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        let failed = |errno| refused(&self.at, &self.file, &self.value, errno);
        let directory = open_directory(CWD, &self.at).map_err(failed)?;
        self.one().write(&directory, &self.at).map_err(|(_, refusal)| refusal)?;
        Ok(Applied::done())
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        if let Ok(before) = Before::deserialize(&record.before) {
            self.restore(&before, &cx.resolve(&self.cgroup)?)?;
        }
        Ok(Undone::Done)
    }
}
