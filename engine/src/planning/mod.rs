//! From a graph, parameters and facts to a [`Program`]: parameters bound, conditions decided, `for_each` unrolled, effects computed.
//!
//! Steps are planned in the graph's order, so what a step refers to is there. A step that cannot be planned is reported at the exact field, and
//! planning goes on with the steps that do not depend on it.

mod eval;
mod given;
mod instances;
mod settle;
mod steps;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde_json::Value;

use crate::diag::{Diagnostics, Report, Sources};
use crate::effect::RunNames;
use crate::facts::Facts;
use crate::graph::Graph;
use crate::program::Program;

pub use given::{Given, bind};

/// The parameters of a plan, checked.
#[derive(Clone, Debug)]
pub struct Bound {
    /// By index in the plan's parameters; sensitive ones marked as such.
    values: Vec<Value>,
}

/// Which run a program is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunId {
    /// The id that the plan gives its run, or the run that it opens. Without one the caller chooses.
    pub id: Option<String>,
    /// The run exists, and the program works on it.
    pub opens: bool,
    /// The run exists, and the program has a run of its own within it.
    pub beside: bool,
}

/// Where a program will run.
#[derive(Debug)]
pub struct Target {
    /// The state root.
    pub root: PathBuf,
    /// The run's id, where the plan does not give one; of a plan beside a run, its own id there.
    pub id: String,
    /// The outputs of the run that the plan opens; null otherwise.
    pub opened: Value,
}

/// The run that a plan makes or opens, known before planning so that the caller can fetch the outputs of one that exists.
pub fn run_id(graph: &Graph<'_>, bound: &Bound) -> Result<RunId, Report> {
    let unit = graph.root();
    let (input, opens, beside) = match (&unit.opens, &unit.run) {
        (Some(opens), _) => (Some(&opens.run), !opens.beside, opens.beside),
        (None, run) => (run.as_ref(), false, false),
    };
    let Some(input) = input else { return Ok(RunId::default()) };
    let mut found = Diagnostics::default();
    let value = eval::of_parameters(input, &bound.values);
    let id = value.as_ref().and_then(|value| instances::checked_id(graph, 0, value, &mut found));
    match id {
        Some(id) => Ok(RunId { id: Some(id), opens, beside }),
        None => Err(found.into_report(graph.sources.clone())),
    }
}

/// Plans every step.
pub fn program(graph: &Graph<'_>, bound: &Bound, facts: &mut Facts, target: Target) -> Result<Program, Report> {
    let run = run_id(graph, bound)?;
    let names = match run.id {
        Some(id) if run.beside => RunNames { root: target.root, id }.beside(target.id),
        id => RunNames { root: target.root, id: id.unwrap_or(target.id) },
    };
    let (opens, beside) = (run.opens, run.beside);
    steps::Planner::new(graph, bound, facts, names, target.opened)
        .plan()
        .map(|program| Program { opens, beside, ..program })
        .map_err(|found| found.into_report(graph.sources.clone()))
}

/// An error before there is a graph to take the texts from.
fn report(found: Diagnostics, sources: Sources) -> Report {
    found.into_report(sources)
}
