//! Pass 6: what is one-way waits for everything that can be taken back.
//!
//! After a commit (an exec, `poststart`) a failure can no longer undo all that was done. So a commit step waits for every reversible step that does
//! not come after it. Two exceptions keep that possible: what comes after *another* commit, which this one does not wait for, is not waited for
//! either (two containers, each with a step after its exec, would wait for each other); and what is released by another run is not waited for.
//!
//! A commit that is itself released by another run cannot wait, since the engine may have gone. The step that arms its process waits in its place.

use super::order::{Forward, Reach};
use crate::graph::{Edge, Edges, Graph, NONE, Why};
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
    let reversible: Vec<u32> =
        all.filter(|item| nature(*item) == Some(Nature::Reversible) && !graph.items[*item as usize].armed).collect();
    let mut reach = Reach::new(graph.items.len());
    let mut more = Vec::new();
    for commit in &commits {
        let waits = stands_in(graph, *commit);
        reach.backward(&graph.edges, [*commit]);
        let before_commit = reach.take();
        reach.backward(&graph.edges, [waits]);
        let before = reach.take();
        let others = commits.iter().filter(|other| *other != commit && !before_commit.has(**other)).copied();
        // Whoever waits in another commit's place must not be waited for through what follows it: it may wait for us.
        let stand_ins = commits.iter().map(|other| stands_in(graph, *other)).filter(|other| !before.has(*other));
        reach.forward(&forward, others.chain(stand_ins).chain([*commit, waits]));
        let after = reach.take();
        let wanted = |item: u32| item != waits && !before.has(item) && !after.has(item);
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
    let mut all = std::mem::take(&mut graph.edges).into_all();
    all.extend(more);
    graph.edges = Edges::new(graph.items.len(), all);
}

/// The step that waits for a commit: itself, or the one that arms its process.
fn stands_in(graph: &Graph<'_>, commit: u32) -> u32 {
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
