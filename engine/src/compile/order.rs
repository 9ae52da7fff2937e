//! Pass 6: no cycles, and an order in which every leaf comes after what it waits for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use crate::diag::{Diagnostic, Diagnostics};
use crate::graph::{Edge, Edges, Graph, NONE, Why};

/// Edges by the leaf that comes first.
pub(super) struct Forward {
    starts: Vec<u32>,
    to: Vec<u32>,
}

impl Forward {
    pub(super) fn new(graph: &Graph<'_>) -> Self {
        let mut starts = vec![0; graph.items.len() + 1];
        for edge in graph.edges.all() {
            starts[edge.from as usize + 1] += 1;
        }
        for item in 0..graph.items.len() {
            starts[item + 1] += starts[item];
        }
        let mut fill = starts.clone();
        let mut to = vec![0; graph.edges.all().len()];
        for edge in graph.edges.all() {
            to[fill[edge.from as usize] as usize] = edge.to;
            fill[edge.from as usize] += 1;
        }
        Self { starts, to }
    }

    pub(super) fn of(&self, item: u32) -> &[u32] {
        &self.to[self.starts[item as usize] as usize..self.starts[item as usize + 1] as usize]
    }
}

/// A set of items.
pub(super) struct Set(Vec<bool>);

impl Set {
    pub(super) fn all(items: usize) -> Self {
        Self(vec![true; items])
    }

    pub(super) fn has(&self, item: u32) -> bool {
        self.0[item as usize]
    }
}

/// What can be reached along edges, the start itself left out unless a cycle leads back to it.
pub(super) struct Reach {
    seen: Vec<bool>,
    open: Vec<u32>,
}

impl Reach {
    pub(super) fn new(items: usize) -> Self {
        Self { seen: vec![false; items], open: Vec::new() }
    }

    pub(super) fn forward(&mut self, forward: &Forward, from: impl IntoIterator<Item = u32>) {
        self.open.extend(from);
        while let Some(item) = self.open.pop() {
            for next in forward.of(item) {
                if !std::mem::replace(&mut self.seen[*next as usize], true) {
                    self.open.push(*next);
                }
            }
        }
    }

    pub(super) fn backward(&mut self, edges: &Edges, from: impl IntoIterator<Item = u32>) {
        self.open.extend(from);
        while let Some(item) = self.open.pop() {
            for edge in edges.of(item) {
                if !std::mem::replace(&mut self.seen[edge.from as usize], true) {
                    self.open.push(edge.from);
                }
            }
        }
    }

    pub(super) fn take(&mut self) -> Set {
        let empty = vec![false; self.seen.len()];
        Set(std::mem::replace(&mut self.seen, empty))
    }
}

/// The place of each item in the order of the files: a nested plan's steps stand where the step that uses it stands.
pub(super) fn ranks(graph: &Graph<'_>) -> Vec<u32> {
    let mut ranks = vec![0; graph.items.len()];
    if graph.scopes.len() == 1 {
        ranks.iter_mut().zip(0..).for_each(|(rank, item)| *rank = item);
        return ranks;
    }
    let mut next = 0;
    // Scopes to go on with, and the next item of each.
    let mut open = vec![(0, graph.scopes[0].first)];
    while let Some((scope, item)) = open.pop() {
        let end = graph.scopes[scope as usize].first + graph.unit(scope).steps.len() as u32;
        if item == end {
            continue;
        }
        open.push((scope, item + 1));
        ranks[item as usize] = next;
        next += 1;
        let child = graph.items[item as usize].child;
        if child != NONE {
            open.push((child, graph.scopes[child as usize].first));
        }
    }
    ranks
}

/// The leaves in order; fewer than there are if there is a cycle.
pub(super) fn sorted(graph: &Graph<'_>) -> Vec<u32> {
    let rank = ranks(graph);
    let forward = Forward::new(graph);
    let mut waits: Vec<u32> = (0..graph.items.len() as u32).map(|item| graph.edges.of(item).len() as u32).collect();
    let leaf = |item: &u32| graph.items[*item as usize].child == NONE;
    let mut ready: BinaryHeap<Reverse<(u32, u32)>> = (0..graph.items.len() as u32)
        .filter(leaf)
        .filter(|item| waits[*item as usize] == 0)
        .map(|item| Reverse((rank[item as usize], item)))
        .collect();
    let mut order = Vec::with_capacity(graph.items.len());
    while let Some(Reverse((_, item))) = ready.pop() {
        order.push(item);
        for next in forward.of(item) {
            waits[*next as usize] -= 1;
            if waits[*next as usize] == 0 {
                ready.push(Reverse((rank[*next as usize], *next)));
            }
        }
    }
    order
}

/// Reports every cycle, each with its whole path. Cycles that share steps are reported one at a time.
pub(super) fn refuse_cycles(graph: &Graph<'_>, found: &mut Diagnostics) -> bool {
    let mut left = vec![true; graph.items.len()];
    for item in sorted(graph) {
        left[item as usize] = false;
    }
    // Neither do plan steps count, nor leaves that only come after a cycle: peel off what no other remaining leaf waits for.
    let mut waited: Vec<u32> = vec![0; graph.items.len()];
    for (item, child) in graph.items.iter().map(|item| item.child).enumerate() {
        left[item] &= child == NONE;
    }
    for edge in graph.edges.all() {
        if left[edge.to as usize] && left[edge.from as usize] {
            waited[edge.from as usize] += 1;
        }
    }
    let mut ends: Vec<u32> =
        (0..graph.items.len() as u32).filter(|i| left[*i as usize] && waited[*i as usize] == 0).collect();
    while let Some(item) = ends.pop() {
        left[item as usize] = false;
        for edge in graph.edges.of(item) {
            if left[edge.from as usize] {
                waited[edge.from as usize] -= 1;
                if waited[edge.from as usize] == 0 {
                    ends.push(edge.from);
                }
            }
        }
    }
    let mut any = false;
    for item in 0..graph.items.len() as u32 {
        if left[item as usize] {
            any = true;
            let Some(cycle) = shortest(graph, item, &left) else {
                // Between two cycles, and on neither.
                left[item as usize] = false;
                continue;
            };
            for edge in &cycle {
                left[edge.to as usize] = false;
            }
            found.push(explain(graph, &cycle));
        }
    }
    any
}

/// The shortest cycle through an item, as edges: each one's `from` is the next one's `to`.
fn shortest(graph: &Graph<'_>, start: u32, left: &[bool]) -> Option<Vec<Edge>> {
    let mut came: HashMap<u32, Edge> = HashMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(item) = open.pop_front() {
        for edge in graph.edges.of(item).iter().filter(|edge| left[edge.from as usize]) {
            if came.contains_key(&edge.from) {
                continue;
            }
            came.insert(edge.from, *edge);
            if edge.from == start {
                let mut path = vec![*edge];
                while path[path.len() - 1].to != start {
                    path.push(came[&path[path.len() - 1].to]);
                }
                path.reverse();
                return Some(path);
            }
            open.push_back(edge.from);
        }
    }
    None
}

/// How many edges of a cycle are shown with their places; its path is always shown whole.
const SHOWN: usize = 12;

fn explain(graph: &Graph<'_>, cycle: &[Edge]) -> Diagnostic {
    let address = |item| graph.address(item);
    let path: Vec<String> = cycle.iter().map(|edge| address(edge.to)).chain([address(cycle[0].to)]).collect();
    let what = |edge: &Edge| {
        let (to, from) = (address(edge.to), address(edge.from));
        match edge.why {
            Why::Reference => format!("`{to}` uses `{from}`"),
            Why::Needs => format!("`{to}` needs `{from}`"),
            Why::Site => format!("`{to}` happens in the process that `{from}` makes"),
            Why::Kind => format!("`{to}` comes after `{from}` by its kind"),
            Why::Opens => format!("`{to}` works on the run that `{from}` belongs to"),
            Why::Arms => format!("`{to}` is on the other side of `{from}` in their process"),
            Why::Exec => format!("`{to}` replaces the process in which `{from}` happens"),
            Why::Program => format!("`{to}` waits for a process for which `{from}` comes first"),
            Why::Commit => format!("`{to}` is one-way and waits for `{from}`"),
        }
    };
    let message = match cycle {
        [_] => format!("`{}` waits for itself", path[0]),
        _ => format!("these steps wait for each other: {}", path.join(" → ")),
    };
    let mut diagnostic = Diagnostic::new("cycle", cycle[0].place, message)
        .label(what(&cycle[0]))
        .help("no order of the steps can satisfy this: remove one of these dependencies");
    for edge in cycle.iter().skip(1).take(SHOWN) {
        diagnostic = diagnostic.related(edge.place, what(edge));
    }
    diagnostic
}
