//! `state.expect`

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::effects::{ExpectStatus, Status};
use crate::outcomes::Process;

/// Fails unless the container is where it is expected to be in its life.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// The container's first process.
    pub process: Later<Process>,
    /// What it may be.
    pub status: Vec<Status>,
    /// The container's state.json (`state.publish`'s `path`). Default: this run's own.
    #[serde(default)]
    pub state: Option<HostPath>,
    /// Its cgroups (`cgroup.create`'s `paths`). Without them a paused container counts as what it is otherwise.
    #[serde(default)]
    pub cgroups: BTreeMap<String, PathBuf>,
}

/// Nothing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {}

/// See [`Input`].
pub struct Expect;

impl Step for Expect {
    const KIND: &'static str = "state.expect";
    const CHANGES: &'static str = "Nothing.";
    const REVERSED_BY: &'static str = "Nothing to reverse.";
    const NATURE: Nature = Nature::Waits;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A process that has ended is a stopped container.",
        plan: "\
plan: example
steps:
  ended:
    uses: state.expect
    with:
      process: { pid: 4194303, start: 1, boot: 00000000-0000-0000-0000-000000000000 }
      status: [stopped]
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        if input.status.is_empty() {
            return Err(PlanError::new("status", "names no status, so nothing could be right"));
        }
        let other = input.state.as_ref().and_then(|state| state.0.parent().map(Path::to_owned));
        let directory = other.unwrap_or_else(|| cx.run.dir());
        cx.effect(ExpectStatus { directory, process: input.process, status: input.status, cgroups: input.cgroups });
        Ok(Output {})
    }
}
