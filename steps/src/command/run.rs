//! `command.run`.

use std::collections::BTreeMap;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::{Handle, Part, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{check, directory};
use crate::effects::command::{Call, RunCommand};

/// Runs a program on the host, and another one to take it back.
pub struct Run;

/// Run a program on the host and wait for its end. What it changes only the plan's author knows: `undo` says what takes it back.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The program and its arguments; no shell. Without a slash the program is searched for in the caller's PATH.
    pub args: Vec<Text>,
    /// Variables to add to the caller's environment.
    #[serde(default)]
    pub env: BTreeMap<String, Text>,
    /// The working directory; the caller's if not given.
    #[serde(default)]
    pub cwd: Option<HostPath>,
    /// What it reads from standard input; nothing if not given.
    #[serde(default)]
    pub stdin: Option<Text>,
    /// The exit statuses that are no failure.
    #[serde(default = "zero")]
    pub accept: Vec<u8>,
    /// What takes it back. It runs at least once, also when the program failed half-way, so what is not there must count as done: `rm -f`, not
    /// `rm`. It cannot hold sensitive values: it has to be in the journal. Not given: the program changes nothing that stays.
    #[serde(default)]
    pub undo: Option<Undo>,
}

/// A program that takes another one back.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The program and its arguments; no shell.
    pub args: Vec<Text>,
    /// Variables to add to the environment of whoever undoes.
    #[serde(default)]
    pub env: BTreeMap<String, Text>,
    /// The working directory; that of the program it takes back if not given.
    #[serde(default)]
    pub cwd: Option<HostPath>,
}

/// How the program ended.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {
    /// What it printed on standard output, without white space at both ends: the first 64 KiB.
    pub stdout: Handle<String>,
    /// Its exit status.
    pub exit: Handle<i64>,
}

fn zero() -> Vec<u8> {
    vec![0]
}

/// The counterpart has to be in the journal, and a sensitive value must not be.
fn not_sensitive(undo: &Undo) -> Result<(), PlanError> {
    let is_sensitive = |text: &Text| text.0.iter().any(|part| matches!(part, Part::Sensitive(_)));
    let arg = undo.args.iter().position(is_sensitive).map(|k| format!("undo.args.{k}"));
    let var = undo.env.iter().find(|(_, value)| is_sensitive(value)).map(|(name, _)| format!("undo.env.{name}"));
    match arg.or(var) {
        Some(field) => Err(PlanError::new(
            field,
            "what undoes a command is kept in the journal, and a sensitive value must not be",
        )
        .help("let the undo read the value for itself, from a file or a variable of its own")),
        None => Ok(()),
    }
}

impl Step for Run {
    const KIND: &'static str = "command.run";
    const CHANGES: &'static str = "Whatever the program changes.";
    const REVERSED_BY: &'static str = "The program under `undo`, delivered at least once.";
    const EXAMPLES: &'static [Example] = &[
        Example {
            about: "Make a directory, list it, and remove it at the end.",
            plan: include_str!("examples/run.yaml"),
            needs: &[],
        },
        Example { about: "Use what a program prints.", plan: include_str!("examples/output.yaml"), needs: &[] },
    ];
    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        check("", &input.args, &input.env)?;
        let cwd = directory(input.cwd.as_ref(), cx)?;
        let undo = match input.undo {
            None => None,
            Some(undo) => {
                check("undo.", &undo.args, &undo.env)?;
                not_sensitive(&undo)?;
                let cwd = if undo.cwd.is_none() { cwd.clone() } else { directory(undo.cwd.as_ref(), cx)? };
                Some(Call { args: undo.args, env: undo.env, cwd })
            }
        };
        let made = cx.effect(RunCommand {
            call: Call { args: input.args, env: input.env, cwd },
            stdin: input.stdin,
            accept: input.accept.into_iter().map(i32::from).collect(),
            undo,
        });
        Ok(Output { stdout: made.handle("stdout"), exit: made.handle("exit") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, refused};
    use serde_json::json;

    #[test]
    fn a_command_becomes_one_effect_with_absolute_directories() {
        let planned =
            plan::<Run>(json!({ "args": ["touch", "x"], "cwd": "sub", "undo": { "args": ["rm", "-f", "x"] } }));
        assert_eq!(planned.effects, ["run touch x (undone by rm -f x)"]);
        assert_eq!(planned.data[0]["call"]["cwd"], json!("/work/sub"));
        assert_eq!(planned.data[0]["undo"]["cwd"], json!("/work/sub"));
        assert_eq!(planned.output["stdout"]["$handle"]["field"], json!("stdout"));
    }

    #[test]
    fn an_undo_with_a_sensitive_value_is_refused() {
        let secret = json!({ "$text": ["--password=", { "$sensitive": "hunter2" }] });
        let error = refused::<Run>(json!({ "args": ["login", secret], "undo": { "args": ["logout", secret] } }));
        assert_eq!(error.field, "undo.args.1");
        assert!(!error.to_string().contains("hunter2"));
        plan::<Run>(json!({ "args": ["login", secret], "undo": { "args": ["logout"] } }));
    }

    #[test]
    fn a_command_without_a_program_is_refused() {
        assert_eq!(refused::<Run>(json!({ "args": [] })).field, "args");
        assert_eq!(refused::<Run>(json!({ "args": ["a"], "undo": { "args": [] } })).field, "undo.args");
        assert_eq!(refused::<Run>(json!({ "args": ["a"], "env": { "A=B": "c" } })).field, "env");
    }
}
