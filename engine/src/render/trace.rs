//! A run's trace in the format of Perfetto and chrome://tracing: the host and each site as a process of its own, side by side.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::show::StepRun;
use crate::events::Event;
use crate::program::Program;

/// The trace of a run of a program, from its events.
pub fn print(program: &Program, events: &[Event]) -> String {
    let run = program.runs.first().map_or("", |r| r.id.as_str());
    let steps = super::from_events(program, events);
    format!("{}\n", json(run, &steps, crate::site::now()))
}

/// Something that took time: a step, or its undo.
struct Slice<'a> {
    step: &'a StepRun,
    undo: bool,
    start: u64,
    end: u64,
}

/// Where a slice is drawn.
#[derive(Clone, Copy)]
struct Spot {
    pid: u64,
    tid: u64,
    start: u64,
    end: u64,
}

/// The trace. Steps that have not ended end at `now`, in microseconds since the epoch.
///
/// The viewer draws a thread's slices nested, so what overlaps in one place gets threads of its own.
pub fn json(run: &str, steps: &[StepRun], now: u64) -> Value {
    let mut slices: Vec<Slice> = steps.iter().flat_map(|step| slices(step, now)).collect();
    slices.sort_by_key(|s| s.start);
    let origin = slices.first().map_or(0, |s| s.start);
    let mut events = Vec::new();
    let pids = processes(run, steps, &mut events);
    let mut threads: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut spots: HashMap<&str, Spot> = HashMap::new();
    for slice in &slices {
        // Undo is the engine's work, wherever the step happened.
        let site = slice.step.site.as_deref().filter(|_| !slice.undo);
        let pid = pids.get(&site).copied().unwrap_or(1);
        let ends = threads.entry(pid).or_default();
        let thread = ends.iter().position(|&end| end <= slice.start).unwrap_or(ends.len());
        ends.resize(ends.len().max(thread + 1), 0);
        ends[thread] = slice.end;
        let spot = Spot { pid, tid: thread as u64 + 1, start: slice.start - origin, end: slice.end - origin };
        events.push(drawn(slice, spot));
        if !slice.undo {
            spots.insert(&slice.step.address, spot);
        }
    }
    for (&pid, ends) in &threads {
        for tid in 1..=ends.len() as u64 {
            let name = if ends.len() == 1 { "steps".to_owned() } else { format!("steps {tid}") };
            events.push(json!({ "ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": { "name": name } }));
        }
    }
    arrows(steps, &spots, &mut events);
    json!({ "displayTimeUnit": "ms", "otherData": { "run": run, "started_us": origin }, "traceEvents": events })
}

fn slices(step: &StepRun, now: u64) -> impl Iterator<Item = Slice<'_>> {
    let slice =
        move |undo, start: u64, end: Option<u64>| Slice { step, undo, start, end: end.unwrap_or(now).max(start) };
    let own = step.start.map(|start| slice(false, start, step.end));
    own.into_iter().chain(step.undo.map(|(start, end)| slice(true, start, end)))
}

/// Numbers the sites, the host first.
fn processes<'a>(run: &str, steps: &'a [StepRun], events: &mut Vec<Value>) -> BTreeMap<Option<&'a str>, u64> {
    let mut pids: BTreeMap<Option<&str>, u64> = BTreeMap::new();
    pids.insert(None, 1);
    for step in steps {
        let next = pids.len() as u64 + 1;
        pids.entry(step.site.as_deref()).or_insert(next);
    }
    for (site, pid) in &pids {
        let name = site.map_or_else(|| format!("{run}: host"), |maker| format!("{run}: inside ‹{maker}›"));
        events.push(json!({ "ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": { "name": name } }));
        events.push(
            json!({ "ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": { "sort_index": pid } }),
        );
    }
    pids
}

fn drawn(slice: &Slice, spot: Spot) -> Value {
    let step = slice.step;
    let (state, ..) = step.state.look();
    let mut args = json!({ "kind": step.kind, "state": state, "effects": step.effects, "after": step.after });
    if let (Some(note), Some(args)) = (&step.note, args.as_object_mut()) {
        args.insert("note".into(), note.as_str().into());
    }
    let name = if slice.undo { format!("undo {}", step.address) } else { step.address.clone() };
    let category = if slice.undo { "undo" } else { step.kind.split('.').next().unwrap_or("step") };
    json!({
        "ph": "X", "name": name, "cat": category, "pid": spot.pid, "tid": spot.tid,
        "ts": spot.start, "dur": spot.end - spot.start, "args": args,
    })
}

/// Where an edge crosses from one site to another, an arrow says what waited for what.
fn arrows(steps: &[StepRun], spots: &HashMap<&str, Spot>, events: &mut Vec<Value>) {
    let mut id = 0;
    for step in steps {
        for before in &step.after {
            let (Some(from), Some(to)) = (spots.get(before.as_str()), spots.get(step.address.as_str())) else {
                continue;
            };
            if from.pid == to.pid {
                continue;
            }
            id += 1;
            // The maker of a site is still at work while its site runs: the arrow leaves where the other begins.
            let leaves = from.end.min(to.start);
            let end = |ph: &str, spot: &Spot, ts: u64| json!({ "ph": ph, "bp": "e", "id": id, "name": "after", "cat": "edge", "pid": spot.pid, "tid": spot.tid, "ts": ts });
            events.push(end("s", from, leaves));
            events.push(end("f", to, to.start));
        }
    }
}
