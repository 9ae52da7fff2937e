//! A command that succeeds.

use std::collections::BTreeMap;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Fds, Pending, Record, Said, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::Millis;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{NotReady, Pace};
use crate::effects::command::Call;
use crate::spawn::child::Session;
use crate::spawn::{Command, Ended, Exit, Leash, leftover};

/// Runs a command again and again until it exits with 0. The command must change nothing: nothing takes it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeCommand {
    /// The command.
    pub call: Call,
    /// The longest that one try may take.
    pub limit: Millis,
    /// How often, how long, from where.
    pub pace: Pace,
}

/// Runs the command once, in the worker.
fn run(command: Command, cx: &mut Cx, leash: &Leash) -> Result<Ended, EffectError> {
    let ended = std::rc::Rc::new(std::cell::RefCell::new(None));
    let keep = ended.clone();
    let mut running = command.start(move |end| {
        *keep.borrow_mut() = Some(end);
        Ok(json!(true))
    })?;
    running.release(cx)?;
    while running.advance(cx)?.is_none() {
        let mut wants = Vec::new();
        running.interest(&mut wants);
        let fds: Vec<_> = wants.iter().map(|want| want.fd).collect();
        leash.wait(&fds, running.deadline())?;
    }
    ended.take().ok_or_else(|| EffectError::new("a command ended without an end"))
}

impl EffectDef for ProbeCommand {
    const KIND: &'static str = "probe.command";

    fn examples(scratch: &Path) -> Vec<Self> {
        let args = ["test", "-d", &scratch.to_string_lossy()].map(Into::into).to_vec();
        vec![Self {
            call: Call { args, env: BTreeMap::new(), cwd: "/".into() },
            limit: Millis(1000),
            pace: Pace::quick(),
        }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("wait until {} succeeds{}", self.call.line(), self.pace.describe())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        // In the worker's session, so that whoever kills the worker's group leaves none of them behind.
        let command = Command { session: Session::Maker, ..self.call.command(cx)? };
        let what = command.what.clone();
        let (names, step, effect, outcomes) = (cx.run, cx.step, cx.effect, cx.outcomes);
        self.pace.probe(&what, cx, |leash| {
            let command = Command { limit: Some(self.limit.duration()), ..command.clone() };
            // What a try prints is shown only if it was the last.
            let (mut fds, mut silent) = (Fds::default(), |_: Said| {});
            let mut cx = Cx {
                run: names,
                step,
                effect,
                outcomes,
                fds: &mut fds,
                site: None,
                outlives: false,
                output: &mut silent,
            };
            let ended = run(command, &mut cx, leash)?;
            match ended.exit {
                Exit::Code(0) => Ok(()),
                exit => Err(NotReady::Yet(format!("it {exit}"), ended.tail)),
            }
        })
    }

    fn undo(&self, record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        leftover::end(record).map(leftover::or_nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcomes::Process;
    use crate::spawn::identity;
    use crate::spawn::testing::Bench;
    use std::time::{Duration, Instant};

    fn sh(script: &str) -> ProbeCommand {
        let args = ["/bin/sh", "-c", script].map(Into::into).to_vec();
        ProbeCommand {
            call: Call { args, env: BTreeMap::new(), cwd: "/".into() },
            limit: Millis(5000),
            pace: Pace { within: Millis(5000), ..Pace::quick() },
        }
    }

    #[test]
    fn a_command_is_tried_until_it_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let script = format!("echo x >> {0}; test $(wc -l < {0}) -ge 3", count.display());
        let mut bench = Bench::new();
        bench.apply(&sh(&script)).1.unwrap();
        assert_eq!(std::fs::read_to_string(&count).unwrap(), "x\nx\nx\n");
        assert_eq!(bench.lines, ["command /bin/sh is not ready yet: it exited with status 1"]);
    }

    #[test]
    fn one_that_never_succeeds_is_named_with_the_end_of_its_last_output() {
        let mut probe = sh("echo not today; exit 3");
        probe.pace.within = Millis(100);
        let error = Bench::new().apply(&probe).1.unwrap_err();
        assert_eq!(error.what, "command /bin/sh is not ready after 100ms: it exited with status 3");
        assert_eq!(error.output, ["not today"]);
    }

    #[test]
    fn one_that_is_not_there_fails_at_once() {
        let mut probe = sh("");
        probe.call.args = vec!["/nonexistent/probe".into()];
        probe.pace.within = Millis(60_000);
        let error = Bench::new().apply(&probe).1.unwrap_err();
        assert_eq!(error.errno, Some(nix::libc::ENOENT));
        assert!(!error.what.contains("not ready after"), "{error}");
    }

    /// Starts a try that hangs, and says which processes there are now: the worker and the command.
    fn hanging(dir: &Path, bench: &mut Bench) -> (ProbeCommand, Box<dyn Pending>, Process, Process) {
        let file = dir.join("pid");
        let probe = sh(&format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 60", file.display()));
        let pending = bench.with(|cx| {
            let Applied::Pending(mut pending) = EffectDef::apply(&probe, &Value::Null, cx).unwrap() else { panic!() };
            pending.started();
            pending.release(cx).unwrap();
            pending
        });
        while !file.exists() {
            std::thread::yield_now();
        }
        let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let command = identity::identify(rustix::process::Pid::from_raw(pid).unwrap()).unwrap();
        let worker = serde_json::from_value(pending.started()).unwrap();
        (probe, pending, worker, command)
    }

    fn gone(process: &Process) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while identity::find(process).unwrap().is_some() {
            assert!(Instant::now() < deadline, "it stays");
            std::thread::yield_now();
        }
    }

    #[test]
    fn undo_ends_the_worker_and_its_command() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new();
        let (probe, pending, worker, command) = hanging(dir.path(), &mut bench);
        std::mem::forget(pending);
        let record = Record { started: Some(json!(worker)), ..Record::default() };
        bench.undo(&probe, &record).unwrap();
        gone(&command);
        gone(&worker);
    }

    #[test]
    fn cancelling_ends_the_worker_and_its_command() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new();
        let (_, mut pending, worker, command) = hanging(dir.path(), &mut bench);
        bench.with(|cx| pending.cancel(cx));
        gone(&command);
        gone(&worker);
    }
}
