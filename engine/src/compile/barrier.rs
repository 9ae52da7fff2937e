//! Pass 7: what is one-way for others than this run waits for everything that can be taken back.
//!
//! After a commit (an exec, `poststart`) a failure can no longer undo all that was done. So a commit step waits for every reversible step that does
//! not come after it. Exceptions keep that possible: what comes after *another* commit, which this one does not wait for, is not waited for either
//! (two containers, each with a step after its exec, would wait for each other), nor is what comes after a step that waits for something: that may be
//! what the commit brings about. What is released by another run is not waited for.
//!
//! A container that the run itself ends is nobody else's: its exec waits only for what is done to its own process. What is unrelated goes on beside it.
//!
//! A commit that is itself released by another run cannot wait, since the engine may have gone. The step that arms its process waits in its place.

use super::edges::add;
use super::order::{Forward, Reach, Set};
use super::programs::{makers, stands_in};
use crate::graph::{Edge, Graph, NONE, Why};
use crate::step::Nature;

/// Adds the edges.
pub(super) fn commits(graph: &mut Graph<'_>) {
    let nature = |item: u32| graph.kind(item).map(|kind| kind.nature);
    let all = 0..graph.items.len() as u32;
    let commits: Vec<u32> = all.clone().filter(|item| nature(*item) == Some(Nature::Commit)).collect();
    if commits.is_empty() {
        return;
    }
    let forward = Forward::new(graph);
    let reversible: Vec<u32> = all
        .clone()
        .filter(|item| nature(*item) == Some(Nature::Reversible) && !graph.items[*item as usize].armed)
        .collect();
    let waiting: Vec<u32> = all.filter(|item| nature(*item) == Some(Nature::Waits)).collect();
    let mut reach = Reach::new(graph.items.len());
    let mut more = Vec::new();
    for commit in &commits {
        let waits = stands_in(graph, *commit);
        let Some(candidates) = candidates(graph, *commit, &forward, &mut reach) else { continue };
        reach.backward(&graph.edges, [*commit]);
        let before_commit = reach.take();
        reach.backward(&graph.edges, [waits]);
        let before = reach.take();
        let others = commits.iter().filter(|other| *other != commit && !before_commit.has(**other)).copied();
        // Whoever waits in another commit's place must not be waited for through what follows it: it may wait for us.
        let stand_ins = commits.iter().map(|other| stands_in(graph, *other)).filter(|other| !before.has(*other));
        let awaiting = waiting.iter().filter(|wait| !before.has(**wait)).copied();
        reach.forward(&forward, others.chain(stand_ins).chain(awaiting).chain([*commit, waits]));
        let after = reach.take();
        let wanted = |item: u32| candidates.has(item) && item != waits && !before.has(item) && !after.has(item);
        let mut chosen = vec![false; graph.items.len()];
        reversible.iter().filter(|item| wanted(**item)).for_each(|item| chosen[*item as usize] = true);
        for from in &reversible {
            // Waiting for the last of a chain is waiting for the chain.
            let last = !forward.of(*from).iter().any(|next| chosen[*next as usize]);
            if chosen[*from as usize] && last {
                more.push(Edge { to: waits, from: *from, why: Why::Commit, place: graph.place(*commit) });
            }
        }
    }
    add(graph, more);
}

/// What a commit may wait for: everything, where it is one-way for others; else what is done to its process. `None`: nothing.
fn candidates(graph: &Graph<'_>, commit: u32, forward: &Forward, reach: &mut Reach) -> Option<Set> {
    let site = graph.items[commit as usize].site;
    let own: Vec<u32> = match site {
        NONE => makers(graph, commit).into_iter().map(|(_, maker)| maker).collect(),
        site => vec![site],
    };
    if own.is_empty() || own.iter().any(|maker| outlives(graph, *maker)) {
        return Some(Set::all(graph.items.len()));
    }
    // To end or signal a process of the run's own is nothing that the rest has to be certain for.
    (site != NONE).then(|| {
        reach.forward(forward, own);
        reach.take()
    })
}

/// Whether a process belongs to a run that is kept, or to one that exists already: others see what becomes of it.
fn outlives(graph: &Graph<'_>, maker: u32) -> bool {
    let mut scope = graph.items[maker as usize].scope;
    while scope != NONE {
        let unit = graph.unit(scope);
        if unit.run.is_some() || unit.opens.is_some() {
            return true;
        }
        scope = graph.scopes[scope as usize].parent;
    }
    false
}
