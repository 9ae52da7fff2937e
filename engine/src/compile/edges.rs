//! Pass 4: what waits for what.

use std::collections::HashMap;

use super::expand::Leaves;
use super::order::{Forward, Reach, ranks};
use crate::diag::Place;
use crate::graph::{Edge, Edges, Graph, Item, NONE, Why};

/// The edges between leaves that are written in the plans, or follow from the kinds.
pub(super) fn direct(graph: &mut Graph<'_>) {
    let mut all = Vec::with_capacity(graph.items.len());
    let mut leaves = Leaves::new(graph);
    for to in 0..graph.items.len() as u32 {
        let Item { scope, child, site, .. } = graph.items[to as usize];
        if child != NONE {
            continue;
        }
        let step = graph.step(to);
        let file = graph.unit(scope).file;
        step.references(&mut |reference| {
            let place = Place::new(file, reference.span);
            leaves.of(scope, reference, &mut |from| all.push(Edge { to, from, why: Why::Reference, place }));
        });
        for (needed, span) in &step.needs {
            let from = graph.scopes[scope as usize].first + needed;
            if graph.items[from as usize].child == NONE {
                all.push(Edge { to, from, why: Why::Needs, place: Place::new(file, *span) });
            }
        }
        if site != NONE {
            let span =
                step.extras.as_ref().and_then(|extras| extras.site.as_ref()).map_or(step.span, |(_, span)| *span);
            all.push(Edge { to, from: site, why: Why::Site, place: Place::new(file, span) });
        }
    }
    kinds(graph, &mut all);
    graph.edges = Edges::new(graph.items.len(), all);
}

/// Which steps the order of kinds is about: those of one process, or the host's steps of one plan.
fn together(item: Item) -> (bool, u32) {
    if item.site == NONE { (false, item.scope) } else { (true, item.site) }
}

/// The orderings that kinds declare.
fn kinds(graph: &Graph<'_>, all: &mut Vec<Edge>) {
    let mut ordered = Vec::new();
    for to in 0..graph.items.len() as u32 {
        if graph.kind(to).is_some_and(|kind| !kind.after.is_empty()) {
            ordered.push(to);
        }
    }
    if ordered.is_empty() {
        return;
    }
    let mut by_kind: HashMap<((bool, u32), &str), Vec<u32>> = HashMap::new();
    for item in 0..graph.items.len() as u32 {
        if let Some(kind) = graph.kind(item) {
            by_kind.entry((together(graph.items[item as usize]), kind.kind)).or_default().push(item);
        }
    }
    for to in ordered {
        let Some(kind) = graph.kind(to) else { continue };
        // A step in a process may also be ordered after the host's steps of its plan that prepare for it.
        let item = graph.items[to as usize];
        for before in kind.after {
            for from in by_kind.get(&(together(item), *before)).into_iter().flatten() {
                all.push(Edge { to, from: *from, why: Why::Kind, place: graph.place(to) });
            }
        }
    }
}

/// Marks what another run releases: the steps of a process that come after the one which arms it.
///
/// That is what waits for the arming step, and what is written after it unless that step waits for it. Edges on both sides of the arming step keep
/// it so.
pub(super) fn arm(graph: &mut Graph<'_>) {
    let arming: Vec<u32> = (0..graph.items.len() as u32)
        .filter(|item| graph.kind(*item).is_some_and(|kind| kind.arms))
        .filter(|item| graph.items[*item as usize].site != NONE)
        .collect();
    if arming.is_empty() {
        return;
    }
    let rank = ranks(graph);
    let forward = Forward::new(graph);
    let mut pins = Vec::new();
    let mut done: Vec<u32> = Vec::new();
    for arms in arming {
        let site = graph.items[arms as usize].site;
        if done.contains(&site) {
            continue;
        }
        done.push(site);
        let mut reach = Reach::new(graph.items.len());
        reach.forward(&forward, [arms]);
        let after = reach.take();
        reach.backward(&graph.edges, [arms]);
        let before = reach.take();
        for item in 0..graph.items.len() as u32 {
            if item == arms || graph.items[item as usize].site != site {
                continue;
            }
            let late = rank[item as usize] > rank[arms as usize];
            let armed = after.has(item) || (late && !before.has(item));
            graph.items[item as usize].armed = armed;
            let (to, from) = if armed { (item, arms) } else { (arms, item) };
            pins.push(Edge { to, from, why: Why::Arms, place: graph.place(to) });
        }
    }
    add(graph, pins);
}

/// The edges of steps that use whole plans: what decides about such a step comes before all of the plan's leaves, and what waits for it waits for
/// all of them, those that another run releases excepted.
pub(super) fn between_plans(graph: &mut Graph<'_>) {
    if graph.scopes.len() == 1 {
        return;
    }
    let forward = Forward::new(graph);
    let mut ends = Ends { graph, forward: &forward, last: HashMap::new() };
    let mut more = Vec::new();
    for to in 0..graph.items.len() as u32 {
        let Item { scope, child, .. } = graph.items[to as usize];
        let mut before = Vec::new();
        ends.needed(to, &mut before);
        if child != NONE {
            let step = graph.step(to);
            let file = graph.unit(scope).file;
            let mut leaves = Leaves::new(graph);
            step.deciding(&mut |reference| {
                let place = Place::new(file, reference.span);
                leaves.of(scope, reference, &mut |from| before.push((from, Why::Reference, place)));
            });
            let opened = graph.scopes[child as usize].opened;
            if let (true, Some(opens)) = (opened != NONE, &graph.unit(child).opens) {
                let place = Place::new(graph.unit(child).file, opens.span);
                before.extend(ends.last(opened).iter().map(|from| (*from, Why::Opens, place)));
            }
        }
        if before.is_empty() {
            continue;
        }
        let first = if child == NONE { vec![to] } else { ends.first(child) };
        for to in first {
            more.extend(before.iter().map(|(from, why, place)| Edge { to, from: *from, why: *why, place: *place }));
        }
    }
    add(graph, more);
}

pub(super) fn add(graph: &mut Graph<'_>, more: Vec<Edge>) {
    let mut all = std::mem::take(&mut graph.edges).into_all();
    all.extend(more);
    graph.edges = Edges::new(graph.items.len(), all);
}

/// The first and last leaves of scopes.
struct Ends<'g, 'r> {
    graph: &'g Graph<'r>,
    forward: &'g Forward,
    last: HashMap<u32, Vec<u32>>,
}

impl Ends<'_, '_> {
    /// What `needs` asks to come before an item: leaves are known already where both are leaves.
    fn needed(&mut self, to: u32, before: &mut Vec<(u32, Why, Place)>) {
        let graph = self.graph;
        let Item { scope, child, .. } = graph.items[to as usize];
        for (needed, span) in &graph.step(to).needs {
            let from = graph.scopes[scope as usize].first + needed;
            let place = Place::new(graph.unit(scope).file, *span);
            match graph.items[from as usize].child {
                NONE if child == NONE => {}
                NONE => before.push((from, Why::Needs, place)),
                inner => before.extend(self.last(inner).iter().map(|from| (*from, Why::Needs, place))),
            }
        }
    }

    /// The leaves of a scope that wait for no other leaf of it.
    fn first(&self, scope: u32) -> Vec<u32> {
        let mut all = self.inside(scope);
        all.retain(|leaf| !self.graph.edges.of(*leaf).iter().any(|edge| self.within(edge.from, scope)));
        all
    }

    /// The leaves of a scope for which no other leaf of it waits. What another run releases does not count: this run does not see it end.
    fn last(&mut self, scope: u32) -> &[u32] {
        if !self.last.contains_key(&scope) {
            let awaited = |leaf: u32| !self.graph.items[leaf as usize].armed;
            let mut all = self.inside(scope);
            all.retain(|leaf| {
                awaited(*leaf) && !self.forward.of(*leaf).iter().any(|next| awaited(*next) && self.within(*next, scope))
            });
            self.last.insert(scope, all);
        }
        &self.last[&scope]
    }

    fn inside(&self, scope: u32) -> Vec<u32> {
        let mut leaves = Vec::new();
        let mut scopes = vec![scope];
        while let Some(scope) = scopes.pop() {
            let first = self.graph.scopes[scope as usize].first;
            for item in first..first + self.graph.unit(scope).steps.len() as u32 {
                match self.graph.items[item as usize].child {
                    NONE => leaves.push(item),
                    child => scopes.push(child),
                }
            }
        }
        leaves
    }

    fn within(&self, leaf: u32, scope: u32) -> bool {
        let mut at = self.graph.items[leaf as usize].scope;
        while at != NONE {
            if at == scope {
                return true;
            }
            at = self.graph.scopes[at as usize].parent;
        }
        false
    }
}
