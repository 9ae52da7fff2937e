//! Against a systemd that is none: it keeps a table of units, and notes what it is asked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use lifecycle_engine::effect::{EffectDef, Record, RunNames};
use lifecycle_engine::value::{Handle, HandleRef};
use serde_json::json;

use super::*;
use crate::effects::cgroup::{SetProperties, Slices, StartScope};
use crate::effects::testing::Bench;
use crate::facts::boot_id;
use crate::outcomes::Process;

/// What it knows: units by name; and what it was asked.
#[derive(Default)]
struct Known {
    units: BTreeMap<String, Loaded>,
    asked: Vec<String>,
    /// Where its scopes are, if not in system.slice.
    below: Option<String>,
    /// Slices that are started with the next scope.
    around: Vec<String>,
    /// Comes into a slice that is being stopped.
    late: Option<String>,
}

#[derive(Clone, Default)]
struct Loaded {
    description: String,
    invocation: u8,
    stopped: bool,
    users: Vec<String>,
    documentation: Vec<String>,
}

struct Fake {
    dir: tempfile::TempDir,
    known: Arc<Mutex<Known>>,
}

impl Fake {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("private")).expect("a socket");
        let known = Arc::new(Mutex::new(Known::default()));
        let shared = known.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let known = shared.clone();
                std::thread::spawn(move || serve(stream, &known));
            }
        });
        Self { dir, known }
    }

    fn address(&self) -> Address {
        Address { socket: self.dir.path().join("private"), bus: false }
    }

    fn add(&self, unit: &str, description: &str, invocation: u8) {
        let unit = (unit.to_owned(), Loaded { description: description.into(), invocation, ..Loaded::default() });
        self.known().units.extend([unit]);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("no panic")
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.known().asked)
    }
}

/// Answers one client until it goes.
fn serve(mut stream: UnixStream, known: &Mutex<Known>) -> Option<()> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while !bytes.ends_with(b"BEGIN\r\n") {
        let n = stream.read(&mut chunk[..1]).ok().filter(|n| *n > 0)?;
        bytes.extend(&chunk[..n]);
    }
    stream.write_all(b"DATA\r\nOK 00\r\n").ok()?;
    bytes.clear();
    loop {
        while let Some(length) = Message::length(&bytes).ok()?.filter(|length| *length <= bytes.len()) {
            let call = Message::decode(&bytes.drain(..length).collect::<Vec<u8>>()).ok()?;
            for answer in answers(&call, &mut known.lock().expect("no panic")) {
                stream.write_all(&answer.encode()).ok()?;
            }
        }
        let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        bytes.extend(&chunk[..n]);
    }
}

impl Known {
    /// Stops or starts a slice. Stopped, it is forgotten unless somebody is in it.
    fn turn(&mut self, name: &str, stops: bool) {
        let late = self.late.take();
        let Some(slice) = self.units.get_mut(name) else { return };
        slice.users.extend(late.clone());
        slice.stopped = stops;
        slice.invocation += u8::from(!stops);
        if slice.users.is_empty() && stops {
            self.units.remove(name);
            self.units.values_mut().for_each(|unit| unit.users.retain(|user| user != name));
        }
        self.units.extend(late.map(|name| (name, Loaded::default())));
    }
}

fn job_removed(unit: &str) -> Message {
    let body = vec![Value::U32(1), Value::Path("/job/1".into()), Value::str(unit), Value::str("done")];
    Message { kind: Kind::Signal, serial: 9, ..Message::call("", OBJECT, MANAGER, "JobRemoved", body) }
}

fn answers(call: &Message, known: &mut Known) -> Vec<Message> {
    let text = |n: usize| call.body.get(n).and_then(Value::as_str).unwrap_or_default().to_owned();
    let serial = |message: Message| Message { serial: 8, ..message };
    let ok = |body| serial(call.answer(Kind::Return, "", body));
    let no = |error: &str| serial(call.answer(Kind::Error, error, vec![Value::str("no")]));
    let unit = text(0);
    match call.member.as_str() {
        "GetUnit" if known.units.contains_key(&unit) => vec![ok(vec![Value::Path(format!("/unit/{unit}"))])],
        "GetAll" => {
            let unit = call.path.trim_start_matches("/unit/");
            let Loaded { description, invocation, stopped, users, documentation } =
                known.units.get(unit).cloned().unwrap_or_default();
            let users = users.iter().map(Value::str).collect();
            let documentation = documentation.iter().map(Value::str).collect();
            let entry = |name: &str, value: Value| Value::Entry(Value::str(name).into(), value.variant().into());
            let all = vec![
                entry("ActiveState", Value::str(if stopped { "inactive" } else { "active" })),
                entry("Job", Value::Struct(vec![Value::U32(0), Value::Path("/".into())])),
                entry("Documentation", Value::Array("s".into(), documentation)),
                entry("SliceOf", Value::Array("s".into(), users)),
                entry("Description", Value::Str(description)),
                entry("InvocationID", Value::Array("y".into(), vec![Value::Byte(invocation)])),
                entry(
                    "ControlGroup",
                    Value::Str(format!("/{}/{unit}", known.below.as_deref().unwrap_or("system.slice"))),
                ),
                entry("TasksMax", Value::U64(7)),
            ];
            vec![ok(vec![Value::Array("{sv}".into(), all)])]
        }
        "StartTransientUnit" if known.units.contains_key(&unit) => {
            vec![no("org.freedesktop.systemd1.UnitExists")]
        }
        "StartTransientUnit" => {
            known.asked.push(format!("start {unit} {}", crate::dbus::print(&call.body[2])));
            known.units.insert(unit.clone(), Loaded { description: "mine".into(), invocation: 1, ..Loaded::default() });
            for slice in std::mem::take(&mut known.around) {
                known.units.entry(slice).or_insert_with(|| Loaded { invocation: 10, ..Loaded::default() });
            }
            // The signal overtakes the answer.
            vec![job_removed("other.scope"), job_removed(&unit), ok(vec![Value::Path("/job/1".into())])]
        }
        "StopUnit" | "StartUnit" if unit.strip_suffix(".slice").is_some() && known.units.contains_key(&unit) => {
            known.asked.push(format!("{} {unit} {}", call.member, text(1)));
            known.turn(&unit, call.member == "StopUnit");
            vec![ok(vec![Value::Path("/job/1".into())]), job_removed(&unit)]
        }
        "StopUnit" if known.units.remove(&unit).is_some() => {
            known.asked.push(format!("stop {unit}"));
            vec![ok(vec![Value::Path("/job/1".into())]), job_removed(&unit)]
        }
        "KillUnit" | "ResetFailedUnit" => vec![ok(Vec::new())],
        "SetUnitProperties" => {
            known.asked.push(format!("set {unit} {}", crate::dbus::print(&call.body[2])));
            vec![ok(Vec::new())]
        }
        _ => vec![no(NO_SUCH_UNIT)],
    }
}

const UNIT: &str = "web.scope";

fn scope(fake: &Fake, description: &str) -> StartScope {
    StartScope {
        unit: UNIT.into(),
        manager: fake.address(),
        control_group: format!("/system.slice/{UNIT}"),
        process: Handle::new(HandleRef { step: "init".into(), effect: 0, field: "".into() }),
        properties: vec![Property::new("Description", &Value::str(description))],
        slices: Slices::default(),
    }
}

fn bench(fake: &Fake) -> Bench {
    let process = Process { pid: 77, start: 1, boot: boot_id().to_owned() };
    Bench::new(fake.dir.path()).knowing("init", json!(process))
}

#[test]
fn a_scope_is_started_once_and_stopped_by_its_invocation() {
    let fake = Fake::start();
    let (effect, mut bench) = (scope(&fake, "a"), bench(&fake));
    let (record, answer) = bench.apply(&effect);
    assert_eq!(answer, Ok(json!({ "invocation": "01" })));
    let uri = format!("file://{}/test", fake.dir.path().display());
    let properties = format!("('Description', <'a'>), ('Documentation', <['{uri}']>), ('PIDs', <[uint32 77]>)");
    assert_eq!(fake.asked(), [format!("start web.scope [{properties}]")]);
    // Another one of the same name came meanwhile.
    fake.add(UNIT, "a", 2);
    bench.undo(&effect, &record).expect("left alone");
    assert!(fake.asked().is_empty());
    fake.add(UNIT, "a", 1);
    bench.undo(&effect, &record).expect("stopped");
    assert_eq!(fake.asked(), ["stop web.scope"]);
    bench.undo(&effect, &record).expect("absence is done");
    assert!(fake.asked().is_empty());
}

#[test]
fn a_unit_that_is_there_is_refused_and_never_touched() {
    let fake = Fake::start();
    fake.add(UNIT, "somebody's", 5);
    let (effect, mut bench) = (scope(&fake, "a"), bench(&fake));
    let (record, answer) = bench.apply(&effect);
    let error = answer.expect_err("refused");
    assert_eq!(error.what, "systemd has a unit web.scope already, which is active: somebody's");
    bench.undo(&effect, &record).expect("nothing to undo");
    assert!(fake.asked().is_empty());
}

#[test]
fn without_an_outcome_the_description_that_names_the_run_is_the_proof() {
    let fake = Fake::start();
    let tag = RunNames { root: fake.dir.path().to_owned(), id: "test".into() }.tag();
    let own = format!("container test (lifecycle {tag})");
    let mut bench = bench(&fake);
    let cut = Record { before: json!({ "boot": boot_id() }), ..Record::default() };
    for (planned, found, stopped) in
        [(own.as_str(), own.as_str(), true), (&own, "another", false), ("web", "web", false)]
    {
        fake.add(UNIT, found, 3);
        bench.undo(&scope(&fake, planned), &cut).expect("undone");
        assert_eq!(!fake.asked().is_empty(), stopped, "{planned} {found}");
    }
    // Whatever an annotation calls it, there is a URI of the run, too.
    fake.add(UNIT, "web", 3);
    let uri = format!("file://{}/test", fake.dir.path().display());
    fake.known().units.get_mut(UNIT).expect("the unit").documentation.push(uri);
    bench.undo(&scope(&fake, "web"), &cut).expect("undone");
    assert_eq!(fake.asked(), ["stop web.scope"]);
    // Units of another boot are gone, and whoever has the name now is somebody else.
    fake.add(UNIT, &own, 3);
    let old = Record { before: json!({ "boot": "another" }), ..Record::default() };
    bench.undo(&scope(&fake, &own), &old).expect("nothing to undo");
    assert!(fake.asked().is_empty());
}

#[test]
fn properties_come_back_as_they_were() {
    let fake = Fake::start();
    fake.add(UNIT, "a", 1);
    let properties = vec![Property::new("TasksMax", &Value::U64(32))];
    let effect = SetProperties { unit: UNIT.into(), manager: fake.address(), properties };
    let mut bench = bench(&fake);
    let (record, answer) = bench.apply(&effect);
    answer.expect("set");
    bench.undo(&effect, &record).expect("set back");
    let set = |n| format!("set web.scope [('TasksMax', <uint64 {n}>)]");
    assert_eq!(fake.asked(), [set(32), set(7)]);
    fake.add(UNIT, "a", 2);
    bench.undo(&effect, &record).expect("left alone");
    assert!(fake.asked().is_empty());
}

#[test]
fn nobody_at_the_socket_is_an_error_with_what_to_do() {
    let fake = Fake::start();
    let mut effect = scope(&fake, "a");
    effect.manager.socket = fake.dir.path().join("nobody");
    let error = bench(&fake).apply(&effect).1.expect_err("refused");
    assert!(error.what.starts_with("connect to systemd at ") && error.help.is_some(), "{error:?}");
    assert!(EffectDef::describe(&effect).starts_with("have systemd make the scope web.scope"));
}

/// A scope in a slice in a slice, and the inner slice's cgroup.
fn nested(fake: &Fake) -> (StartScope, std::path::PathBuf) {
    let names = ["a.slice", "a-b.slice"].map(str::to_owned).to_vec();
    let at = fake.dir.path().join("cgroup/a.slice/a-b.slice");
    std::fs::create_dir_all(&at).expect("a directory");
    fake.known().below = Some("a.slice/a-b.slice".to_owned());
    fake.known().around.clone_from(&names);
    let slices = Slices { names, mounts: vec![fake.dir.path().join("cgroup")] };
    let control_group = format!("/a.slice/a-b.slice/{UNIT}");
    (StartScope { control_group, slices, ..scope(fake, "mine") }, at)
}

fn stop(slice: &str) -> String {
    format!("StopUnit {slice} ignore-dependencies")
}

fn start(slice: &str) -> String {
    format!("StartUnit {slice} replace")
}

/// In the slice by a unit that is as told.
fn occupy(fake: &Fake, slice: &str, unit: &str, stopped: bool) {
    let mut known = fake.known();
    known.units.insert(unit.to_owned(), Loaded { stopped, ..Loaded::default() });
    known.units.get_mut(slice).expect("the slice").users.push(unit.to_owned());
}

#[test]
fn slices_that_came_with_a_scope_go_with_it() {
    let fake = Fake::start();
    let ((effect, at), mut bench) = (nested(&fake), bench(&fake));
    let (record, answer) = bench.apply(&effect);
    assert_eq!(answer, Ok(json!({ "invocation": "01", "slices": { "a.slice": "0a", "a-b.slice": "0a" } })));
    fake.asked();
    // A unit that has failed, or is only known by its name, is nobody.
    occupy(&fake, "a-b.slice", "idle.service", true);
    std::fs::remove_dir_all(&at).expect("removed");
    bench.undo(&effect, &record).expect("stopped");
    assert_eq!(fake.asked(), ["stop web.scope".to_owned(), stop("a-b.slice"), stop("a.slice")]);
    bench.undo(&effect, &record).expect("absence is done");
    assert!(fake.asked().is_empty());
}

#[test]
fn slices_that_ran_before_or_were_started_anew_by_somebody_else_stay() {
    let fake = Fake::start();
    let ((effect, _), mut bench) = (nested(&fake), bench(&fake));
    fake.add("a.slice", "somebody's", 5);
    let (record, answer) = bench.apply(&effect);
    assert_eq!(answer, Ok(json!({ "invocation": "01", "slices": { "a-b.slice": "0a" } })));
    fake.asked();
    fake.add("a-b.slice", "stopped and started meanwhile", 11);
    bench.undo(&effect, &record).expect("stopped");
    assert_eq!(fake.asked(), ["stop web.scope"]);
}

#[test]
fn a_slice_that_is_in_use_is_left_to_the_last_run_in_it() {
    let fake = Fake::start();
    let ((first, at), mut bench) = (nested(&fake), bench(&fake));
    let (record, _) = bench.apply(&first);
    let (unit, control_group) = ("other.scope".into(), "/a.slice/a-b.slice/other.scope".into());
    let second = StartScope { unit, control_group, ..first.clone() };
    let (later, answer) = bench.apply(&second);
    assert_eq!(answer, Ok(json!({ "invocation": "01" })));
    fake.asked();
    // By a unit, by a process, by a cgroup that is no unit's.
    fake.known().units.get_mut("a-b.slice").expect("the slice").users.push("other.scope".to_owned());
    bench.undo(&first, &record).expect("stopped");
    assert_eq!(fake.asked(), ["stop web.scope"]);
    std::fs::write(at.join("cgroup.procs"), "77\n").expect("a file");
    bench.undo(&second, &later).expect("stopped");
    assert_eq!(fake.asked(), ["stop other.scope"]);
    std::fs::write(at.join("cgroup.procs"), "").expect("a file");
    std::fs::create_dir(at.join("inner")).expect("a directory");
    bench.undo(&second, &later).expect("nothing to stop");
    assert!(fake.asked().is_empty());
    std::fs::remove_dir(at.join("inner")).expect("removed");
    fake.known().late = Some("third.scope".to_owned());
    bench.undo(&second, &later).expect("stopped, and started again");
    assert_eq!(fake.asked(), [stop("a-b.slice"), start("a-b.slice")]);
    // The last one in it may know of it by the mark alone. Its cgroup, which the fake leaves, is somebody in the outer one.
    fake.known().units.get_mut("third.scope").expect("the unit").stopped = true;
    bench.undo(&second, &later).expect("stopped");
    assert_eq!(fake.asked(), [stop("a-b.slice")]);
}

#[test]
fn a_slice_that_is_stopped_under_somebody_is_started_again() {
    let fake = Fake::start();
    let ((effect, _), mut bench) = (nested(&fake), bench(&fake));
    fake.known().around.clear();
    // As after a kill between the one and the other: nobody got to record what the scope came with.
    fake.add("a.slice", "", 10);
    occupy(&fake, "a.slice", "a-b.slice", true);
    occupy(&fake, "a-b.slice", "third.scope", false);
    let cut = Record { before: json!({ "boot": boot_id() }), ..Record::default() };
    bench.undo(&effect, &cut).expect("started again");
    assert_eq!(fake.asked(), [start("a-b.slice")]);
}
