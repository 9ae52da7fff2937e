//! A host command with a declared counterpart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Part, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::spawn::output::{CAPTURED, Secrets};
use crate::spawn::{Command, Ended, Exit, Running, leftover};

/// What a program is started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The program and its arguments. Never empty. Without a slash the program is searched for in the engine's PATH.
    pub args: Vec<Text>,
    /// Added to the engine's own environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Text>,
    /// The working directory. Absolute: undo may come from another one.
    pub cwd: PathBuf,
}

/// Runs a program on the host and waits for it.
///
/// Undo runs the counterpart, at least once if the program was ever let go: it has to count as done what is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunCommand {
    /// The program.
    pub call: Call,
    /// What it reads from standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Text>,
    /// The exit statuses that are no failure.
    pub accept: Vec<i32>,
    /// What takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Call>,
}

/// How the program ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandEnd {
    /// Its exit status.
    pub exit: i64,
    /// What it printed on standard output, trimmed; the first 64 KiB.
    pub stdout: String,
}

impl Call {
    /// The call in a message.
    pub(crate) fn line(&self) -> String {
        self.args.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn command(&self, cx: &Cx) -> Result<Command, EffectError> {
        let args = self.args.iter().map(|a| cx.text(a)).collect::<Result<Vec<_>, _>>()?;
        let program = args.first().cloned().ok_or_else(|| EffectError::new("a command without a program"))?;
        Ok(Command {
            what: format!("command {}", shown(&self.args[0])),
            program: program.into(),
            args,
            env: self.env(cx)?,
            cwd: Some(self.cwd.clone()),
            secrets: Secrets::new(self.args.iter().chain(self.env.values()).flat_map(sensitive)),
            ..Command::default()
        })
    }

    fn env(&self, cx: &Cx) -> Result<Option<Vec<String>>, EffectError> {
        if self.env.is_empty() {
            return Ok(None);
        }
        let mut env: BTreeMap<String, String> = std::env::vars().collect();
        for (name, value) in &self.env {
            env.insert(name.clone(), cx.text(value)?);
        }
        Ok(Some(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()))
    }
}

/// The parts that nobody may see.
fn sensitive(text: &Text) -> impl Iterator<Item = String> + '_ {
    text.0.iter().filter_map(|part| match part {
        Part::Sensitive(text) => Some(text.clone()),
        _ => None,
    })
}

/// An argument for a person, quoted where a shell would need it.
fn shown(arg: &Text) -> String {
    let text = arg.to_string();
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%‹›".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("{text:?}") }
}

impl RunCommand {
    fn start(&self, cx: &Cx) -> Result<Running, EffectError> {
        let stdin = self.stdin.as_ref().map(|text| cx.text(text)).transpose()?.unwrap_or_default();
        let given = self.call.args.iter().chain(self.call.env.values()).chain(&self.stdin);
        let command = Command {
            stdin: stdin.into_bytes(),
            secrets: Secrets::new(given.flat_map(sensitive)),
            capture: true,
            ..self.call.command(cx)?
        };
        let accept = self.accept.clone();
        command.start(move |ended| match ended.exit {
            Exit::Code(code) if accept.contains(&code) => Ok(outcome(code, &ended)),
            _ => Err(ended.error()),
        })
    }
}

fn outcome(exit: i32, ended: &Ended) -> Value {
    debug_assert!(ended.stdout.len() <= 3 * CAPTURED, "bounded where it is read");
    json!(CommandEnd { exit: exit.into(), stdout: ended.stdout.clone() })
}

/// The counterpart: its failure leaves the effect stuck.
fn counterpart(call: &Call, cx: &Cx) -> Result<Running, EffectError> {
    call.command(cx)?.start(|ended| match ended.exit {
        Exit::Code(0) => Ok(Value::Null),
        _ => Err(ended.error()),
    })
}

impl EffectDef for RunCommand {
    const KIND: &'static str = "command";

    fn examples(scratch: &Path) -> Vec<Self> {
        let file = scratch.join("made-by-a-command").to_string_lossy().into_owned();
        let call = |args: &[&str]| Call {
            args: args.iter().map(|a| Text::from(*a)).collect(),
            env: BTreeMap::new(),
            cwd: "/".into(),
        };
        let plain = Self {
            call: call(&["touch", &file]),
            stdin: None,
            accept: vec![0],
            undo: Some(call(&["rm", "-f", &file])),
        };
        let env = BTreeMap::from([("WORD".to_owned(), Text::from("hello"))]);
        let fed = Self {
            call: Call { env, ..call(&["sh", "-c", "cat > \"$0\"; echo $WORD; exit 3", &file]) },
            stdin: Some("text\n".into()),
            accept: vec![0, 3],
            ..plain.clone()
        };
        vec![plain, fed]
    }

    fn class(&self) -> Class {
        Class::Foreign
    }

    fn describe(&self) -> String {
        let undo =
            self.undo.as_ref().map_or_else(|| "nothing to undo".to_owned(), |u| format!("undone by {}", u.line()));
        format!("run {} ({undo})", self.call.line())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        Ok(Applied::Pending(Box::new(self.start(cx)?)))
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        match &self.undo {
            Some(call) if leftover::may_have_run(record) => {
                let counterpart = counterpart(call, cx)?;
                Ok(leftover::then(leftover::kill(record)?, counterpart))
            }
            _ => leftover::end(record).map(leftover::or_nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::testing::Bench;
    use lifecycle_engine::value::REDACTED;

    fn sh(script: &str, undo: Option<&str>) -> RunCommand {
        let call = |script: &str| Call {
            args: ["/bin/sh", "-c", script].map(Text::from).to_vec(),
            env: BTreeMap::new(),
            cwd: "/".into(),
        };
        RunCommand { call: call(script), stdin: None, accept: vec![0], undo: undo.map(call) }
    }

    #[test]
    fn examples_apply_and_are_undone_twice() {
        let dir = tempfile::tempdir().unwrap();
        for effect in RunCommand::examples(dir.path()) {
            let mut bench = Bench::new();
            let (record, answer) = bench.apply(&effect);
            answer.unwrap();
            assert!(dir.path().join("made-by-a-command").exists(), "{}", EffectDef::describe(&effect));
            for _ in 0..2 {
                bench.undo(&effect, &record).unwrap();
                assert!(!dir.path().join("made-by-a-command").exists());
            }
        }
    }

    #[test]
    fn the_outcome_has_the_exit_status_and_what_was_printed() {
        let mut effect = sh("echo ' word '; exit 7", None);
        effect.accept = vec![7];
        assert_eq!(Bench::new().apply(&effect).1.unwrap(), json!({ "exit": 7, "stdout": "word" }));
    }

    #[test]
    fn a_failure_has_the_status_and_the_end_of_the_output_and_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("half");
        let path = file.display();
        let effect = sh(&format!("touch {path}; echo no room; exit 4"), Some(&format!("rm -f {path}")));
        let mut bench = Bench::new();
        let (record, answer) = bench.apply(&effect);
        let error = answer.unwrap_err();
        assert_eq!(error.what, "command /bin/sh exited with status 4");
        assert_eq!(error.output, ["no room"]);
        assert!(file.exists());
        bench.undo(&effect, &record).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn a_command_that_still_runs_is_killed_before_its_counterpart_runs() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let path = file.display();
        let effect = sh(&format!("while :; do touch {path}; sleep 0.01; done"), Some(&format!("rm -f {path}")));
        let mut bench = Bench::new();
        let record = bench.with(|cx| {
            let Applied::Pending(mut pending) = EffectDef::apply(&effect, &Value::Null, cx).unwrap() else { panic!() };
            let started = Some(pending.started());
            pending.release(cx).unwrap();
            // As if the engine had died: nobody drops the child, who would kill it.
            std::mem::forget(pending);
            Record { started, ..Record::default() }
        });
        while !file.exists() {
            std::thread::yield_now();
        }
        bench.undo(&effect, &record).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!file.exists(), "it goes on touching");
    }

    #[test]
    fn a_command_that_was_never_let_go_has_nothing_to_undo() {
        let effect = sh("true", Some("echo must not run >&2; exit 1"));
        Bench::new().undo(&effect, &Record::default()).unwrap();
    }

    #[test]
    fn a_counterpart_that_fails_is_an_error() {
        let effect = sh("true", Some("echo busy; exit 1"));
        let mut bench = Bench::new();
        let (record, _) = bench.apply(&effect);
        let error = bench.undo(&effect, &record).unwrap_err();
        assert_eq!(
            (error.what.as_str(), error.output.as_slice()),
            ("command /bin/sh exited with status 1", &["busy".to_owned()][..])
        );
    }

    #[test]
    fn a_sensitive_value_reaches_the_program_and_nobody_else() {
        let mut effect = sh("read x; echo $x $SECRET; exit 1", None);
        effect.stdin = Some(Text(vec![Part::Sensitive("swordfish".into()), Part::Literal("\n".into())]));
        effect.call.env.insert("SECRET".into(), Text(vec![Part::Sensitive("hunter2".into())]));
        let mut bench = Bench::new();
        let error = bench.apply(&effect).1.unwrap_err();
        assert_eq!(error.output, [format!("{REDACTED} {REDACTED}")]);
        assert_eq!(bench.lines, error.output);
    }
}
