//! Uses of plans, each `for_each` unrolled: an instance of a scope for every entry.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::eval::{Decided, Resolve, condition, input};
use super::settle::settle;
use super::steps::Planner;
use crate::diag::{Diagnostic, Diagnostics, Place, Span};
use crate::effect::RunNames;
use crate::graph::{Extras, Graph, Input, NONE, Reference, Scope, Target};
use crate::program;
use crate::types::{Name, Type};
use crate::value::SENSITIVE;

/// An entry of `for_each`.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    pub(super) value: Value,
}

/// A parameter of a nested plan that has been looked at: its value, or `None` if that could not be told.
type Seen = Option<Option<Value>>;

/// A scope for one entry of its `for_each`.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) scope: u32,
    /// The instance around it; [`NONE`] for the first.
    pub(super) parent: u32,
    pub(super) each: Option<Rc<Entry>>,
    /// By parameter.
    params: Vec<Seen>,
    /// Whether its steps run; `None` if that could not be told.
    pub(super) when: Option<Decided>,
    /// An index into the program's runs.
    pub(super) run: u32,
    /// An index into the program's scopes.
    pub(super) shown: u32,
    pub(super) address: Arc<str>,
}

/// The names that an input may use: those of an instance, and of an entry.
pub(super) struct Here<'p, 'g, 'r, 'f> {
    pub(super) planner: &'p mut Planner<'g, 'r, 'f>,
    pub(super) instance: u32,
    pub(super) each: Option<Rc<Entry>>,
}

impl Resolve for Here<'_, '_, '_, '_> {
    fn resolve(&mut self, reference: &Reference) -> Option<Value> {
        let each = self.each.as_deref();
        match reference.target {
            Target::Key => Some(Value::String(each?.key.to_string())),
            Target::Entry => {
                let each = self.each.clone()?;
                self.planner.walked(self.instance, reference, &each.value, 0)
            }
            Target::Param(index) => self.planner.parameter(self.instance, index, reference),
            Target::Step(local) => self.planner.step_output(self.instance, local, reference),
            Target::Run => self.planner.opened_output(self.instance, reference),
        }
    }
}

/// An address with its entry, such as `veth["a"]`, below the address of the instance around it.
pub(super) fn address(around: &str, id: &Arc<str>, each: Option<&Entry>) -> Arc<str> {
    match (around, each) {
        ("", None) => id.clone(),
        ("", Some(each)) => format!("{id}[{}]", json!(each.key)).into(),
        (around, None) => format!("{around}/{id}").into(),
        (around, Some(each)) => format!("{around}/{id}[{}]", json!(each.key)).into(),
    }
}

/// A run's id as a name, if it can be one.
pub(super) fn checked_id(graph: &Graph<'_>, scope: u32, value: &Value, found: &mut Diagnostics) -> Option<String> {
    let unit = graph.unit(scope);
    let span = unit.opens.as_ref().map_or(Span::default(), |opens| opens.span);
    let problem = match value {
        Value::String(text) => Name::parse(text).err(),
        _ => Some("a run's id has to be a name that is known".to_owned()),
    };
    match problem {
        None => value.as_str().map(str::to_owned),
        Some(message) => {
            found.push(Diagnostic::new("run-id", Place::new(unit.file, span), message));
            None
        }
    }
}

impl<'g> Planner<'g, '_, '_> {
    pub(super) fn root_instance(&mut self) {
        let params = vec![None; self.graph.root().params.len()];
        let address = Arc::from("");
        self.shown.push(program::Scope {
            address: Arc::clone(&address),
            plan: self.graph.root().name.to_string(),
            parent: 0,
        });
        let when = Some(Decided::Known(true));
        self.instances.push(Instance { scope: 0, parent: NONE, each: None, params, when, run: 0, shown: 0, address });
        self.by_scope[0] = Some(Rc::from([0]));
    }

    /// The instances of a scope.
    pub(super) fn of_scope(&mut self, scope: u32) -> Rc<[u32]> {
        if let Some(instances) = &self.by_scope[scope as usize] {
            return Rc::clone(instances);
        }
        let Scope { parent, item, .. } = self.graph.scopes[scope as usize];
        let mut all = Vec::new();
        for around in self.of_scope(parent).iter() {
            let step = self.graph.step(item);
            for each in self.entries(*around, step.extras.as_deref()) {
                all.push(self.instance(scope, item, *around, each));
            }
        }
        let all: Rc<[u32]> = all.into();
        self.by_scope[scope as usize] = Some(Rc::clone(&all));
        all
    }

    fn instance(&mut self, scope: u32, item: u32, around: u32, each: Option<Rc<Entry>>) -> u32 {
        let step = self.graph.step(item);
        let when = self.decided(around, step.extras.as_deref(), each.clone());
        let parent = &self.instances[around as usize];
        let address = address(&parent.address, &step.id, each.as_deref());
        let (run, shown) = (parent.run, self.shown.len() as u32);
        let plan = self.graph.unit(scope).name.to_string();
        self.shown.push(program::Scope { address: Arc::clone(&address), plan, parent: parent.shown });
        let params = vec![None; self.graph.unit(scope).params.len()];
        self.instances.push(Instance { scope, parent: around, each, params, when, run, shown, address });
        let instance = self.instances.len() as u32 - 1;
        self.instances[instance as usize].run = self.run_of(scope, instance).unwrap_or(run);
        instance
    }

    /// The run that an instance makes or opens; `None` if it has none of its own.
    fn run_of(&mut self, scope: u32, instance: u32) -> Option<u32> {
        let unit = self.graph.unit(scope);
        let id = |planner: &mut Self, run: &'g Input| {
            let value = input(run, &mut Here { planner, instance, each: None })?;
            checked_id(planner.graph, scope, &value, &mut planner.found)
        };
        if let Some(run) = &unit.run {
            let names = RunNames { root: self.runs[0].root.clone(), id: id(self, run)? };
            if self.runs.contains(&names) {
                let place = self.graph.place(self.graph.scopes[scope as usize].item);
                self.found.push(Diagnostic::new(
                    "same-run",
                    place,
                    format!("two runs of this program are called `{}`", names.id),
                ));
            }
            self.runs.push(names);
            return Some(self.runs.len() as u32 - 1);
        }
        let opens = unit.opens.as_ref()?;
        let id = id(self, &opens.run)?;
        let run = self.runs.iter().position(|run| run.id == id);
        if run.is_none() {
            let place = Place::new(unit.file, opens.span);
            self.found.push(
                Diagnostic::new("no-such-run", place, format!("nothing in this program makes the run `{id}`"))
                    .help("as a step, a plan can only open a run that a step before it makes; an existing run is opened by a plan of its own"),
            );
        }
        run.map(|run| run as u32)
    }

    /// The entries of a step's `for_each`; one without a name if it has none. Nothing where that could not be told.
    pub(super) fn entries(&mut self, instance: u32, extras: Option<&'g Extras>) -> Vec<Option<Rc<Entry>>> {
        let Some((over, span)) = extras.and_then(|extras| extras.for_each.as_ref()) else { return vec![None] };
        if matches!(self.instances[instance as usize].when, Some(Decided::Known(false))) {
            return vec![None];
        }
        let Some(value) = input(over, &mut Here { planner: self, instance, each: None }) else { return Vec::new() };
        let entries: Vec<Entry> = match value {
            Value::Null => Vec::new(),
            Value::Object(map) => map.into_iter().map(|(key, value)| Entry { key: key.into(), value }).collect(),
            Value::Array(items) if items.iter().all(Value::is_string) => {
                items.into_iter().map(|value| Entry { key: value.as_str().unwrap_or_default().into(), value }).collect()
            }
            Value::Array(items) => {
                items.into_iter().enumerate().map(|(n, value)| Entry { key: n.to_string().into(), value }).collect()
            }
            _ => {
                self.report(instance, "wrong-type", *span, "`for_each` wants a list or a mapping".to_owned(), None);
                return Vec::new();
            }
        };
        let mut seen = std::collections::HashSet::new();
        for entry in &entries {
            if !seen.insert(&entry.key) {
                let help = "the entries of a list of words are called by them, so each has to be there once".to_owned();
                self.report(
                    instance,
                    "same-entry",
                    *span,
                    format!("`for_each` has two entries called {}", json!(entry.key)),
                    Some(help),
                );
                return Vec::new();
            }
        }
        entries.into_iter().map(|entry| Some(Rc::new(entry))).collect()
    }

    /// Whether a step in an instance runs.
    pub(super) fn decided(
        &mut self,
        instance: u32,
        extras: Option<&'g Extras>,
        each: Option<Rc<Entry>>,
    ) -> Option<Decided> {
        let around = self.instances[instance as usize].when.clone()?;
        match (around, extras.and_then(|extras| extras.condition.as_ref())) {
            (Decided::Known(false), _) => Some(Decided::Known(false)),
            (around, None) => Some(around),
            (around, Some(written)) => {
                Some(around.and(condition(written, &mut Here { planner: self, instance, each })?))
            }
        }
    }

    /// The value of a parameter, or of a part of it.
    fn parameter(&mut self, instance: u32, index: u32, reference: &Reference) -> Option<Value> {
        if instance == 0 {
            let bound = self.bound;
            return self.walked(instance, reference, bound.value(index as usize)?, 0);
        }
        let at = instance as usize;
        if self.instances[at].params[index as usize].is_none() {
            let value = self.given(instance, index);
            self.instances[at].params[index as usize] = Some(value);
        }
        // Taken out and put back, since walking may have to report.
        let value = self.instances[at].params[index as usize].take()?;
        let result = value.as_ref().and_then(|value| self.walked(instance, reference, value, 0));
        self.instances[at].params[index as usize] = Some(value);
        result
    }

    /// What the step that uses a plan gives to a parameter of it.
    fn given(&mut self, instance: u32, index: u32) -> Option<Value> {
        let Instance { scope, parent, .. } = self.instances[instance as usize];
        let each = self.instances[instance as usize].each.clone();
        let param = &self.graph.unit(scope).params[index as usize];
        let item = self.graph.scopes[scope as usize].item;
        let field = self.graph.step(item).with.iter().find(|field| field.index == index);
        let mut value = match field {
            Some(field) => {
                let mut value = input(&field.value, &mut Here { planner: self, instance: parent, each })?;
                if !field.settled
                    && let Err(misfit) = settle(&mut value, &param.ty, self.facts)
                {
                    let path = if misfit.path.is_empty() { String::new() } else { format!(".{}", misfit.path) };
                    self.report(
                        parent,
                        "wrong-value",
                        field.span,
                        format!("`{}{path}`: {}", param.name, misfit.message),
                        None,
                    );
                    return None;
                }
                value
            }
            None => param.default.clone().unwrap_or_default(),
        };
        if matches!(param.ty.required(), Type::Sensitive(_)) && !value.is_null() && value.get(SENSITIVE).is_none() {
            value = json!({ SENSITIVE: value });
        }
        Some(value)
    }

    /// An output of the run that an instance's plan opens.
    fn opened_output(&mut self, instance: u32, reference: &Reference) -> Option<Value> {
        let scope = self.instances[instance as usize].scope;
        let opened = self.graph.scopes[scope as usize].opened;
        if opened == NONE {
            let value = self.opened.take()?;
            let result = self.walked(instance, reference, &value, 0);
            self.opened = Some(value);
            return result;
        }
        let run = self.instances[instance as usize].run;
        let of = self.of_scope(opened).iter().copied().find(|other| self.instances[*other as usize].run == run)?;
        self.outputs(of, reference, 0)
    }

    /// The outputs of an instance, or what a reference picks of them from segment `taken` on.
    pub(super) fn outputs(&mut self, instance: u32, reference: &Reference, taken: usize) -> Option<Value> {
        use crate::expr::SegmentKind::{Field, Key};
        match self.instances[instance as usize].when {
            Some(Decided::Known(false)) => return Some(Value::Null),
            None => return None,
            _ => {}
        }
        let unit = self.graph.unit(self.instances[instance as usize].scope);
        match reference.path.get(taken) {
            Some(Field(name) | Key(name)) => {
                let Some(output) = unit.outputs.iter().find(|output| output.name == *name) else {
                    return Some(Value::Null);
                };
                let value = input(&output.value, &mut Here { planner: self, instance, each: None })?;
                self.walked(instance, reference, &value, taken + 1)
            }
            Some(_) => Some(Value::Null),
            None => {
                let mut all = serde_json::Map::new();
                for output in &unit.outputs {
                    let value = input(&output.value, &mut Here { planner: self, instance, each: None })?;
                    all.insert(output.name.to_string(), value);
                }
                Some(Value::Object(all))
            }
        }
    }

    /// Whether two instances belong to the same entries of every `for_each` around both.
    pub(super) fn together(&self, a: u32, b: u32) -> bool {
        if a == b {
            return true;
        }
        let (a, b) = (self.ancestors(a), self.ancestors(b));
        for (a, b) in a.iter().rev().zip(b.iter().rev()) {
            if self.instances[*a as usize].scope != self.instances[*b as usize].scope {
                return true;
            }
            if a != b {
                return false;
            }
        }
        true
    }

    /// An instance and all around it, innermost first.
    fn ancestors(&self, instance: u32) -> Vec<u32> {
        let mut all = Vec::new();
        let mut at = instance;
        while at != NONE {
            all.push(at);
            at = self.instances[at as usize].parent;
        }
        all
    }
}
