//! Leaves to nodes: inputs evaluated, effects computed.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Bound;
use super::eval::{Decided, input, known, walk};
use super::instances::{Entry, Here, Instance, address};
use super::settle::settle;
use crate::diag::{Diagnostic, Diagnostics, Place, Span, listed};
use crate::effect::RunNames;
use crate::error::PlanError;
use crate::expr::SegmentKind;
use crate::facts::Facts;
use crate::graph::{Extras, Graph, Item, NONE, Reference, Why};
use crate::program::{self, Node, NodeId, Options, Origin, Program};
use crate::step::{Nature, PlannedEffect, Planning, StepKind};

/// What a node is an instance of.
#[derive(Debug)]
pub(super) struct Made {
    instance: u32,
    each: Option<Rc<Entry>>,
}

pub(super) struct Planner<'g, 'r, 'f> {
    pub(super) graph: &'g Graph<'r>,
    pub(super) bound: &'g Bound,
    pub(super) facts: &'f mut Facts,
    pub(super) found: Diagnostics,
    pub(super) runs: Vec<RunNames>,
    /// The outputs of the existing run that the plan opens.
    pub(super) opened: Option<Value>,
    pub(super) instances: Vec<Instance>,
    pub(super) by_scope: Vec<Option<Rc<[u32]>>>,
    pub(super) shown: Vec<program::Scope>,
    nodes: Vec<Node>,
    /// By node.
    made: Vec<Made>,
    /// By item: its first node, and how many there are.
    of_item: Vec<(u32, u32)>,
    /// By item: it could not be planned, which has been reported.
    failed: Vec<bool>,
}

impl<'g, 'r, 'f> Planner<'g, 'r, 'f> {
    pub(super) fn new(
        graph: &'g Graph<'r>,
        bound: &'g Bound,
        facts: &'f mut Facts,
        run: RunNames,
        opened: Value,
    ) -> Self {
        Self {
            graph,
            bound,
            facts,
            found: Diagnostics::default(),
            runs: vec![run],
            opened: Some(opened),
            instances: Vec::new(),
            by_scope: vec![None; graph.scopes.len()],
            shown: Vec::new(),
            nodes: Vec::with_capacity(graph.order.len()),
            made: Vec::with_capacity(graph.order.len()),
            of_item: vec![(0, 0); graph.items.len()],
            failed: vec![false; graph.items.len()],
        }
    }

    pub(super) fn plan(mut self) -> Result<Program, Diagnostics> {
        let graph = self.graph;
        self.root_instance();
        for item in &graph.order {
            self.leaf(*item);
        }
        let outputs = self.outputs_of_run(0);
        let nested = (1..self.runs.len() as u32).map(|run| self.outputs_of_run(run)).collect();
        let main = graph.root().main.iter().flat_map(|local| self.main(0, *local)).collect();
        if !self.found.is_empty() {
            return Err(self.found);
        }
        Ok(Program {
            plan: graph.root().name.to_string(),
            about: graph.root().about.to_string(),
            files: graph.sources.names().map(str::to_owned).collect(),
            runs: self.runs,
            opens: false,
            beside: false,
            stays: graph.root().run.is_some(),
            nodes: self.nodes,
            scopes: self.shown,
            main,
            outputs,
            nested,
            facts: self.facts.recorded().clone(),
        })
    }

    /// The outputs of the plan that makes a run.
    fn outputs_of_run(&mut self, run: u32) -> Value {
        let maker = (0..).zip(&self.instances).find(|(_, instance)| instance.run == run).map(|(index, _)| index);
        let Some(instance) = maker else { return Value::Null };
        let mut outputs = Map::new();
        for output in &self.graph.unit(self.instances[instance as usize].scope).outputs {
            let value = input(&output.value, &mut Here { planner: self, instance, each: None });
            outputs.insert(output.name.to_string(), value.unwrap_or_default());
        }
        Value::Object(outputs)
    }

    /// The nodes of a plan's main step, one for each entry; those of a step which uses a plan are that plan's.
    fn main(&mut self, instance: u32, local: u32) -> Vec<NodeId> {
        let scope = self.instances[instance as usize].scope;
        let item = self.graph.scopes[scope as usize].first + local;
        let child = self.graph.items[item as usize].child;
        if child == NONE {
            return self.nodes_in(item, instance).collect();
        }
        let graph = self.graph;
        let mut inside = self.of_scope(child).to_vec();
        inside.retain(|inner| self.instances[*inner as usize].parent == instance);
        inside
            .into_iter()
            .flat_map(|inner| graph.unit(child).main.iter().map(move |local| (inner, *local)))
            .flat_map(|(inner, local)| self.main(inner, local))
            .collect()
    }

    fn leaf(&mut self, item: u32) {
        let scope = self.graph.items[item as usize].scope;
        let Some(kind) = self.graph.kind(item) else { return };
        let extras = self.graph.step(item).extras.as_deref();
        let first = self.nodes.len() as u32;
        for instance in self.of_scope(scope).iter() {
            for each in self.entries(*instance, extras) {
                if self.node(item, kind, *instance, each).is_none() {
                    self.failed[item as usize] = true;
                }
            }
        }
        self.of_item[item as usize] = (first, self.nodes.len() as u32 - first);
    }

    /// Plans one node. `None` if it could not be planned: that has been reported, here or where the reason is.
    fn node(&mut self, item: u32, kind: &'r StepKind, instance: u32, each: Option<Rc<Entry>>) -> Option<()> {
        let step = self.graph.step(item);
        let extras = step.extras.as_deref();
        let address = address(&self.instances[instance as usize].address, &step.id, each.as_deref());
        let Item { site, armed, .. } = self.graph.items[item as usize];
        if site != NONE && self.failed[site as usize] {
            return None;
        }
        let site = if site == NONE { None } else { self.nodes_in(site, instance).next() };
        let without_process = site.is_some_and(|site| self.nodes[site as usize].skipped);
        let when = if without_process { Decided::Known(false) } else { self.decided(instance, extras, each.clone())? };
        let skipped = matches!(when, Decided::Known(false));
        let (effects, output) = if skipped {
            (Vec::new(), Value::Null)
        } else {
            self.planned(item, kind, instance, each.clone(), &address, site)?
        };
        let place = self.graph.place(item);
        let line = self.graph.sources.get(place.file).line_column(place.span.start).0 as u32;
        let Instance { run, shown, .. } = self.instances[instance as usize];
        self.nodes.push(Node {
            address,
            kind: kind.kind,
            nature: kind.nature,
            origin: Origin { file: place.file.0 as u16, line },
            scope: shown,
            run,
            site,
            makes_site: kind.makes_site,
            armed,
            after: self.after(item, instance),
            skipped,
            when: match when {
                Decided::Later(condition) if kind.nature != Nature::Pure => Some(Box::new(condition)),
                _ => None,
            },
            options: extras.and_then(options),
            effects,
            output,
        });
        self.made.push(Made { instance, each });
        Some(())
    }

    /// The effects and the output of a step that runs.
    fn planned(
        &mut self,
        item: u32,
        kind: &'r StepKind,
        instance: u32,
        each: Option<Rc<Entry>>,
        address: &Arc<str>,
        site: Option<NodeId>,
    ) -> Option<(Vec<PlannedEffect>, Value)> {
        let with = self.with(item, kind, instance, each)?;
        let site = site.map(|site| self.nodes[site as usize].address.clone());
        let run = &self.runs[self.instances[instance as usize].run as usize];
        let mut planning = Planning::new(self.facts, run, address.clone(), site);
        match kind.plan(Value::Object(with), &mut planning) {
            Ok(output) => Some((planning.effects, output)),
            Err(error) => {
                self.blame(item, kind, address, instance, error);
                None
            }
        }
    }

    fn with(
        &mut self,
        item: u32,
        kind: &StepKind,
        instance: u32,
        each: Option<Rc<Entry>>,
    ) -> Option<Map<String, Value>> {
        let step = self.graph.step(item);
        let Some(structure) = &step.input else { return Some(Map::new()) };
        let mut with = Map::with_capacity(step.with.len());
        let mut whole = true;
        for given in &step.with {
            let field = &structure.fields[given.index as usize];
            let value = input(&given.value, &mut Here { planner: self, instance, each: each.clone() });
            let Some(mut value) = value else {
                whole = false;
                continue;
            };
            if kind.nature == Nature::Pure && !known(&value) {
                let message =
                    format!("`{}` is known only once its step has run, and this step runs while planning", field.name);
                self.report(instance, "pure-handle", given.span, message, None);
                whole = false;
            } else if !given.settled
                && let Err(misfit) = settle(&mut value, &field.ty, self.facts)
            {
                let path = if misfit.path.is_empty() { String::new() } else { format!(".{}", misfit.path) };
                self.report(
                    instance,
                    "wrong-value",
                    given.span,
                    format!("`{}{path}`: {}", field.name, misfit.message),
                    None,
                );
                whole = false;
            }
            with.insert(field.name.clone(), value);
        }
        whole.then_some(with)
    }

    /// Reports what a step has against its input, at the field that it names.
    fn blame(&mut self, item: u32, kind: &StepKind, address: &Arc<str>, instance: u32, error: PlanError) {
        let step = self.graph.step(item);
        let top = error.field.split(['.', '[']).next().unwrap_or_default();
        let index = step.input.as_ref().and_then(|input| input.fields.iter().position(|field| field.name == top));
        let span =
            step.with.iter().find(|field| Some(field.index as usize) == index).map_or(step.span, |field| field.span);
        let message =
            if error.field.is_empty() { error.message } else { format!("`{}`: {}", error.field, error.message) };
        self.report(instance, "cannot-plan", span, format!("`{address}` ({}): {message}", kind.kind), error.help);
    }

    pub(super) fn report(
        &mut self,
        instance: u32,
        code: &'static str,
        span: Span,
        message: String,
        help: Option<String>,
    ) {
        let file = self.graph.unit(self.instances[instance as usize].scope).file;
        self.found.push(Diagnostic::new(code, Place::new(file, span), message).help_if(help));
    }

    /// The nodes that a node of an item waits for.
    fn after(&self, item: u32, instance: u32) -> Box<[NodeId]> {
        let mut after = Vec::new();
        for edge in self.graph.edges.of(item) {
            // A commit waits for every entry of what can be taken back, whosever it is.
            if edge.why == Why::Commit {
                let (first, count) = self.of_item[edge.from as usize];
                after.extend(first..first + count);
            } else {
                after.extend(self.nodes_in(edge.from, instance));
            }
        }
        after.into()
    }

    /// The nodes of an item that belong to the same entries as an instance.
    fn nodes_in(&self, item: u32, instance: u32) -> impl Iterator<Item = NodeId> {
        let (first, count) = self.of_item[item as usize];
        (first..first + count).filter(move |node| self.together(self.made[*node as usize].instance, instance))
    }

    /// The output of a step of an instance, or what a reference picks of it.
    pub(super) fn step_output(&mut self, instance: u32, local: u32, reference: &Reference) -> Option<Value> {
        let scope = self.instances[instance as usize].scope;
        let item = self.graph.scopes[scope as usize].first + local;
        if self.failed[item as usize] {
            return None;
        }
        let repeated = self.graph.step(item).extras.as_ref().is_some_and(|extras| extras.for_each.is_some());
        match (self.graph.items[item as usize].child, repeated) {
            (NONE, false) => {
                let node = self.nodes_in(item, instance).next()?;
                let output = std::mem::take(&mut self.nodes[node as usize].output);
                let value = self.walked(instance, reference, &output, 0);
                self.nodes[node as usize].output = output;
                value
            }
            (NONE, true) => {
                let nodes: Vec<NodeId> = self.nodes_in(item, instance).collect();
                let key = |planner: &Self, node: NodeId| {
                    planner.made[node as usize].each.as_ref().map(|each| each.key.clone())
                };
                let of = |planner: &mut Self, node: NodeId, taken| {
                    let output = planner.nodes[node as usize].output.clone();
                    planner.walked(instance, reference, &output, taken)
                };
                self.entry(instance, reference, &nodes, key, of)
            }
            (child, false) => {
                let inner = self
                    .of_scope(child)
                    .iter()
                    .copied()
                    .find(|inner| self.instances[*inner as usize].parent == instance)?;
                self.outputs(inner, reference, 0)
            }
            (child, true) => {
                let inner: Vec<u32> = self
                    .of_scope(child)
                    .iter()
                    .copied()
                    .filter(|i| self.instances[*i as usize].parent == instance)
                    .collect();
                let key = |planner: &Self, inner: u32| {
                    planner.instances[inner as usize].each.as_ref().map(|each| each.key.clone())
                };
                self.entry(instance, reference, &inner, key, |planner, inner, taken| {
                    planner.outputs(inner, reference, taken)
                })
            }
        }
    }

    /// Picks the entry that a reference names, or makes a map of all.
    fn entry(
        &mut self,
        instance: u32,
        reference: &Reference,
        all: &[u32],
        key: impl Fn(&Self, u32) -> Option<Box<str>>,
        mut value: impl FnMut(&mut Self, u32, usize) -> Option<Value>,
    ) -> Option<Value> {
        let Some(SegmentKind::Field(name) | SegmentKind::Key(name)) = reference.path.first() else {
            let mut map = Map::new();
            for one in all {
                let Some(key) = key(self, *one) else { continue };
                map.insert(key.into(), value(self, *one, 0)?);
            }
            return Some(Value::Object(map));
        };
        if let Some(one) = all.iter().find(|one| key(self, **one).as_ref() == Some(name)) {
            return value(self, *one, 1);
        }
        // A repeated step that is skipped as a whole has one entry without a name.
        if all.iter().any(|one| key(self, *one).is_none()) {
            return Some(Value::Null);
        }
        let keys: Vec<Box<str>> = all.iter().filter_map(|one| key(self, *one)).collect();
        let help = if keys.is_empty() {
            "it has none".to_owned()
        } else {
            format!("there are {}", listed(keys.iter().map(|key| &**key)))
        };
        self.report(
            instance,
            "no-entry",
            reference.span,
            format!("`for_each` made no entry {}", json!(name)),
            Some(help),
        );
        None
    }

    /// Follows a reference's path from segment `taken` on.
    pub(super) fn walked(
        &mut self,
        instance: u32,
        reference: &Reference,
        value: &Value,
        taken: usize,
    ) -> Option<Value> {
        match walk(value, &reference.path[taken..]) {
            Ok(value) => Some(value.into_owned()),
            Err(entries) => {
                let message = format!("the list has {entries} entries, and this asks for one after them");
                self.report(instance, "no-entry", reference.span, message, None);
                None
            }
        }
    }
}

fn options(extras: &Extras) -> Option<Box<Options>> {
    let options = Options {
        timeout: extras.timeout,
        retries: extras.retries,
        backoff: extras.backoff,
        continue_on_error: extras.continue_on_error,
    };
    let plain = Options { backoff: options.backoff, ..Options::default() };
    (options != plain).then(|| Box::new(options))
}
