#![allow(dead_code, reason = "each test program uses a part of it")]
//! Effects on plain files, and programs made of them, to try the engine without a container.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{
    Applied, Class, Cx, Effect, EffectDef, Interest, Pending, Record, RunNames, UndoTurn, Undone,
};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::events::{Event, Watch};
use lifecycle_engine::facts::Recorded;
use lifecycle_engine::journal::Identity;
use lifecycle_engine::program::{Node, Options, Origin, Program, Scope};
use lifecycle_engine::run::{Finished, RunError, RunOptions};
use lifecycle_engine::step::{EffectKind, Nature, PlannedEffect, Registry};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Makes a file. Fails, or refuses to be undone, while a file of that name with `.fail` or `.stick` is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Touch {
    pub path: PathBuf,
}

impl EffectDef for Touch {
    const KIND: &'static str = "touch";
    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { path: scratch.join("a") }]
    }
    fn class(&self) -> Class {
        Class::Reversible
    }
    fn describe(&self) -> String {
        format!("touch {}", self.path.display())
    }
    fn before(&self, _: &mut Cx) -> Result<Value, EffectError> {
        Ok(json!({ "existed": self.path.exists() }))
    }
    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        std::fs::write(&self.path, "").map_err(|e| EffectError::call("write", e))?;
        // After the change: the failing step itself has something to take back.
        if self.path.with_extension("fail").exists() {
            return Err(EffectError::new("told to fail"));
        }
        Ok(Applied::Done(json!({ "path": self.path })))
    }
    fn undo(&self, record: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        if self.path.with_extension("stick").exists() {
            return Err(EffectError::new("told to stick"));
        }
        if record.before["existed"] == json!(false) {
            match std::fs::remove_file(&self.path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(EffectError::call("unlink", e)),
                _ => {}
            }
        }
        Ok(Undone::Done)
    }
    fn holds_back(&self) -> bool {
        self.path.with_extension("hold").exists()
    }
}

/// Waits for a time; cancelled, it leaves a mark.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sleep {
    pub ms: u64,
    pub mark: PathBuf,
}

struct Sleeping(Instant, PathBuf);

impl Pending for Sleeping {
    fn interest(&self, _: &mut Vec<Interest>) {}
    fn deadline(&self) -> Option<Instant> {
        Some(self.0)
    }
    fn advance(&mut self, _: &mut Cx) -> Result<Option<Value>, EffectError> {
        Ok((Instant::now() >= self.0).then(|| json!({ "exit": 7 })))
    }
    fn cancel(&mut self, _: &mut Cx) {
        std::fs::write(&self.1, "").expect("mark");
    }
}

impl EffectDef for Sleep {
    const KIND: &'static str = "sleep";
    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { ms: 1, mark: scratch.join("cancelled") }]
    }
    fn class(&self) -> Class {
        Class::Scoped
    }
    fn describe(&self) -> String {
        format!("sleep {} ms", self.ms)
    }
    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        Ok(Applied::Pending(Box::new(Sleeping(Instant::now() + Duration::from_millis(self.ms), self.mark.clone()))))
    }
    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

/// Its undo waits for what never comes. It writes down when that begins and when it is given up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hang {
    pub log: PathBuf,
}

impl Hang {
    fn note(log: &Path, word: &str) {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        std::fs::write(log, format!("{text}{word} ")).expect("log");
    }
}

struct Hanging(PathBuf);

impl Pending for Hanging {
    fn interest(&self, _: &mut Vec<Interest>) {}
    fn advance(&mut self, _: &mut Cx) -> Result<Option<Value>, EffectError> {
        Ok(None)
    }
    fn late(&self) -> Option<EffectError> {
        Some(EffectError::new("held by nobody"))
    }
    fn cancel(&mut self, _: &mut Cx) {
        Hang::note(&self.0, "over");
    }
}

impl EffectDef for Hang {
    const KIND: &'static str = "hang";
    const TURN: UndoTurn = UndoTurn::SideBySide;
    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { log: scratch.join("log") }]
    }
    fn class(&self) -> Class {
        Class::Reversible
    }
    fn describe(&self) -> String {
        "hang".into()
    }
    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        Ok(Applied::Done(Value::Null))
    }
    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Self::note(&self.log, "begun");
        Ok(Undone::Pending(Box::new(Hanging(self.log.clone()))))
    }
}

/// A file that its run is known by.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sign {
    pub path: PathBuf,
}

impl EffectDef for Sign {
    const KIND: &'static str = "sign";
    const TURN: UndoTurn = UndoTurn::Last;
    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { path: scratch.join("sign") }]
    }
    fn class(&self) -> Class {
        Class::Reversible
    }
    fn describe(&self) -> String {
        "sign".into()
    }
    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        std::fs::write(&self.path, "").map_err(|e| EffectError::call("write", e))?;
        Ok(Applied::Done(Value::Null))
    }
    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        std::fs::remove_file(&self.path).map_err(|e| EffectError::call("unlink", e))?;
        Ok(Undone::Done)
    }
}

/// Fails; its undo waits until there has been a file, which it makes when it is cancelled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Gated {
    pub gate: PathBuf,
}

struct UntilThere(PathBuf, Instant);

impl Pending for UntilThere {
    fn interest(&self, _: &mut Vec<Interest>) {}
    fn deadline(&self) -> Option<Instant> {
        Some(self.1)
    }
    fn advance(&mut self, _: &mut Cx) -> Result<Option<Value>, EffectError> {
        self.1 = Instant::now() + Duration::from_millis(1);
        let seen = self.0.with_extension("seen");
        if self.0.exists() {
            std::fs::write(&seen, "").expect("seen");
        }
        Ok(seen.exists().then_some(Value::Null))
    }
    fn cancel(&mut self, _: &mut Cx) {
        std::fs::write(&self.0, "").expect("gate");
    }
}

impl EffectDef for Gated {
    const KIND: &'static str = "gated";
    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { gate: scratch.join("gate") }]
    }
    fn class(&self) -> Class {
        Class::Reversible
    }
    fn describe(&self) -> String {
        format!("fail, and wait for {}", self.gate.display())
    }
    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        Err(EffectError::new("told to fail"))
    }
    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Pending(Box::new(UntilThere(self.gate.clone(), Instant::now()))))
    }
}

/// Makes a site whose process says these lines, and then waits for the engine to hang up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Says {
    pub lines: Vec<String>,
}

impl EffectDef for Says {
    const KIND: &'static str = "says";
    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { lines: Vec::new() }]
    }
    fn class(&self) -> Class {
        Class::Scoped
    }
    fn describe(&self) -> String {
        "make a process that says what it likes".into()
    }
    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        use std::io::{Read, Write};
        use std::os::unix::net::UnixStream;
        let (ours, mut theirs) = UnixStream::pair().map_err(|e| EffectError::call("socketpair", e))?;
        let lines = self.lines.join("\n") + "\n";
        std::thread::spawn(move || {
            let _ = theirs.write_all(lines.as_bytes()).and_then(|()| theirs.read_to_end(&mut Vec::new()));
        });
        Ok(Applied::Site { outcome: Value::Null, channel: ours.into(), output: Vec::new() })
    }
    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

pub fn registry() -> Registry {
    let kinds =
        [EffectKind::of::<Touch>(), EffectKind::of::<Sleep>(), EffectKind::of::<Hang>(), EffectKind::of::<Sign>()];
    Registry::new([], kinds.into_iter().chain([EffectKind::of::<Gated>(), EffectKind::of::<Says>()]))
}

pub fn node(address: &str, after: &[u32], effects: Vec<PlannedEffect>) -> Node {
    Node {
        address: address.into(),
        kind: "test",
        nature: Nature::Reversible,
        origin: Origin { file: 0, line: 1 },
        scope: 0,
        run: 0,
        site: None,
        makes_site: false,
        armed: false,
        after: after.into(),
        skipped: false,
        when: None,
        options: None,
        effects,
        output: Value::Null,
    }
}

pub fn effect(effect: impl EffectDef) -> PlannedEffect {
    PlannedEffect { data: Effect::data(&effect).expect("data"), effect: Box::new(effect), inside: false }
}

pub fn touch(address: &str, after: &[u32], dir: &Path) -> Node {
    node(address, after, vec![effect(Touch { path: dir.join(address) })])
}

pub fn options(node: &mut Node, options: Options) {
    node.options = Some(Box::new(options));
}

pub fn program(root: &Path, id: &str, nodes: Vec<Node>) -> Program {
    Program {
        plan: "test".into(),
        about: String::new(),
        files: vec!["test.yaml".into()],
        runs: vec![RunNames { root: root.to_owned(), id: id.into() }],
        opens: false,
        beside: false,
        stays: false,
        nested: Vec::new(),
        nodes,
        scopes: vec![Scope { address: "".into(), plan: "test".into(), parent: 0 }],
        main: Vec::new(),
        outputs: Value::Null,
        facts: Recorded::default(),
    }
}

pub fn run_options() -> RunOptions {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc");
    let start = stat.rsplit_once(')').and_then(|(_, r)| r.split_whitespace().nth(19)).and_then(|s| s.parse().ok());
    let engine = Identity { pid: std::process::id() as i32, start: start.expect("start time"), boot: "boot".into() };
    RunOptions { engine, keep: false, only_nested: false, fail_at: None, pause_at: None, cancel: None, jobs: None }
}

/// Remembers what happened, in short words.
#[derive(Default)]
pub struct Seen(pub Vec<String>);

impl Watch for Seen {
    fn event(&mut self, event: &Event) {
        self.0.push(match event {
            Event::Began { step, .. } => format!("+{step}"),
            Event::Done { step, .. } => format!("={step}"),
            Event::Skipped { step } => format!("/{step}"),
            Event::Failed(f) => format!("!{}", f.step),
            Event::Retry { step, .. } => format!("~{step}"),
            Event::Undoing { .. } | Event::Output { .. } | Event::Warning { .. } => return,
            Event::Undone { step, .. } => format!("-{step}"),
            Event::Stuck(s) => format!("?{}", s.step),
            Event::Forgotten { step, .. } => format!("%{step}"),
        });
    }
}

pub fn run(program: Program, options: RunOptions) -> (Result<Finished, RunError>, Vec<String>) {
    let mut seen = Seen::default();
    let finished = lifecycle_engine::run::run(Rc::new(program), &registry(), options, &mut seen);
    (finished, seen.0)
}

pub fn files(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|e| e.expect("entry").file_name().into_string().expect("utf-8")).collect();
    names.sort();
    names
}
