//! A run's trace in the format of Perfetto and chrome://tracing: the host and each site as a process of its own, side by side.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::show::StepRun;

/// The trace. Steps that have not ended end at `now`, in microseconds since the epoch.
///
/// The viewer draws a thread's slices nested, so steps that overlap on the host get threads of their own.
pub fn json(run: &str, steps: &[StepRun], now: u64) -> Value {
    let origin = steps.iter().filter_map(|s| s.start).min().unwrap_or(0);
    let mut events = Vec::new();
    let pids = processes(run, steps, &mut events);
    let mut threads: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut began: Vec<(usize, u64, u64)> =
        steps.iter().enumerate().filter_map(|(i, s)| Some((i, s.start?, s.end.unwrap_or(now).max(s.start?)))).collect();
    began.sort_by_key(|&(i, start, _)| (start, i));
    let mut places: HashMap<&str, (u64, u64, u64, u64)> = HashMap::new();
    for (i, start, end) in began {
        let step = &steps[i];
        let pid = pids.get(&step.site.as_deref()).copied().unwrap_or(1);
        let ends = threads.entry(pid).or_default();
        let tid = ends.iter().position(|&e| e <= start).unwrap_or(ends.len());
        if tid == ends.len() {
            ends.push(end);
        } else {
            ends[tid] = end;
        }
        let tid = tid as u64 + 1;
        places.insert(&step.address, (pid, tid, start - origin, end - origin));
        events.push(slice(step, (pid, tid), (start - origin, end - origin)));
    }
    for (&pid, ends) in &threads {
        for tid in 1..=ends.len() as u64 {
            let name = if ends.len() == 1 { "steps".to_owned() } else { format!("steps {tid}") };
            events.push(json!({ "ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": { "name": name } }));
        }
    }
    arrows(steps, &places, &mut events);
    json!({ "displayTimeUnit": "ms", "otherData": { "run": run, "started_us": origin }, "traceEvents": events })
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

fn slice(step: &StepRun, (pid, tid): (u64, u64), (start, end): (u64, u64)) -> Value {
    let (state, ..) = step.state.look();
    let mut args = json!({ "kind": step.kind, "state": state, "effects": step.effects, "after": step.after });
    if let (Some(note), Some(args)) = (&step.note, args.as_object_mut()) {
        args.insert("note".into(), note.as_str().into());
    }
    let category = step.kind.split('.').next().unwrap_or("step");
    json!({ "ph": "X", "name": step.address, "cat": category, "pid": pid, "tid": tid, "ts": start, "dur": end - start, "args": args })
}

/// Where an edge crosses from one site to another, an arrow says what waited for what.
fn arrows(steps: &[StepRun], places: &HashMap<&str, (u64, u64, u64, u64)>, events: &mut Vec<Value>) {
    let mut id = 0;
    for step in steps {
        for before in &step.after {
            let (Some(from), Some(to)) = (places.get(before.as_str()), places.get(step.address.as_str())) else {
                continue;
            };
            if from.0 == to.0 {
                continue;
            }
            id += 1;
            // The maker of a site is still at work while its site runs: the arrow leaves where the other begins.
            let leaves = from.3.min(to.2);
            events.push(json!({ "ph": "s", "id": id, "name": "after", "cat": "edge", "pid": from.0, "tid": from.1, "ts": leaves }));
            events.push(json!({ "ph": "f", "bp": "e", "id": id, "name": "after", "cat": "edge", "pid": to.0, "tid": to.1, "ts": to.2 }));
        }
    }
}
