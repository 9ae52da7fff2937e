//! From what the caller names to a program: find the plan, compile it, bind its parameters, plan it against the facts.

use std::path::{Path, PathBuf};

use lifecycle_engine::compile::{self, Library};
use lifecycle_engine::diag::{Report, Style};
use lifecycle_engine::effect::RunNames;
use lifecycle_engine::facts::Facts;
use lifecycle_engine::graph::Graph;
use lifecycle_engine::journal;
use lifecycle_engine::planning::{self, Bound, Given, Target};
use lifecycle_engine::program::Program;
use lifecycle_engine::run::RunError;
use lifecycle_engine::step::Registry;
use lifecycle_steps::plans;
use serde_json::Value;

use crate::args::{Global, Params};
use crate::place;
use crate::print::{self, Failure, failed};

/// What the caller wants to be planned.
pub struct Wanted<'a> {
    /// A plan file, or the name of a built-in plan.
    pub source: &'a str,
    /// Its parameters.
    pub params: &'a Params,
    /// What follows `--`.
    pub command: &'a [String],
}

/// The built-in plans.
pub fn library() -> Library<'static> {
    Library { plans: plans::BUILT_IN }
}

/// Compiles the plan that the caller names: a file if there is one of that name, else a built-in plan.
pub fn graph<'r>(global: &Global, registry: &'r Registry, source: &str) -> Result<Graph<'r>, Failure> {
    let path = Path::new(source);
    let compiled = match library().text(source) {
        Some(text) if !path.is_file() => compile::text(&format!("{source} (built in)"), text, registry, library()),
        _ => compile::file(path, registry, library()),
    };
    compiled.map_err(|report| refused(global, &report))
}

/// Binds the parameters that the caller gave.
pub fn bind(global: &Global, graph: &Graph, wanted: &Wanted) -> Result<Bound, Failure> {
    let file = match wanted.params.file.as_deref() {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| failed(format!("cannot read the parameters in {}", path.display()), &e))?;
            Some((path.display().to_string(), text))
        }
        None => None,
    };
    let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    let given = Given { set: &wanted.params.set, file, command: wanted.command };
    planning::bind(graph, given).map_err(|report| refused(global, &report))
}

/// Plans it. `id` is the run's where the plan does not give one.
pub fn program(global: &Global, graph: &Graph, bound: &Bound, facts: &mut Facts, id: String) -> Result<Program, Failure> {
    let root = place::root(global)?;
    let run = planning::run_id(graph, bound).map_err(|report| refused(global, &report))?;
    let opened = match (&run.id, run.opens) {
        (Some(id), true) => outputs(&root, id, facts)?,
        _ => Value::Null,
    };
    let target = Target { root, id, opened };
    planning::program(graph, bound, facts, target).map_err(|report| refused(global, &report))
}

/// The outputs of the run that a plan opens. The journal is read like everything that planning reads, so that the plan replays.
fn outputs(root: &Path, id: &str, facts: &mut Facts) -> Result<Value, Failure> {
    let names = RunNames { root: root.to_owned(), id: id.to_owned() };
    let path: PathBuf = names.dir().join(journal::JOURNAL);
    let text = match facts.file(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(RunError::from(journal::JournalError::Absent { id: names.id, root: names.root }).into());
        }
        Err(e) => return Err(failed(format!("cannot read {}", path.display()), &e)),
    };
    Ok(journal::parse(&path, text.as_bytes()).map_err(RunError::from)?.outputs().clone())
}

/// Every problem of the plan, with its place.
pub fn refused(global: &Global, report: &Report) -> Failure {
    let text = report.render(Style { color: print::color_stderr(global), width: print::width() });
    Failure { report: miette::miette!("{}", text.trim_end()), code: print::ENGINE_FAILED }
}

/// An id for a run whose plan gives none: the plan's name and what tells it from others.
pub fn fresh_id(plan: &str) -> String {
    let word: String = plan.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let mut random = [0u8; 4];
    // Without randomness the pid alone tells runs apart that go on at the same time.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    format!("{}-{:x}-{:08x}", word.trim_matches('-'), std::process::id(), u32::from_ne_bytes(random))
}
