//! The runtime-spec's hooks (config.md, "POSIX-platform Hooks").

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Later, Sensitive, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::outcomes::Process;
use crate::process::environment::{last_of_each, of_process};
use crate::spawn::{Command, Exit, Running, identity, leftover};
use crate::spec::Hook;

/// When a hook runs (runtime.md, "Lifecycle").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Deprecated by the spec: as `createRuntime`, and before it.
    Prestart,
    /// On the host, when the container's namespaces have been made, before `pivot_root`.
    CreateRuntime,
    /// In the container's namespaces, before `pivot_root`.
    CreateContainer,
    /// In the container's namespaces, before the user's program.
    StartContainer,
    /// On the host, after the user's program has been started.
    Poststart,
    /// On the host, after the container has ended.
    Poststop,
}

impl Stage {
    /// As the spec writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// It runs in the container's namespaces.
    pub fn is_inside(self) -> bool {
        matches!(self, Self::CreateContainer | Self::StartContainer)
    }

    /// The container's status meanwhile (runtime.md, "State").
    fn status(self) -> &'static str {
        match self {
            Self::Prestart | Self::CreateRuntime | Self::CreateContainer => "creating",
            Self::StartContainer => "created",
            Self::Poststart => "running",
            Self::Poststop => "stopped",
        }
    }
}

/// The container that a hook is told of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its first process. Without it the hook is told of the process that runs it, which in a site is the container's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Later<Process>>,
    /// The bundle's directory. Absolute.
    pub bundle: PathBuf,
    /// The configuration's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The version of the runtime-spec that the state is written for.
pub(super) const OCI_VERSION: &str = "1.3.0";

impl Container {
    /// The state that a hook or an agent reads (runtime.md, "State").
    pub(super) fn state(&self, status: &str, pid: Option<i32>) -> Value {
        let mut state = json!({ "ociVersion": OCI_VERSION, "id": self.id, "status": status });
        if let Some(pid) = pid {
            state["pid"] = json!(pid);
        }
        state["bundle"] = json!(self.bundle);
        if !self.annotations.is_empty() {
            state["annotations"] = json!(self.annotations);
        }
        state
    }

    /// Its process, as the reader knows it: by its number outside, or in a site by its own.
    pub(super) fn pid(&self, cx: &Cx) -> Result<i32, EffectError> {
        match &self.process {
            Some(process) => Ok(super::wait::resolve(process, cx)?.pid),
            None => Ok(rustix::process::getpid().as_raw_nonzero().get()),
        }
    }

    /// What a hook of this stage reads: a container that has stopped has no process.
    fn told(&self, stage: Stage, cx: &Cx) -> Result<Vec<u8>, EffectError> {
        let pid = (stage != Stage::Poststop).then(|| self.pid(cx)).transpose()?;
        Ok(self.state(stage.status(), pid).to_string().into_bytes())
    }
}

impl Hook {
    /// How long it may take.
    fn limit(&self) -> Option<Duration> {
        self.timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
    }
}

/// Starts the hook, inert; `env` is the environment of one that has none of its own.
fn start(hook: &Hook, stage: Stage, container: &Container, env: Vec<String>, cx: &Cx) -> Result<Running, EffectError> {
    let path = hook.path.to_string_lossy().into_owned();
    let command = Command {
        what: format!("{} hook {path}", stage.name()),
        program: hook.path.clone(),
        args: if hook.args.is_empty() { vec![path] } else { hook.args.clone() },
        // The hook's whole environment: the engine's own would leak what the host keeps in it.
        env: Some(hook.env.clone().map_or(env, |own| last_of_each(own, String::as_str))),
        cwd: working_directory(stage, container),
        stdin: container.told(stage, cx)?,
        limit: hook.limit(),
        ..Command::default()
    };
    command.start(|ended| match ended.exit {
        Exit::Code(0) => Ok(Value::Null),
        _ => Err(ended.error()),
    })
}

/// On the host the bundle, as with the runtimes that a shim starts there; a bundle may be gone when the container is deleted. Inside, where the
/// process stands.
fn working_directory(stage: Stage, container: &Container) -> Option<PathBuf> {
    match stage {
        Stage::CreateContainer | Stage::StartContainer => None,
        Stage::Poststop if !container.bundle.is_dir() => Some("/".into()),
        _ => Some(container.bundle.clone()),
    }
}

/// Runs one hook and waits for it.
///
/// Undo ends the hook if it still runs. What a hook changed its own counterpart takes back: see [`Counterpart`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunHook {
    /// When it runs.
    pub stage: Stage,
    /// The hook.
    pub hook: Hook,
    /// What it is told.
    pub container: Container,
    /// The environment of the container's process: that of the hook, where it runs inside and has none of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<Sensitive<Text>>,
}

/// Declares the hook that takes others back: applying it does nothing, undo runs it, at least once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counterpart {
    /// The hook.
    pub hook: Hook,
    /// What it is told: a container that has stopped.
    pub container: Container,
    /// The container's first process. It is ended first: the hook comes after the container (config.md, "Poststop").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Later<Process>>,
}

/// "If any poststart hook fails, the runtime MUST generate an error, stop the container" (runtime.md, "Lifecycle").
struct EndsContainer {
    hook: Running,
    process: Option<Process>,
    /// Why the container is ended, and its end.
    ending: Option<(EffectError, Box<dyn Pending>)>,
}

impl EndsContainer {
    /// The hook's failure is the one that is told, once the container has ended.
    fn end(&mut self, mut error: EffectError) -> Result<Option<Value>, EffectError> {
        match self.process.as_ref().map_or(Ok(Undone::Done), Process::kill) {
            Ok(Undone::Pending(pending)) => {
                self.ending = Some((error, pending));
                return Ok(None);
            }
            Ok(_) => error.help = Some(STOPPED.into()),
            Err(stays) => error.help = Some(format!("the container could not be stopped: {stays}")),
        }
        Err(error)
    }
}

const STOPPED: &str = "the container was stopped: nobody must find it running without what the hook does";

impl Pending for EndsContainer {
    fn started(&self) -> Value {
        self.hook.started()
    }

    fn release(&mut self, cx: &mut Cx) -> Result<(), EffectError> {
        self.hook.release(cx)
    }

    fn interest(&self, wants: &mut Vec<Interest>) {
        match &self.ending {
            Some((_, pending)) => pending.interest(wants),
            None => self.hook.interest(wants),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.ending.as_ref().map_or_else(|| self.hook.deadline(), |(_, pending)| pending.deadline())
    }

    fn advance(&mut self, cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        let Some((error, pending)) = &mut self.ending else {
            return self.hook.advance(cx).or_else(|error| self.end(error));
        };
        let help = match pending.advance(cx) {
            Ok(None) => return Ok(None),
            Ok(Some(_)) => STOPPED.to_owned(),
            Err(stays) => format!("the container could not be stopped: {stays}"),
        };
        Err(error.clone().help(help))
    }

    /// A hook that is cut off has not done its work, either.
    fn cancel(&mut self, cx: &mut Cx) {
        self.hook.cancel(cx);
        if let Some(Err(stays)) = self.process.as_ref().map(Process::kill) {
            cx.warn(&format!("the container could not be stopped: {stays}"));
        }
    }
}

/// "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and lifecycle continue as if the hook had succeeded."
struct Tolerated {
    hook: Running,
    limit: Option<Duration>,
}

fn warn(error: &EffectError, cx: &mut Cx) {
    cx.warn(&format!("{error}; the container is deleted all the same"));
}

impl Pending for Tolerated {
    fn started(&self) -> Value {
        self.hook.started()
    }

    fn release(&mut self, cx: &mut Cx) -> Result<(), EffectError> {
        self.hook.release(cx)
    }

    fn interest(&self, wants: &mut Vec<Interest>) {
        self.hook.interest(wants);
    }

    fn deadline(&self) -> Option<Instant> {
        self.hook.deadline()
    }

    /// Whoever wrote the hook has given it that.
    fn time(&self) -> Option<Duration> {
        self.limit
    }

    fn advance(&mut self, cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        self.hook.advance(cx).or_else(|error| {
            warn(&error, cx);
            Ok(Some(Value::Null))
        })
    }

    fn cancel(&mut self, cx: &mut Cx) {
        self.hook.cancel(cx);
    }
}

fn example(script: String, scratch: &Path) -> (Hook, Container) {
    let hook = Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), script],
        env: Some(vec!["PATH=/usr/bin:/bin".into()]),
        timeout: Some(10),
    };
    (hook, Container { id: "example".into(), process: None, bundle: scratch.to_owned(), annotations: BTreeMap::new() })
}

impl EffectDef for RunHook {
    const KIND: &'static str = "hook";

    fn examples(scratch: &Path) -> Vec<Self> {
        let (hook, container) = example("cat > /dev/null".into(), scratch);
        vec![Self { stage: Stage::CreateRuntime, hook, container, env: Vec::new() }]
    }

    fn class(&self) -> Class {
        if self.stage == Stage::Poststart { Class::Commit } else { Class::Foreign }
    }

    fn describe(&self) -> String {
        let limit = self.hook.timeout.map_or_else(String::new, |s| format!(", at most {s} s"));
        format!("run {} hook {}{limit}", self.stage.name(), self.hook.path.display())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let running = start(&self.hook, self.stage, &self.container, self.inherited(cx)?, cx)?;
        if self.stage != Stage::Poststart {
            return Ok(Applied::Pending(Box::new(running)));
        }
        let process = self.container.process.as_ref().map(|process| super::wait::resolve(process, cx)).transpose()?;
        Ok(Applied::Pending(Box::new(EndsContainer { hook: running, process, ending: None })))
    }

    fn undo(&self, record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        leftover::end(record).map(leftover::or_nothing)
    }
}

impl RunHook {
    fn inherited(&self, cx: &Cx) -> Result<Vec<String>, EffectError> {
        let env = self.env.iter().map(|entry| cx.text(&entry.0)).collect::<Result<_, _>>()?;
        // Before that stage, the root is not the container's yet, nor is its passwd file.
        Ok(if self.stage == Stage::StartContainer { of_process(env) } else { last_of_each(env, String::as_str) })
    }
}

impl EffectDef for Counterpart {
    const KIND: &'static str = "hook.counterpart";

    fn examples(scratch: &Path) -> Vec<Self> {
        let (hook, container) = example("cat > /dev/null".into(), scratch);
        vec![Self { hook, container, ends: None }]
    }

    fn class(&self) -> Class {
        Class::Foreign
    }

    fn describe(&self) -> String {
        format!("declare poststop hook {}, run when this is undone", self.hook.path.display())
    }

    fn apply(&self, _before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        Ok(Applied::done())
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        let mut gone = leftover::kill(record)?;
        // A process that never got an identity was never let go.
        if let Some(process) = self.ends.as_ref().and_then(|ends| super::wait::resolve(ends, cx).ok()) {
            gone.extend(identity::kill(&process)?);
        }
        match start(&self.hook, Stage::Poststop, &self.container, Vec::new(), cx) {
            Ok(hook) => Ok(leftover::then(gone, Tolerated { hook, limit: self.hook.limit() })),
            Err(error) => {
                warn(&error, cx);
                Ok(leftover::gone(gone))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::testing::Bench;
    use rustix::process::Pid;
    use std::os::unix::process::CommandExt;

    fn hook(stage: Stage, script: &str, dir: &Path) -> RunHook {
        let (hook, container) = example(script.into(), dir);
        RunHook { stage, hook, container, env: Vec::new() }
    }

    #[test]
    fn examples_apply_and_are_undone_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new();
        let (a, b) = (RunHook::examples(dir.path()).remove(0), Counterpart::examples(dir.path()).remove(0));
        for effect in [&a as &dyn lifecycle_engine::effect::Effect, &b] {
            let (record, answer) = bench.apply(effect);
            answer.unwrap();
            bench.undo(effect, &record).unwrap();
            bench.undo(effect, &record).unwrap();
        }
    }

    #[test]
    fn a_hook_reads_the_state_and_has_no_environment_but_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new();
        let mut effect = hook(Stage::CreateRuntime, "cat; echo; pwd; env | grep -v ^_= | sort", dir.path());
        let process = bench.handle("init", &Process { pid: 4711, start: 1, boot: "b".into() });
        effect.container.process = Some(Later::Handle(process));
        effect.container.annotations.insert("a".into(), "b".into());
        bench.apply(&effect).1.unwrap();
        let state: Value = serde_json::from_str(&bench.lines[0]).unwrap();
        let want = json!({ "ociVersion": "1.3.0", "id": "example", "status": "creating", "pid": 4711,
            "bundle": dir.path(), "annotations": { "a": "b" } });
        assert_eq!(state, want);
        assert_eq!(bench.lines[1], dir.path().to_string_lossy());
        assert_eq!(bench.lines[2..], ["PATH=/usr/bin:/bin", &format!("PWD={}", dir.path().display())]);
    }

    #[test]
    fn inside_a_hook_is_told_the_pid_of_the_process_that_runs_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new();
        bench.apply(&hook(Stage::StartContainer, "cat", dir.path())).1.unwrap();
        let state: Value = serde_json::from_str(&bench.lines[0]).unwrap();
        assert_eq!(state["pid"], json!(std::process::id()));
        assert_eq!(state["status"], json!("created"));
    }

    #[test]
    fn a_failing_hook_is_named_with_its_status_and_the_end_of_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            Bench::new().apply(&hook(Stage::Prestart, "echo no such device >&2; exit 9", dir.path())).1.unwrap_err();
        assert_eq!(error.what, "prestart hook /bin/sh exited with status 9");
        assert_eq!(error.output, ["no such device"]);
    }

    #[test]
    fn a_hook_over_its_time_limit_is_killed_and_the_limit_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut effect = hook(Stage::CreateRuntime, "sleep 60", dir.path());
        effect.hook.timeout = Some(1);
        let error = Bench::new().apply(&effect).1.unwrap_err();
        assert_eq!(error.what, "createRuntime hook /bin/sh was killed after its time limit of 1s");
    }

    #[test]
    fn a_counterpart_runs_after_the_container_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let script = format!("cat > /dev/null; [ ! -e /proc/{0}/exe ]", pid.as_raw_nonzero());
        let (hook, container) = example(script, dir.path());
        let effect = Counterpart { hook, container, ends: Some(Later::Now(identity::identify(pid).unwrap())) };
        let mut bench = Bench::new();
        let (record, answer) = bench.apply(&effect);
        answer.unwrap();
        bench.undo(&effect, &record).unwrap();
        // Reaped by the undo, as an engine's own child is.
        assert!(child.try_wait().is_err() || child.try_wait().unwrap().is_some());
    }

    #[test]
    fn a_failing_poststart_hook_stops_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut effect = hook(Stage::Poststart, "exit 3", dir.path());
        effect.container.process = Some(Later::Now(identity::identify(Pid::from_child(&child)).unwrap()));
        let error = Bench::new().apply(&effect).1.unwrap_err();
        assert_eq!(error.what, "poststart hook /bin/sh exited with status 3");
        // Reaped, as an engine's own child is.
        assert!(child.try_wait().is_err() || child.try_wait().unwrap().is_some());
    }

    #[test]
    fn a_failing_poststop_hook_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let (mut hook, container) = example("echo lost >&2; exit 4".into(), dir.path());
        for (path, said) in [("/bin/sh", "exited with status 4"), ("/no/such/hook", "/no/such/hook")] {
            hook.path = path.into();
            let effect = Counterpart { hook: hook.clone(), container: container.clone(), ends: None };
            let mut bench = Bench::new();
            let (record, answer) = bench.apply(&effect);
            answer.unwrap();
            bench.undo(&effect, &record).unwrap();
            let last = bench.lines.last().unwrap();
            assert!(last.starts_with("warning: poststop hook") && last.contains(said), "{last}");
        }
    }

    #[test]
    fn a_counterpart_runs_when_undone_even_if_the_bundle_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let ran = dir.path().join("ran");
        let (hook, container) = example(format!("cat > {}", ran.display()), &dir.path().join("gone"));
        let effect = Counterpart { hook, container, ends: None };
        let mut bench = Bench::new();
        let (record, answer) = bench.apply(&effect);
        answer.unwrap();
        assert!(!ran.exists());
        bench.undo(&effect, &record).unwrap();
        let state: Value = serde_json::from_slice(&std::fs::read(&ran).unwrap()).unwrap();
        assert_eq!(state["status"], json!("stopped"));
        assert_eq!(state.get("pid"), None);
    }
}
