//! Small programs of real steps, run by the real engine, in a process of their own: the engine clones, and has one thread.

use std::io::{Read, Seek, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::events::{Event, Watch};
use lifecycle_engine::facts::{Facts, Recorded};
use lifecycle_engine::journal::Identity;
use lifecycle_engine::program::{Node, NodeId, Origin, Program, Scope};
use lifecycle_engine::run::{RunOptions, run};
use lifecycle_engine::step::{Nature, Planning};
use rustix::process::{DumpableBehavior, WaitOptions, getpid, set_dumpable_behavior, waitpid};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::facts::Machine;
use crate::outcomes::Process;
use crate::sys::clone::fork;

/// One step as a test writes it.
pub(crate) struct Line {
    pub address: &'static str,
    pub kind: &'static str,
    /// The step that makes its site.
    pub site: Option<&'static str>,
    pub with: Value,
}

/// A step on the host.
pub(crate) fn host(address: &'static str, kind: &'static str, with: Value) -> Line {
    Line { address, kind, site: None, with }
}

/// A step in the site that `init` makes.
pub(crate) fn inside(address: &'static str, kind: &'static str, with: Value) -> Line {
    Line { address, kind, site: Some("init"), with }
}

/// The process of step `init`, which has `effect` effects before the clone.
pub(crate) fn process_of(effect: u32) -> Value {
    json!({ "$handle": { "step": "init", "effect": effect, "field": "" } })
}

/// What came of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Came {
    pub exit: Option<i32>,
    /// `step: error` and its exit code, if it determines one.
    pub failure: Option<(String, Option<i32>)>,
    pub stuck: usize,
    pub output: Vec<String>,
    /// What is left in the state root.
    pub left: Vec<String>,
    /// What the engine's own stdout got.
    pub printed: String,
    /// Children of the engine that it has not reaped.
    pub children: bool,
}

struct Lines(Vec<String>);

impl Watch for Lines {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Output { line, .. } => self.0.push(line.clone()),
            Event::Warning { text, .. } => self.0.push(format!("warning: {text}")),
            _ => {}
        }
    }
}

/// Plans and runs the steps, the last one the main one. Each waits for those before it, but for what a site's own process does in its own time.
pub(crate) fn came_of(lines: &[Line]) -> Came {
    came_of_as(0, lines)
}

/// The same by another user than root.
#[expect(clippy::disallowed_methods, reason = "nobody looks at a test")]
pub(crate) fn came_of_as(uid: u32, lines: &[Line]) -> Came {
    let root = tempfile::tempdir().expect("directory");
    std::os::unix::fs::chown(root.path(), Some(uid), Some(uid)).expect("chown");
    // The state root goes with the last run, from a directory that its owner may write to.
    let state = root.path().join("state");
    let (mut ours, mut theirs) = UnixStream::pair().expect("socketpair");
    let mut printed = tempfile::tempfile().expect("file");
    let child = fork(|| {
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null").expect("open")).expect("dup2");
        rustix::stdio::dup2_stdout(&printed).expect("dup2");
        if uid != 0 {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
            set_thread_groups(&[]).expect("setgroups");
            set_thread_res_gid(gid, gid, gid).expect("setresgid");
            set_thread_res_uid(uid, uid, uid).expect("setresuid");
            // A change of ids takes it away, and with it the right to look into one's own /proc.
            set_dumpable_behavior(DumpableBehavior::Dumpable).expect("prctl");
        }
        // What the test harness captures of a message is in memory that goes with this process.
        let came = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| in_this_process(lines, &state)));
        let came = came.map_err(|panic| message_of(&*panic));
        theirs.write_all(&serde_json::to_vec(&came).expect("json")).expect("write");
        0
    })
    .expect("fork");
    drop(theirs);
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).expect("wait").expect("status");
    assert_eq!(status.exit_status(), Some(0), "the engine's process failed; its message is above");
    let mut text = String::new();
    ours.read_to_string(&mut text).expect("read");
    let came: Result<Came, String> = serde_json::from_str(&text).expect("json");
    let mut came = came.unwrap_or_else(|message| panic!("the engine's process: {message}"));
    printed.rewind().and_then(|()| printed.read_to_string(&mut came.printed)).expect("read");
    came
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref().cloned()).unwrap_or_default()
}

fn in_this_process(lines: &[Line], root: &std::path::Path) -> Came {
    let names = RunNames { root: root.to_owned(), id: "test".into() };
    let program = Rc::new(planned(lines, &names));
    let me = Process::of(getpid()).expect("identity");
    let options = RunOptions {
        engine: Identity { pid: me.pid, start: me.start, boot: me.boot },
        keep: false,
        only_nested: false,
        fail_at: None,
        pause_at: None,
        cancel: None,
        jobs: None,
    };
    let mut watch = Lines(Vec::new());
    let finished = run(program, &crate::registry(), options, &mut watch).expect("run");
    // The last run takes the state root with it.
    let left = std::fs::read_dir(root).into_iter().flatten();
    let left = left.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned());
    Came {
        exit: finished.exit,
        failure: finished.failure.map(|f| {
            let error = &f.error;
            (format!("{}: {error} [{}]", f.step, error.help.as_deref().unwrap_or("")), error.exit)
        }),
        stuck: finished.stuck.len(),
        output: watch.0,
        left: left.collect(),
        printed: String::new(),
        children: waitpid(None, WaitOptions::NOHANG).is_ok(),
    }
}

fn planned(lines: &[Line], names: &RunNames) -> Program {
    let registry = crate::registry();
    let mut facts = Facts::live(Box::new(Machine));
    let mut nodes: Vec<Node> = Vec::new();
    let mut armed = false;
    for line in lines {
        let kind = registry.step(line.kind).expect("kind");
        let address: Arc<str> = line.address.into();
        let site = line.site.map(|s| nodes.iter().position(|n| &*n.address == s).expect("site") as NodeId);
        let mut cx = Planning::new(&mut facts, names, address.clone(), line.site.map(Into::into));
        let output = kind.plan(line.with.clone(), &mut cx).unwrap_or_else(|e| panic!("{}: {e}", line.address));
        let effects = cx.effects;
        // A step waits for those of its own place; a first one in a site for the site.
        let same = |n: &Node| n.site == site;
        let after: Vec<NodeId> =
            (0..).zip(&nodes).filter(|(i, n)| same(n) || Some(*i) == site).map(|(i, _)| i).collect();
        let after = if kind.nature == Nature::Waits { waited_for(&nodes) } else { after };
        nodes.push(Node {
            address,
            kind: kind.kind,
            nature: kind.nature,
            origin: Origin::default(),
            scope: 0,
            run: 0,
            site,
            makes_site: kind.makes_site,
            armed: armed && site.is_some(),
            after: after.into(),
            skipped: false,
            when: None,
            options: None,
            effects,
            output,
        });
        armed |= kind.arms;
    }
    let main =
        nodes.last().filter(|n| n.nature == Nature::Waits).map(|_| nodes.len() as NodeId - 1).into_iter().collect();
    Program {
        plan: "test".into(),
        about: String::new(),
        files: vec!["test.yaml".into()],
        runs: vec![names.clone()],
        opens: false,
        beside: false,
        stays: false,
        nested: Vec::new(),
        nodes,
        scopes: vec![Scope { address: "".into(), plan: "test".into(), parent: 0 }],
        main,
        outputs: Value::Null,
        facts: Recorded::default(),
    }
}

/// What a step that waits has to see first: the process, and its start.
fn waited_for(nodes: &[Node]) -> Vec<NodeId> {
    let first = |n: &Node| n.makes_site || (n.nature == Nature::Commit && n.site.is_none());
    (0..).zip(nodes).filter(|(_, n)| first(n)).map(|(i, _)| i).collect()
}
