//! Pass 3: one scope for every use of a plan.

use std::collections::HashSet;

use crate::diag::{Diagnostic, Diagnostics, Place, Span};
use crate::graph::{Graph, Input, Item, NONE, Reference, Scope, Target, Unit, Uses};

/// The most steps that a program may have. A plan that uses a plan twice that uses a plan twice … grows fast.
const MAX_ITEMS: usize = 1_000_000;

/// Makes the scopes and their items.
pub(super) fn expand(units: &[Unit<'_>], found: &mut Diagnostics) -> Option<(Vec<Scope>, Vec<Item>)> {
    let root = units.len().checked_sub(1)? as u32;
    let mut scopes = vec![Scope { unit: root, parent: NONE, item: NONE, first: 0, opened: NONE }];
    let mut items: Vec<Item> = Vec::with_capacity(units[root as usize].steps.len());
    let mut at = 0;
    while at < scopes.len() {
        let unit = &units[scopes[at].unit as usize];
        scopes[at].first = items.len() as u32;
        for step in &unit.steps {
            let mut child = NONE;
            if let Uses::Plan(used) = step.uses {
                child = scopes.len() as u32;
                scopes.push(Scope { unit: used, parent: at as u32, item: items.len() as u32, first: 0, opened: NONE });
            }
            items.push(Item { scope: at as u32, child, site: NONE, armed: false });
        }
        if items.len() > MAX_ITEMS || scopes.len() > MAX_ITEMS {
            let place = Place::new(units[root as usize].file, Span::default());
            found.push(Diagnostic::new(
                "too-large",
                place,
                format!("more than {MAX_ITEMS} steps, those of the plans that it uses included"),
            ));
            return None;
        }
        at += 1;
    }
    Some((scopes, items))
}

/// Finds the process of each step that happens in one, and the scope whose run each scope opens.
pub(super) fn sites(graph: &mut Graph<'_>, found: &mut Diagnostics) {
    for item in 0..graph.items.len() as u32 {
        let Some((reference, span)) = graph.step(item).extras.as_ref().and_then(|extras| extras.site.as_ref()) else {
            continue;
        };
        let scope = graph.items[item as usize].scope;
        let maker =
            leaf_of(graph, scope, reference).filter(|leaf| graph.kind(*leaf).is_some_and(|kind| kind.makes_site));
        if let Some(maker) = maker {
            graph.items[item as usize].site = maker;
        } else {
            let place = Place::new(graph.unit(scope).file, *span);
            found.push(
                Diagnostic::new("site", place, "this does not lead to a step that makes a process")
                    .help("`site` is a reference to such a step, or to a parameter or output that is one"),
            );
        }
    }
    for scope in 1..graph.scopes.len() as u32 {
        if let Some(opens) = &graph.unit(scope).opens {
            graph.scopes[scope as usize].opened = maker_of_run(graph, scope, opens.unit);
        }
    }
}

/// The scope, if it is part of this program, that makes the run which `scope` opens: the last one before it, outwards, that uses the plan.
fn maker_of_run(graph: &Graph<'_>, scope: u32, unit: u32) -> u32 {
    let mut inner = scope;
    while graph.scopes[inner as usize].parent != NONE {
        let item = graph.scopes[inner as usize].item;
        let parent = graph.scopes[inner as usize].parent;
        let first = graph.scopes[parent as usize].first;
        for sibling in (first..item).rev() {
            let child = graph.items[sibling as usize].child;
            if child != NONE && graph.scopes[child as usize].unit == unit {
                return child;
            }
        }
        inner = parent;
    }
    NONE
}

/// Follows a reference through parameters and outputs to the one step whose output it is.
pub(super) fn leaf_of(graph: &Graph<'_>, scope: u32, reference: &Reference) -> Option<u32> {
    let whole = |input: &Input| match input {
        Input::Reference(inner) => Some(inner.as_ref().clone()),
        _ => None,
    };
    match reference.target {
        Target::Param(index) => {
            let Scope { parent, item, .. } = graph.scopes[scope as usize];
            if parent == NONE {
                return None;
            }
            let field = graph.step(item).with.iter().find(|field| field.index == index)?;
            leaf_of(graph, parent, &whole(&field.value)?)
        }
        Target::Step(local) => {
            let item = graph.scopes[scope as usize].first + local;
            // Which of the processes of a repeated step is meant is not known before its entries are.
            if graph.step(item).extras.as_ref().is_some_and(|extras| extras.for_each.is_some()) {
                return None;
            }
            let child = graph.items[item as usize].child;
            if child == NONE {
                return Some(item);
            }
            leaf_of(graph, child, &whole(output(graph, child, reference)?)?)
        }
        Target::Run => {
            let opened = graph.scopes[scope as usize].opened;
            if opened == NONE {
                return None;
            }
            leaf_of(graph, opened, &whole(output(graph, opened, reference)?)?)
        }
        Target::Key | Target::Entry => None,
    }
}

/// The output of a scope that a reference from outside picks.
fn output<'g>(graph: &'g Graph<'_>, scope: u32, reference: &Reference) -> Option<&'g Input> {
    use crate::expr::SegmentKind::{Field, Key};
    // The first segment is the key where the step is repeated.
    let repeated =
        graph.step(graph.scopes[scope as usize].item).extras.as_ref().is_some_and(|extras| extras.for_each.is_some());
    let Some(Field(name) | Key(name)) = reference.path.get(usize::from(repeated)) else { return None };
    graph.unit(scope).outputs.iter().find(|output| output.name == *name).map(|output| &output.value)
}

/// The leaves whose outputs may go into a reference: through the parameters and outputs of plans, each followed only where it is used.
///
/// What has been followed once is not followed again: outputs that use other outputs twice, level upon level, would take exponential time.
pub(super) struct Leaves<'g, 'r> {
    graph: &'g Graph<'r>,
    followed: HashSet<(u32, usize)>,
}

impl<'g, 'r> Leaves<'g, 'r> {
    pub(super) fn new(graph: &'g Graph<'r>) -> Self {
        Self { graph, followed: HashSet::new() }
    }

    /// Calls `f` with each leaf at least once.
    pub(super) fn of(&mut self, scope: u32, reference: &Reference, f: &mut dyn FnMut(u32)) {
        self.followed.clear();
        self.follow(scope, reference, f);
    }

    fn follow(&mut self, scope: u32, reference: &Reference, f: &mut dyn FnMut(u32)) {
        let graph = self.graph;
        match reference.target {
            Target::Key | Target::Entry => {}
            Target::Param(index) => {
                let Scope { parent, item, .. } = graph.scopes[scope as usize];
                if parent == NONE {
                    return;
                }
                let step = graph.step(item);
                if let Some(field) = step.with.iter().find(|field| field.index == index) {
                    self.input(parent, &field.value, f);
                    // What goes in may be an entry of the step's own `for_each`.
                    if let Some((input, _)) = step.extras.as_ref().and_then(|extras| extras.for_each.as_ref()) {
                        self.input(parent, input, f);
                    }
                }
            }
            Target::Step(local) => {
                let item = graph.scopes[scope as usize].first + local;
                match graph.items[item as usize].child {
                    NONE => f(item),
                    child => self.outputs(child, reference, f),
                }
            }
            Target::Run => match graph.scopes[scope as usize].opened {
                NONE => {}
                opened => self.outputs(opened, reference, f),
            },
        }
    }

    fn outputs(&mut self, scope: u32, reference: &Reference, f: &mut dyn FnMut(u32)) {
        match output(self.graph, scope, reference) {
            Some(input) => self.input(scope, input, f),
            None => {
                for output in &self.graph.unit(scope).outputs {
                    self.input(scope, &output.value, f);
                }
            }
        }
    }

    fn input(&mut self, scope: u32, input: &'g Input, f: &mut dyn FnMut(u32)) {
        // The address tells inputs apart: they do not move while the graph is borrowed.
        if self.followed.insert((scope, std::ptr::from_ref(input) as usize)) {
            input.references(&mut |inner| self.follow(scope, inner, f));
        }
    }
}
