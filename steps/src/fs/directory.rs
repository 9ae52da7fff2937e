//! `fs.directory`: a directory on the host.

use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::{HostPath, Mode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effects::{Directory, Existing};

/// Makes a directory on the host, and those around it that are missing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Where.
    pub path: HostPath,
    /// Its permissions, whatever the umask. Missing directories around it get 0755.
    #[serde(default = "usual")]
    pub mode: Mode,
    /// What to do where there is one already.
    #[serde(default)]
    pub existing: Existing,
    /// It stays when the run is taken back, with whatever is in it by then; so do the directories around it that were made with it.
    #[serde(default)]
    pub keep: bool,
}

fn usual() -> Mode {
    Mode(0o755)
}

/// Where it is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// Its absolute path.
    pub path: PathBuf,
}

/// The step.
pub struct MakeDirectory;

impl Step for MakeDirectory {
    const KIND: &'static str = "fs.directory";
    const CHANGES: &'static str = "Makes a directory on the host, and those around it that are missing.";
    const REVERSED_BY: &'static str = "Removes what it made, unless `keep` says that it stays. A directory that something else was put into is not \
                                       removed, and the undo is stuck until it is empty; directories around it that others use by then stay.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A directory for what a run leaves to its caller while it runs.",
        plan: "plan: example/fs-directory
params: { path: { type: path, default: /tmp/lifecycle-example/results } }
steps:
  results: { uses: fs.directory, with: { path: \"${params.path}\", mode: \"0700\" } }
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
        cx.effect(Directory {
            path: path.clone(),
            mode: input.mode,
            owner: None,
            existing: input.existing,
            keep: input.keep,
        });
        Ok(Output { path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, refused};
    use serde_json::json;

    #[test]
    fn a_relative_path_is_the_callers() {
        let planned = plan::<MakeDirectory>(json!({ "path": "./a", "existing": "keep" }));
        assert_eq!(planned.effects, ["make directory /work/a with mode 0755, kept if it is there"]);
        assert_eq!(planned.output, json!({ "path": "/work/a" }));
        assert_eq!(refused::<MakeDirectory>(json!({ "path": "a/.." })).field, "path");
    }
}
