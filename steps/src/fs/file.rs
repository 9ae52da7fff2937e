//! `fs.file`: a file on the host.

use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::{HostPath, Mode};
use lifecycle_engine::value::Text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effects::{Existing, File};

/// Writes a new file on the host: it appears whole or not at all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Where.
    pub path: HostPath,
    /// What is in it.
    #[serde(default = "nothing")]
    pub content: Text,
    /// Its permissions, whatever the umask.
    #[serde(default = "usual")]
    pub mode: Mode,
    /// What to do where there is one already; it is never overwritten.
    #[serde(default)]
    pub existing: Existing,
}

fn nothing() -> Text {
    Text::from("")
}

fn usual() -> Mode {
    Mode(0o644)
}

/// Where it is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Its absolute path.
    pub path: PathBuf,
}

/// The step.
pub struct WriteFile;

impl Step for WriteFile {
    const KIND: &'static str = "fs.file";
    const CHANGES: &'static str = "Writes a new file on the host.";
    const REVERSED_BY: &'static str = "Removes the file, whatever was written into it since. One that was there before, or was put in its place, stays.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A file in a directory of the run's own.",
        plan: "plan: example/fs-file
params: { dir: { type: path, default: /tmp/lifecycle-example } }
steps:
  dir: { uses: fs.directory, with: { path: \"${params.dir}\" } }
  file: { uses: fs.file, with: { path: \"${dir.path}/greeting\", content: \"hello\\n\", mode: \"0600\" } }
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn check(field: &str, value: &Value) -> Result<(), PlanError> {
        match (field, value) {
            ("path", Value::String(path)) => super::ends_in_a_name(Path::new(path)),
            _ => Ok(()),
        }
    }

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let path = super::absolute(&input.path, cx)?;
        super::ends_in_a_name(&path)?;
        let Input { content, mode, existing, .. } = input;
        cx.effect(File { path: path.clone(), content, mode, owner: None, existing });
        Ok(Output { path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan;
    use serde_json::json;

    #[test]
    fn the_contents_are_not_shown() {
        let planned = plan::<WriteFile>(json!({ "path": "/a", "content": { "$sensitive": "hunter2" } }));
        assert!(!planned.effects[0].contains("hunter2"));
        assert!(!planned.data[0].to_string().contains("hunter2"));
    }
}
