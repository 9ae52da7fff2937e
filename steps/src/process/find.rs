//! `process.find`: sees that the container's program is there.

use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use lifecycle_engine::value::{Sensitive, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::find::FindProgram;

/// Fails unless the site's process may execute the program. `process.exec` would say the same, but only when a container is started.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The program and its arguments.
    pub args: Vec<Text>,
    /// The environment, for its PATH.
    #[serde(default)]
    pub env: Vec<Sensitive<Text>>,
    /// The directory in the container that it starts in.
    #[serde(default = "root")]
    pub cwd: PathBuf,
    /// How many descriptors from 3 on the program gets; the `process.clone` must have kept as many.
    #[serde(default)]
    pub preserve_fds: u32,
}

fn root() -> PathBuf {
    "/".into()
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Find;

impl Step for Find {
    const KIND: &'static str = "process.find";
    const CHANGES: &'static str = "Nothing.";
    const REVERSED_BY: &'static str = "Nothing to reverse.";
    const PLACE: Place = Place::Inside;
    // As the container's user, in the container's root.
    const AFTER: After = &["process.privileges", "rootfs.pivot", "rootfs.protect"];
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A program that has to be there.",
        plan: "plan: example/find
steps:
  init: { uses: process.clone, with: { stdio: log } }
  find: { uses: process.find, site: \"${init}\", with: { args: [sh], env: [\"PATH=/bin\"] } }
  exec: { uses: process.exec, site: \"${init}\", needs: [find], with: { args: [sh, -c, exit], env: [\"PATH=/bin\"] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let Some(program) = input.args.first().cloned() else {
            return Err(PlanError::new("args", "there is no program: the list is empty"));
        };
        let Input { env, cwd, preserve_fds, .. } = input;
        cx.effect(FindProgram { program, env, cwd, preserve_fds });
        Ok(Output {})
    }
}
