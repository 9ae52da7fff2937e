//! Pass 5: what waits for a program comes after its exec.
//!
//! A process does not end, and its program does not answer, before the program has begun. So whatever waits for that comes after the step that execs
//! it; where another run releases that step, after the one that arms it, and after whatever releases it in this program.

use super::edges::add;
use super::expand::Leaves;
use super::order::refuse_cycles;
use crate::diag::{Diagnostics, Place};
use crate::graph::{Edge, Edges, Graph, Input, NONE, Why};
use crate::step::Nature;

/// Adds the edges.
pub(super) fn follow(graph: &mut Graph<'_>) {
    let mut more = Vec::new();
    for (to, place, maker) in waits(graph) {
        for exec in execs(graph).filter(|exec| graph.items[*exec as usize].site == maker) {
            let begun = stands_in(graph, exec);
            let released = if begun == exec { Vec::new() } else { releasing(graph, exec) };
            more.extend([begun].into_iter().chain(released).map(|from| Edge { to, from, why: Why::Program, place }));
        }
    }
    add(graph, more);
}

/// Reports what can make no progress: a step in a process that is another program by then, and a wait for a process that still has to do what comes
/// after the wait. True if there is any.
pub(super) fn refuse_rings(graph: &mut Graph<'_>, found: &mut Diagnostics) -> bool {
    let mut more = Vec::new();
    for exec in execs(graph) {
        // Of two programs that each have a condition one may be meant to run.
        let either = |from: &u32| {
            graph.kind(*from).is_some_and(|kind| kind.nature == Nature::Commit) && conditional(graph, *from)
        };
        for from in within(graph, graph.items[exec as usize].site).filter(|from| *from != exec && !either(from)) {
            more.push(Edge { to: exec, from, why: Why::Exec, place: graph.place(exec) });
        }
    }
    for (to, place, maker) in waits(graph) {
        for from in within(graph, maker).filter(|from| !graph.items[*from as usize].armed) {
            more.push(Edge { to, from, why: Why::Program, place });
        }
    }
    if more.is_empty() {
        return false;
    }
    let kept = std::mem::take(&mut graph.edges).into_all();
    more.splice(0..0, kept.iter().copied());
    graph.edges = Edges::new(graph.items.len(), more);
    let any = refuse_cycles(graph, found);
    graph.edges = Edges::new(graph.items.len(), kept);
    any
}

/// The steps that happen in the process which a step makes.
fn within(graph: &Graph<'_>, site: u32) -> impl Iterator<Item = u32> {
    (0..graph.items.len() as u32).filter(move |item| graph.items[*item as usize].site == site)
}

fn conditional(graph: &Graph<'_>, item: u32) -> bool {
    graph.step(item).extras.as_ref().is_some_and(|extras| extras.condition.is_some())
}

/// The steps that exec a program in the process that another step made.
pub(super) fn execs(graph: &Graph<'_>) -> impl Iterator<Item = u32> {
    let is = |item: &u32| {
        graph.items[*item as usize].site != NONE && graph.kind(*item).is_some_and(|kind| kind.nature == Nature::Commit)
    };
    (0..graph.items.len() as u32).filter(is)
}

/// The steps that wait for a process which this program makes: the step, where it names the process, and the one that makes it.
fn waits(graph: &Graph<'_>) -> Vec<(u32, Place, u32)> {
    let mut all = Vec::new();
    for item in 0..graph.items.len() as u32 {
        if graph.kind(item).is_some_and(|kind| kind.nature == Nature::Waits) {
            all.extend(makers(graph, item).into_iter().map(|(place, maker)| (item, place, maker)));
        }
    }
    all
}

/// The steps of this program that make the process which a step is about.
pub(super) fn makers(graph: &Graph<'_>, item: u32) -> Vec<(Place, u32)> {
    let step = graph.step(item);
    let Some(name) = graph.kind(item).and_then(|kind| kind.process) else { return Vec::new() };
    let index = step.input.as_ref().and_then(|input| input.fields.iter().position(|field| field.name == name));
    let Some(field) = step.with.iter().find(|field| Some(field.index as usize) == index) else { return Vec::new() };
    let scope = graph.items[item as usize].scope;
    let place = Place::new(graph.unit(scope).file, field.span);
    let mut found = Vec::new();
    let mut leaves = Leaves::new(graph);
    let mut take = |input: &Input| {
        input.references(&mut |reference| {
            leaves.of(scope, reference, &mut |leaf| {
                if graph.kind(leaf).is_some_and(|kind| kind.makes_site) {
                    found.push((place, leaf));
                }
            });
        });
    };
    take(&field.value);
    // It may be an entry of what the step is repeated over.
    if let Some((each, _)) = step.extras.as_ref().and_then(|extras| extras.for_each.as_ref()) {
        take(each);
    }
    found
}

/// The step that is over once a one-way step may happen: itself, or the one that arms its process.
pub(super) fn stands_in(graph: &Graph<'_>, commit: u32) -> u32 {
    let item = graph.items[commit as usize];
    if !item.armed {
        return commit;
    }
    let arms = |edge: &&Edge| {
        let from = graph.items[edge.from as usize];
        edge.why == Why::Arms
            || (from.site == item.site && from.site != NONE && graph.kind(edge.from).is_some_and(|kind| kind.arms))
    };
    graph.edges.of(commit).iter().find(arms).map_or(commit, |edge| edge.from)
}

/// The steps of this program that release an armed one: those of plans that open the run to which it belongs.
fn releasing(graph: &Graph<'_>, armed: u32) -> Vec<u32> {
    let mut runs = Vec::new();
    let mut scope = graph.items[armed as usize].scope;
    while scope != NONE {
        runs.push(scope);
        scope = graph.scopes[scope as usize].parent;
    }
    let opens = |item: &u32| {
        let opened = graph.scopes[graph.items[*item as usize].scope as usize].opened;
        opened != NONE && runs.contains(&opened) && graph.kind(*item).is_some_and(|kind| kind.releases)
    };
    (0..graph.items.len() as u32).filter(opens).collect()
}
