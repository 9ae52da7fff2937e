//! A dry run made ready for drawing: indices instead of addresses, only the edges that say something, and an order that reads well.
//!
//! A dry run may come from a file, so nothing here trusts it: unknown addresses are left out, and a cycle is cut.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::model::{DryRun, Scope, Step, Why};

/// Beyond this many steps the edges are shown as they are: finding out which ones are implied takes memory with the square of it.
const REDUCED: usize = 4000;

/// See the module.
pub struct View<'a> {
    /// What is shown.
    pub run: &'a DryRun,
    /// By step: the steps that it waits for, without those that the others imply, in reading order.
    pub after: Vec<Vec<(usize, Why)>>,
    /// All steps in reading order.
    pub order: Vec<usize>,
    /// By step: the step that makes its site.
    pub site: Vec<Option<usize>>,
    /// By step: an index into the dry run's scopes.
    pub scope: Vec<usize>,
    /// By scope: the scope around it; the outermost has none.
    pub parent: Vec<Option<usize>>,
}

/// Steps that are read together.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    armed: bool,
    scope: usize,
    site: Option<usize>,
}

impl<'a> View<'a> {
    /// Prepares the dry run.
    pub fn of(run: &'a DryRun) -> Self {
        let index: HashMap<&str, usize> = run.steps.iter().enumerate().map(|(i, s)| (s.address.as_str(), i)).collect();
        let site: Vec<Option<usize>> = (0..)
            .zip(&run.steps)
            .map(|(i, s): (usize, _)| s.site.as_deref().and_then(|a| index.get(a).copied()).filter(|&maker| maker != i))
            .collect();
        let (scope, parent) = scopes(run);
        let mut view = Self { run, after: edges(run, &index, &site), order: Vec::new(), site, scope, parent };
        view.order = view.reading_order();
        view.reduce();
        view
    }

    /// The step.
    pub fn step(&self, i: usize) -> &'a Step {
        &self.run.steps[i]
    }

    /// The scope.
    pub fn scope(&self, i: usize) -> &'a Scope {
        &self.run.scopes[i]
    }

    /// How many scopes are around the scope.
    pub fn depth(&self, scope: usize) -> usize {
        std::iter::successors(self.parent[scope], |&s| self.parent[s]).count()
    }

    /// The scope that is a child of the outermost one and holds `scope`; `None` for the outermost itself.
    pub fn top(&self, scope: usize) -> Option<usize> {
        let mut path = std::iter::successors(Some(scope), |&s| self.parent[s]).filter(|&s| self.parent[s].is_some());
        path.by_ref().last()
    }

    /// Whether `scope` is `outer` or lies within it.
    fn within(&self, scope: usize, outer: usize) -> bool {
        std::iter::successors(Some(scope), |&s| self.parent[s]).any(|s| s == outer)
    }

    /// The address without what the scope around it already says.
    pub fn short(&self, i: usize, scope: usize) -> &'a str {
        let (address, prefix) = (self.step(i).address.as_str(), self.scope(scope).address.as_str());
        match address.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')) {
            Some(rest) if !prefix.is_empty() => rest,
            _ => address,
        }
    }

    /// A legal order that stays with one nested plan and one site for as long as it can.
    fn reading_order(&self) -> Vec<usize> {
        let n = self.run.steps.len();
        let mut waits: Vec<usize> = self.after.iter().map(Vec::len).collect();
        let mut next: Vec<Vec<usize>> = vec![Vec::new(); n];
        for (i, after) in self.after.iter().enumerate() {
            for &(a, _) in after {
                next[a].push(i);
            }
        }
        let group = |i: usize| Group { armed: self.step(i).armed, scope: self.scope[i], site: self.site[i] };
        let mut ready: BTreeMap<Group, BTreeSet<usize>> = BTreeMap::new();
        for i in (0..n).filter(|&i| waits[i] == 0) {
            ready.entry(group(i)).or_default().insert(i);
        }
        let mut order = Vec::with_capacity(n);
        let mut at = Group::default();
        while let Some(chosen) = self.nearest(&ready, at) {
            let Some(i) = ready.get_mut(&chosen).and_then(BTreeSet::pop_first) else { break };
            if ready.get(&chosen).is_some_and(BTreeSet::is_empty) {
                ready.remove(&chosen);
            }
            at = chosen;
            order.push(i);
            for &j in &next[i] {
                waits[j] -= 1;
                if waits[j] == 0 {
                    ready.entry(group(j)).or_default().insert(j);
                }
            }
        }
        // What is left waits for itself, which only a damaged file can say.
        order.extend((0..n).filter(|&i| waits[i] > 0));
        order
    }

    /// The group to read on with: the same one, else one of the same nested plan, else of the closest one around it; then by place.
    /// What is armed comes last: it happens after all the rest.
    fn nearest(&self, ready: &BTreeMap<Group, BTreeSet<usize>>, at: Group) -> Option<Group> {
        if !at.armed && ready.contains_key(&at) {
            return Some(at);
        }
        let distance = |scope: usize| {
            let outward = std::iter::successors(Some(at.scope), |&s| self.parent[s]);
            outward.take_while(|&outer| !self.within(scope, outer)).count()
        };
        let first = |set: &BTreeSet<usize>| set.first().copied().unwrap_or(usize::MAX);
        ready.iter().min_by_key(|(g, set)| (distance(g.scope), g.armed, g.site != at.site, first(set))).map(|(g, _)| *g)
    }

    /// Drops every edge that a longer way implies, and whatever would point backwards.
    fn reduce(&mut self) {
        let n = self.order.len();
        let mut place = vec![0; n];
        self.order.iter().enumerate().for_each(|(at, &i)| place[i] = at);
        for (i, after) in self.after.iter_mut().enumerate() {
            after.retain(|&(a, _)| place[a] < place[i]);
            after.sort_by_key(|&(a, _)| place[a]);
            after.dedup_by_key(|&mut (a, _)| a);
        }
        if n > REDUCED {
            return;
        }
        let words = n.div_ceil(64);
        // By step: a bit for each step that comes before it, however far.
        let mut before = vec![vec![0u64; words]; n];
        for &i in &self.order {
            let mut seen = vec![0u64; words];
            let mut kept = Vec::new();
            for &(a, why) in self.after[i].iter().rev() {
                if seen[a / 64] & (1 << (a % 64)) == 0 {
                    kept.push((a, why));
                    seen.iter_mut().zip(&before[a]).for_each(|(s, b)| *s |= b);
                    seen[a / 64] |= 1 << (a % 64);
                }
            }
            kept.reverse();
            self.after[i] = kept;
            before[i] = seen;
        }
    }
}

fn scopes(run: &DryRun) -> (Vec<usize>, Vec<Option<usize>>) {
    let index: HashMap<&str, usize> = run.scopes.iter().enumerate().map(|(i, s)| (s.address.as_str(), i)).collect();
    let scope = run.steps.iter().map(|s| index.get(s.scope.as_str()).copied().unwrap_or(0)).collect();
    // A parent comes before its children; anything else would be a cycle.
    let parent = run
        .scopes
        .iter()
        .enumerate()
        .map(|(i, s)| (i > 0).then(|| index.get(s.parent.as_str()).copied().filter(|&p| p < i).unwrap_or(0)))
        .collect();
    (scope, parent)
}

/// The edges as written, and those of the one thread that a site has.
fn edges(run: &DryRun, index: &HashMap<&str, usize>, site: &[Option<usize>]) -> Vec<Vec<(usize, Why)>> {
    let mut last: HashMap<usize, usize> = HashMap::new();
    let mut after: Vec<Vec<(usize, Why)>> = Vec::with_capacity(run.steps.len());
    for (i, step) in run.steps.iter().enumerate() {
        let mut edges: Vec<(usize, Why)> = Vec::new();
        for edge in &step.after {
            match index.get(edge.step.as_str()) {
                Some(&a) if a != i && !edges.iter().any(|(b, _)| *b == a) => edges.push((a, edge.why)),
                _ => {}
            }
        }
        if let Some(maker) = site[i] {
            let previous = last.insert(maker, i);
            let implied = previous.map_or((maker, Why::Site), |p| (p, Why::Order));
            if !edges.iter().any(|(a, _)| *a == implied.0) {
                edges.push(implied);
            }
        }
        after.push(edges);
    }
    after
}
