//! `seccomp.load`: the container's filter of system calls.

use std::cell::OnceCell;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compile;
use crate::effects::seccomp::LoadFilter;
use crate::process::privileges::TAKES_PRIVILEGES;
use crate::spec::Seccomp;

/// Loads a filter of system calls into the process of the site. The profile is compiled while planning, so a wrong one is refused before
/// anything happens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The profile, as `linux.seccomp` of config.json. Null: no filter.
    #[serde(default)]
    pub profile: Option<Seccomp>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Load;

impl Step for Load {
    const KIND: &'static str = "seccomp.load";
    const CHANGES: &'static str = "Which system calls the site's process, and the program that it becomes, may make.";
    const REVERSED_BY: &'static str = "Goes with the process.";
    const PLACE: Place = Place::Inside;
    // Before or after process.privileges is for the plan to say: with no_new_privs it comes last of all, and without it needs the privileges
    // that are given up there.
    const AFTER: After = TAKES_PRIVILEGES;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A program that may not make directories.",
        plan: "plan: example/seccomp
steps:
  init: { uses: process.clone, with: { new: [pid], stdio: log } }
  privileges: { uses: process.privileges, site: \"${init}\", with: { no_new_privileges: true } }
  seccomp:
    uses: seccomp.load
    site: \"${init}\"
    needs: [privileges]
    with:
      profile:
        defaultAction: SCMP_ACT_ALLOW
        syscalls: [{ names: [mkdir, mkdirat], action: SCMP_ACT_ERRNO, errnoRet: 30 }]
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/sh, -c, \"! mkdir /tmp/forbidden\"] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let Some(profile) = input.profile else { return Ok(Output {}) };
        if profile.listener_path.is_some() || profile.listener_metadata.is_some() {
            return Err(PlanError::new("profile.listenerPath", "notifying an agent is not performed yet"));
        }
        let in_profile = |e: PlanError| PlanError { field: format!("profile.{}", e.field), ..e };
        let program = OnceCell::from(compile(&profile).map_err(in_profile)?);
        cx.effect(LoadFilter { profile, program });
        Ok(Output {})
    }
}
