//! Compile, plan and run graphs of no-op steps: how the cost grows from 10 to 100,000 of them.
//!
//! `./dev bench graphs` prints a table; the marginal cost between 1,000 and 100,000 steps is what the last two columns say.

mod sys;

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lifecycle_engine::compile::{self, Library};
use lifecycle_engine::diag::{Diagnostics, FileId};
use lifecycle_engine::error::PlanError;
use lifecycle_engine::events::{Event, Watch};
use lifecycle_engine::facts::{Facts, Recorded};
use lifecycle_engine::planning::{self, Given, Target};
use lifecycle_engine::run::{RunOptions, run};
use lifecycle_engine::step::{Example, Planning, Registry, Step, StepKind};
use lifecycle_steps::spawn::identity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: sys::Counting = sys::Counting;

/// Does nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// Anything.
    #[serde(default)]
    n: i64,
}

/// What went in.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// The same.
    n: i64,
}

struct Noop;

impl Step for Noop {
    const KIND: &'static str = "noop";
    const CHANGES: &'static str = "Nothing.";
    const REVERSED_BY: &'static str = "Nothing.";
    const EXAMPLES: &'static [Example] =
        &[Example { about: "Nothing.", plan: "plan: n\nsteps:\n  a: { uses: noop }\n", needs: &[] }];
    type Input = Input;
    type Output = Output;

    fn plan(input: Input, _: &mut Planning) -> Result<Output, PlanError> {
        Ok(Output { n: input.n })
    }
}

fn chain(n: usize) -> String {
    plan(n, |i| if i == 0 { String::new() } else { format!("s{}", i - 1) })
}

fn fan_out(n: usize) -> String {
    plan(n, |i| if i == 0 { String::new() } else { "s0".into() })
}

/// Each step waits for the one to its left and the one above it.
fn grid(n: usize) -> String {
    let side = n.isqrt().max(1);
    plan(n, |i| {
        let left = (i % side > 0).then(|| format!("s{}", i - 1));
        let above = (i >= side).then(|| format!("s{}", i - side));
        left.into_iter().chain(above).collect::<Vec<_>>().join(", ")
    })
}

fn plan(n: usize, needs: impl Fn(usize) -> String) -> String {
    let mut text = "plan: bench\nsteps:\n".to_owned();
    for i in 0..n {
        let needs = needs(i);
        let needs = if needs.is_empty() { needs } else { format!(", needs: [{needs}]") };
        let _ = writeln!(text, "  s{i}: {{ uses: noop, with: {{ n: {i} }}{needs} }}");
    }
    text
}

/// What one graph cost.
struct Cost {
    parse: Duration,
    compile: Duration,
    plan: Duration,
    run: Duration,
    /// What the graph and the program hold, in bytes.
    graph: usize,
    /// What the run's state adds to it while it runs, in bytes.
    state: usize,
}

fn measure(text: &str, root: &std::path::Path) -> Cost {
    let registry = Registry::new([StepKind::of::<Noop>()], []);
    // Twice: the first time pays for memory that the kernel gives for the first time.
    let parse = [(), ()].map(|()| {
        let start = Instant::now();
        let parsed = lifecycle_engine::plan::parse(text, FileId(0), &mut Diagnostics::default());
        assert!(parsed.is_some());
        start.elapsed()
    })[1];
    let before = sys::held();
    let start = Instant::now();
    let graph = compile::text("bench.yaml", text, &registry, Library::default()).unwrap_or_else(|r| panic!("{r:?}"));
    let compile = start.elapsed().saturating_sub(parse);
    let start = Instant::now();
    let mut facts = Facts::fixed(Recorded::default());
    let bound = planning::bind(&graph, Given::default()).unwrap_or_else(|r| panic!("{r:?}"));
    let target = Target { root: root.to_owned(), id: "bench".into(), opened: serde_json::Value::Null };
    let program = planning::program(&graph, &bound, &mut facts, target).unwrap_or_else(|r| panic!("{r:?}"));
    let plan = start.elapsed();
    let held = sys::held();
    let engine = identity::identify(rustix::process::getpid()).unwrap_or_else(|e| panic!("{e}"));
    let engine = lifecycle_engine::journal::Identity { pid: engine.pid, start: engine.start, boot: engine.boot };
    let options =
        RunOptions { engine, keep: false, only_nested: false, fail_at: None, pause_at: None, cancel: None, jobs: None };
    let start = Instant::now();
    let mut most = Most(held);
    let finished = run(Rc::new(program), &registry, options, &mut most).unwrap_or_else(|e| panic!("{e}"));
    let run = start.elapsed();
    assert!(finished.failure.is_none() && finished.stuck.is_empty(), "{finished:?}");
    Cost { parse, compile, plan, run, graph: held - before, state: most.0 - held }
}

/// The most that was held when a step ended.
struct Most(usize);

impl Watch for Most {
    fn event(&mut self, event: &Event) {
        if matches!(event, Event::Done { .. }) {
            self.0 = self.0.max(sys::held());
        }
    }
}

/// A child of its own for each measurement: an allocator that has grown once hides what the next graph needs.
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [shape, n] = args.as_slice() {
        return one(shape, n.parse().unwrap_or_else(|e| panic!("{n}: {e}")));
    }
    println!("shape       steps   parse ms  compile ms  plan ms    run ms  graph B/step  state B/step");
    for shape in ["chain", "fan-out", "grid"] {
        let mut costs = Vec::new();
        for n in [10, 1_000, 100_000] {
            let exe = std::env::current_exe().unwrap_or_else(|e| panic!("{e}"));
            let mut best: Option<Vec<f64>> = None;
            for _ in 0..5 {
                let out = std::process::Command::new(&exe)
                    .args([shape, &n.to_string()])
                    .output()
                    .unwrap_or_else(|e| panic!("{e}"));
                assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
                let row: Vec<f64> =
                    String::from_utf8_lossy(&out.stdout).split_whitespace().filter_map(|w| w.parse().ok()).collect();
                best = Some(best.map_or(row.clone(), |b| b.iter().zip(&row).map(|(a, b)| a.min(*b)).collect()));
            }
            let row = best.unwrap_or_default();
            let each = |i: usize| row[i] / f64::from(n);
            println!(
                "{shape:9} {n:7}  {:9.2}  {:10.2}  {:7.2}  {:8.2}  {:12.0}  {:12.0}",
                row[0],
                row[1],
                row[2],
                row[3],
                each(4),
                each(5)
            );
            costs.push(row);
        }
        let per_step = |i: usize| (costs[2][i] - costs[1][i]) * 1000.0 / 99_000.0;
        println!(
            "{shape:9} marginal cost per step: compile {:.2} µs (+ plan {:.2} µs), run {:.2} µs, memory {:.0} + {:.0} bytes",
            per_step(1),
            per_step(2),
            per_step(3),
            per_step(4) / 1000.0,
            per_step(5) / 1000.0
        );
    }
}

fn one(shape: &str, n: usize) {
    let text = match shape {
        "chain" => chain(n),
        "fan-out" => fan_out(n),
        _ => grid(n),
    };
    // The journal on tmpfs, as it is on most machines' /run.
    let root = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|e| panic!("{e}"));
    let cost = measure(&text, root.path());
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    println!(
        "{} {} {} {} {} {}",
        ms(cost.parse),
        ms(cost.compile),
        ms(cost.plan),
        ms(cost.run),
        cost.graph,
        cost.state
    );
}
