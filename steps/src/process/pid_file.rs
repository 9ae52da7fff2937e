//! `process.pid_file`: tells others a process's id.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::pid_file::WritePidFile;
use crate::outcomes::Process;

/// Writes a process's id to a file, in place of an earlier one: it appears whole or not at all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The file.
    pub path: HostPath,
    /// The process.
    pub process: Later<Process>,
    /// It is the caller's, and stays when the run ends well; one that fails takes it back.
    #[serde(default)]
    pub stays: bool,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct PidFile;

impl Step for PidFile {
    const KIND: &'static str = "process.pid_file";
    const CHANGES: &'static str = "Writes a file with the process's id in it, and nothing else.";
    const REVERSED_BY: &'static str = "Puts an earlier file's text back, or removes the file. One that somebody else has written since stays, and \
         with `stays` that of a run that has ended well.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A supervisor reads the id from a file.",
        plan: "plan: example/pid-file
params: { dir: { type: path, default: /tmp/lifecycle-example } }
steps:
  dir: { uses: fs.directory, with: { path: \"${params.dir}\" } }
  init: { uses: process.clone, with: { stdio: log } }
  file: { uses: process.pid_file, with: { path: \"${dir.path}/pid\", process: \"${init.process}\" } }
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let path = crate::fs::absolute(&input.path, cx)?;
        if path.file_name().is_none() {
            return Err(PlanError::new("path", format!("{} does not end in a name", path.display())));
        }
        cx.effect(WritePidFile { path, process: input.process, stays: input.stays });
        Ok(Output {})
    }
}
