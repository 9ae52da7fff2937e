//! From plans to a [`Graph`], in small passes. Each pass goes on after a mistake (what is unknown is then of any type), so that every problem of
//! every file is reported in one go.
//!
//! 1. [`load`]: read the plan and every plan that it uses; refuse recursion.
//! 2. [`unit`]: check each plan by itself: kinds, fields, types, references, conditions, site rules, unused parameters.
//! 3. [`expand`]: one scope for every use of a plan; which process each step happens in; which run each plan opens.
//! 4. [`edges`]: what waits for what.
//! 5. [`programs`]: what waits for a program comes after its exec.
//! 6. [`order`]: refuse cycles, showing the whole path; put the leaves into order.
//! 7. [`barrier`]: what is one-way for others than the run waits for everything that can be taken back.

mod barrier;
mod condition;
mod edges;
mod expand;
mod load;
mod names;
mod order;
mod programs;
mod rules;
mod unit;
mod value;
mod with;
mod words;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use crate::diag::{Diagnostics, Report, Sources};
use crate::graph::{Edges, Graph};
use crate::step::Registry;

pub(crate) use unit::constant;
pub use words::struct_names;

/// Plans that are built into the program, by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Library<'a> {
    /// Names and texts.
    pub plans: &'a [(&'a str, &'a str)],
}

impl<'a> Library<'a> {
    /// The text of a plan.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.plans.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }
}

/// Compiles the plan in a file.
pub fn file<'r>(path: &Path, registry: &'r Registry, library: Library<'_>) -> Result<Graph<'r>, Report> {
    compile(registry, library, |loader| loader.root_file(path))
}

/// Compiles a plan from its text. `name` stands for the file in messages; plans that it uses by path are looked for beside it.
pub fn text<'r>(name: &str, text: &str, registry: &'r Registry, library: Library<'_>) -> Result<Graph<'r>, Report> {
    compile(registry, library, |loader| loader.root_text(name, text))
}

fn compile<'r>(
    registry: &'r Registry,
    library: Library<'_>,
    root: impl FnOnce(&mut load::Loader<'_>),
) -> Result<Graph<'r>, Report> {
    let mut sources = Sources::default();
    let mut found = Diagnostics::default();
    let mut loader = load::Loader::new(library, &mut sources, &mut found);
    root(&mut loader);
    let loaded = loader.finish();
    let units = unit::check_all(loaded, registry, &sources, &mut found);
    let graph = if found.is_empty() {
        assemble(units, &mut found)
    } else {
        refuse_written_cycles(units, &mut found);
        None
    };
    match graph {
        Some(graph) if found.is_empty() => Ok(Graph { sources, ..graph }),
        _ => Err(found.into_report(sources)),
    }
}

/// The cycles of plans that have other mistakes: those that are written in them, which no correction of the others can mend. What follows from
/// kinds may look otherwise once a step is in the process that it was meant for.
fn refuse_written_cycles(units: Vec<crate::graph::Unit<'_>>, found: &mut Diagnostics) {
    // What leads nowhere has been reported where it is written.
    let mut reported = Diagnostics::default();
    let Some((scopes, items)) = expand::expand(&units, &mut reported) else { return };
    let mut graph =
        Graph { sources: Sources::default(), units, scopes, items, order: Vec::new(), edges: Edges::default() };
    expand::sites(&mut graph, &mut reported);
    edges::direct(&mut graph);
    let written = graph.edges.all().iter().copied().filter(|edge| edge.why != crate::graph::Why::Kind).collect();
    graph.edges = Edges::new(graph.items.len(), written);
    order::refuse_cycles(&graph, found);
}

fn assemble<'r>(units: Vec<crate::graph::Unit<'r>>, found: &mut Diagnostics) -> Option<Graph<'r>> {
    let (scopes, items) = expand::expand(&units, found)?;
    let mut graph =
        Graph { sources: Sources::default(), units, scopes, items, order: Vec::new(), edges: Edges::default() };
    expand::sites(&mut graph, found);
    edges::direct(&mut graph);
    if order::refuse_cycles(&graph, found) {
        return None;
    }
    edges::arm(&mut graph);
    programs::follow(&mut graph);
    edges::between_plans(&mut graph);
    if order::refuse_cycles(&graph, found) || programs::refuse_rings(&mut graph, found) {
        return None;
    }
    barrier::commits(&mut graph);
    graph.order = order::sorted(&graph);
    Some(graph)
}
