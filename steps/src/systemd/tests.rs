//! Against a systemd that is none: it keeps a table of units, and notes what it is asked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use lifecycle_engine::effect::{EffectDef, Record, RunNames};
use lifecycle_engine::value::{Handle, HandleRef};
use serde_json::json;

use super::*;
use crate::effects::cgroup::{SetProperties, StartScope};
use crate::effects::testing::Bench;
use crate::facts::boot_id;
use crate::outcomes::Process;

/// What it knows: descriptions and invocations by name; and what it was asked.
#[derive(Default)]
struct Known {
    units: BTreeMap<String, (String, u8)>,
    asked: Vec<String>,
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
        self.known.lock().expect("no panic").units.insert(unit.into(), (description.into(), invocation));
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.known.lock().expect("no panic").asked)
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
            let (description, invocation) = known.units.get(unit).cloned().unwrap_or_default();
            let entry = |name: &str, value: Value| Value::Entry(Value::str(name).into(), value.variant().into());
            let all = vec![
                entry("ActiveState", Value::str("active")),
                entry("Description", Value::Str(description)),
                entry("InvocationID", Value::Array("y".into(), vec![Value::Byte(invocation)])),
                entry("ControlGroup", Value::Str(format!("/system.slice/{unit}"))),
                entry("TasksMax", Value::U64(7)),
            ];
            vec![ok(vec![Value::Array("{sv}".into(), all)])]
        }
        "StartTransientUnit" if known.units.contains_key(&unit) => {
            vec![no("org.freedesktop.systemd1.UnitExists")]
        }
        "StartTransientUnit" => {
            known.asked.push(format!("start {unit} {}", crate::dbus::print(&call.body[2])));
            known.units.insert(unit.clone(), ("mine".into(), 1));
            // The signal overtakes the answer.
            vec![job_removed("other.scope"), job_removed(&unit), ok(vec![Value::Path("/job/1".into())])]
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
    assert_eq!(fake.asked(), ["start web.scope [('Description', <'a'>), ('PIDs', <[uint32 77]>)]"]);
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
