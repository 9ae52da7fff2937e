//! `process.exec`: the container's program takes the place of its init.

use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Nature, Place, Planning, Step};
use lifecycle_engine::value::{Sensitive, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effects::exec::{Exec as ExecEffect, LastFilter, ListenFds};
use crate::seccomp::load::Input as Filter;

/// Replaces the process of the site by a program. Signals are as a new program expects them, and no descriptor is passed on but 0 to 2 and those
/// asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The program and its arguments. Without a slash the program is looked for in the container's PATH.
    pub args: Vec<Text>,
    /// The whole environment, as `NAME=value`; of a variable that is given twice the last one counts. HOME is added from the container's /etc/passwd
    /// if it is not there, or empty. Values are never shown.
    #[serde(default)]
    pub env: Vec<Sensitive<Text>>,
    /// The directory in the container that it starts in. Absolute.
    #[serde(default = "root")]
    pub cwd: PathBuf,
    /// How many descriptors from 3 on it gets; the `process.clone` must have kept as many.
    #[serde(default)]
    pub preserve_fds: u32,
    /// How many of these, from the first on, are sockets of socket activation: LISTEN_FDS and LISTEN_PID tell the program, sd_listen_fds(3).
    #[serde(default)]
    pub listen_fds: u32,
    /// Their names: LISTEN_FDNAMES.
    #[serde(default)]
    pub listen_names: Option<String>,
    /// A filter of system calls, as `seccomp.load` takes it, that is loaded last of all: it needs to allow execve and what the program itself calls.
    /// That takes no_new_privileges, or CAP_SYS_ADMIN.
    #[serde(default)]
    pub filter: Filter,
}

fn root() -> PathBuf {
    "/".into()
}

/// Nothing: what becomes of the program is for `process.wait` to say.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

fn relative(cwd: &dyn std::fmt::Display) -> PlanError {
    PlanError::new("cwd", format!("{cwd} is not absolute"))
}

fn nothing() -> PlanError {
    PlanError::new("args", "there is no program: the list is empty")
}

/// The step.
pub struct Exec;

impl Step for Exec {
    const KIND: &'static str = "process.exec";
    const CHANGES: &'static str = "The process becomes the container's program.";
    const REVERSED_BY: &'static str = "Nothing by itself; undoing the process's clone kills it.";
    const NATURE: Nature = Nature::Commit;
    const PLACE: Place = Place::Inside;
    const AFTER: After = &[
        "console.open",
        "fifo.wait",
        "hooks.run",
        "net.loopback",
        "process.affinity",
        "process.label",
        "process.privileges",
        "process.scheduling",
        "rootfs.mount",
        "rootfs.overlay",
        "rootfs.pivot",
        "rootfs.protect",
        "seccomp.load",
        "sysctl.write",
        "uts.set",
    ];
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A program found by PATH, with a variable in its environment.",
        plan: "plan: example/exec
steps:
  init: { uses: process.clone, with: { stdio: log } }
  exec:
    uses: process.exec
    site: \"${init}\"
    with: { args: [sh, -c, echo $GREETING], env: [\"GREETING=hello\", \"PATH=/bin\"], cwd: /tmp }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn check(field: &str, value: &Value) -> Result<(), PlanError> {
        match (field, value) {
            ("cwd", Value::String(text)) if !text.starts_with('/') => Err(relative(text)),
            ("args", Value::Array(args)) if args.is_empty() => Err(nothing()),
            _ => Ok(()),
        }
    }

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        if input.args.is_empty() {
            return Err(nothing());
        }
        if !input.cwd.is_absolute() {
            return Err(relative(&input.cwd.display()));
        }
        let malformed = |e: &Sensitive<Text>| e.0.known().is_some_and(|t| t.find('=').unwrap_or(0) == 0);
        if let Some(at) = input.env.iter().position(malformed) {
            return Err(PlanError::new(format!("env.{at}"), "the entry is not NAME=value"));
        }
        let Input { args, env, cwd, preserve_fds, listen_fds, listen_names, filter } = input;
        if listen_fds > preserve_fds {
            let what = format!("{listen_fds} sockets are not among the {preserve_fds} descriptors that are kept");
            return Err(PlanError::new("listen_fds", what));
        }
        let listen = (listen_fds > 0).then_some(ListenFds { count: listen_fds, names: listen_names });
        let (parts, listener) =
            filter.parts(cx).map_err(|e| PlanError { field: format!("filter.{}", e.field), ..e })?;
        let filter = (!parts.is_empty()).then_some(LastFilter { parts, listener });
        cx.effect(ExecEffect { args, env, cwd, preserve_fds, listen, filter });
        Ok(Output {})
    }
}
