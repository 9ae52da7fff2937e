//! Pass 2: each plan by itself.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use super::load::{Loaded, PREFIX, is_yaml};
use super::names::{Here, Names, Shape, conjuncts};
use super::value::{Checker, article, holds_handle};
use super::with::{with_kind, with_plan, with_unknown};
use super::words::Words;
use crate::diag::{Diagnostic, Diagnostics, FileId, Place, Sources, Span, did_you_mean, listed};
use crate::expr;
use crate::graph::{Extras, Input, Opens, Output, Param, Step, Unit, Uses};
use crate::plan::{self, ArgKind, Plan};
use crate::step::{Nature, Place as Where, Registry, StepKind};
use crate::types::{self, Struct, Type};

/// Checks all plans. A plan comes after those that it uses, so their parameters and outputs are known.
pub(super) fn check_all<'r>(
    loaded: Vec<Loaded>,
    registry: &'r Registry,
    sources: &Sources,
    found: &mut Diagnostics,
) -> Vec<Unit<'r>> {
    let mut words = Words::new(registry);
    let mut units = Vec::with_capacity(loaded.len());
    for loaded in loaded {
        let unit = check(&loaded, &units, registry, sources, &mut words, found);
        units.push(unit);
    }
    units
}

fn check<'r>(
    loaded: &Loaded,
    units: &[Unit<'r>],
    registry: &'r Registry,
    sources: &Sources,
    words: &mut Words<'r>,
    found: &mut Diagnostics,
) -> Unit<'r> {
    let plan = &loaded.plan;
    let text = sources.get(plan.file).text();
    let params = parameters(plan, text, words, found);
    let uses: Vec<Uses<'r>> =
        (0..).zip(&plan.steps).map(|(index, step)| what_it_uses(index, step, loaded, registry, plan, found)).collect();
    let shapes: Vec<Shape<'_>> = plan.steps.iter().zip(&uses).map(|(step, uses)| shape(step, *uses, units)).collect();
    let ids: HashMap<&str, u32> = plan.steps.iter().map(|step| &*step.id.value).zip(0..).collect();
    let used: Vec<Cell<bool>> = params.iter().map(|_| Cell::new(false)).collect();
    let run = loaded.opens.map(|unit| &units[unit as usize].output);
    let names =
        Names { file: plan.file, text: Some(text), params: &params, used: &used, ids: &ids, shapes: &shapes, run };
    let checks = Checks { plan, names: &names, units, uses: &uses };
    let steps = (0..).zip(&plan.steps).map(|(index, step)| checks.step(index, step, found)).collect();
    let (outputs, output) = checks.outputs(found);
    let main = plan.main.iter().filter_map(|main| checks.id(main, "main", found)).collect();
    let run = plan.run.as_ref().map(|run| checks.run_id(run, found));
    let opens = plan.opens.as_ref().and_then(|opens| {
        let run = checks.run_id(&opens.run, found);
        Some(Opens { run, unit: loaded.opens?, beside: opens.beside, span: opens.span })
    });
    if let (Some(_), Some(opens)) = (&plan.run, &plan.opens) {
        let place = Place::new(plan.file, opens.span);
        found.push(
            Diagnostic::new("run-and-opens", place, "a plan makes a run or opens one, not both")
                .help("remove `run` or `opens`"),
        );
    }
    unused(plan, &used, found);
    Unit {
        name: plan.name.value.as_ref().into(),
        about: plan.about.clone(),
        file: plan.file,
        params,
        steps,
        outputs,
        output,
        main,
        run,
        opens,
    }
}

fn parameters(plan: &Plan, text: &str, words: &mut Words<'_>, found: &mut Diagnostics) -> Vec<Param> {
    let mut params = Vec::with_capacity(plan.params.len());
    for param in &plan.params {
        let plain = words.resolve(&param.ty.value).unwrap_or_else(|(message, help)| {
            found.push(Diagnostic::new("unknown-type", Place::new(plan.file, param.ty.span), message).help(help));
            Type::Any
        });
        let default = param
            .default
            .as_ref()
            .and_then(|arg| constant(plan.file, Some(text), arg, &plain.clone().nullable(), &param.name.value, found));
        let ty = if param.sensitive { Type::Sensitive(Arc::new(plain)) } else { plain };
        let optional = !param.required && param.default.as_ref().is_none_or(|arg| matches!(arg.kind, ArgKind::Null));
        let ty = if optional { ty.nullable() } else { ty };
        let name = param.name.value.clone();
        params.push(Param {
            name,
            ty,
            default,
            required: param.required,
            about: param.about.clone(),
            span: param.name.span,
        });
    }
    params
}

/// The value of a default, or of a parameter that is given from outside: it refers to nothing, so no name is known to it.
pub(crate) fn constant(
    file: FileId,
    text: Option<&str>,
    arg: &plan::Arg,
    ty: &Type,
    name: &str,
    found: &mut Diagnostics,
) -> Option<serde_json::Value> {
    let ids = HashMap::new();
    let names = Names { file, text, params: &[], used: &[], ids: &ids, shapes: &[], run: None };
    let mut checker = Checker { names: &names, here: Here::default(), pure: false, found };
    match checker.value(arg, ty, name) {
        Input::Value(value) => Some(value),
        _ => None,
    }
}

fn what_it_uses<'r>(
    index: u32,
    step: &plan::Step,
    loaded: &Loaded,
    registry: &'r Registry,
    plan: &Plan,
    found: &mut Diagnostics,
) -> Uses<'r> {
    let name = &*step.uses.value;
    if name.is_empty() {
        return Uses::Unknown;
    }
    if name.starts_with(PREFIX) {
        return loaded.uses.get(&index).map_or(Uses::Unknown, |unit| Uses::Plan(*unit));
    }
    if let Some(kind) = registry.step(name) {
        return Uses::Kind(kind);
    }
    let help = if name.contains('/') || is_yaml(name) {
        format!("to use a plan write `{PREFIX}{name}`")
    } else if let Some(near) = did_you_mean(name, registry.steps().map(|kind| kind.kind)) {
        format!("did you mean `{near}`?")
    } else {
        "`lifecycle steps` lists the kinds".to_owned()
    };
    found.push(
        Diagnostic::new("unknown-kind", Place::new(plan.file, step.uses.span), format!("no step kind `{name}`"))
            .help(help),
    );
    Uses::Unknown
}

fn shape<'p>(step: &'p plan::Step, uses: Uses<'_>, units: &[Unit<'_>]) -> Shape<'p> {
    let output = match uses {
        Uses::Kind(kind) => kind.output().clone(),
        Uses::Plan(unit) => units[unit as usize].output.clone(),
        Uses::Unknown => Type::Any,
    };
    let extras = step.extras.as_deref();
    let mut conditions = Vec::new();
    if let Some(condition) = extras.and_then(|extras| extras.condition.as_ref()) {
        conjuncts(&condition.value, &mut conditions);
    }
    Shape {
        output,
        repeated: extras.is_some_and(|extras| extras.for_each.is_some()),
        may_fail: extras.and_then(|extras| extras.continue_on_error.as_ref()).is_some_and(|at| at.value),
        conditions,
    }
}

/// A parameter that nothing refers to is a mistake, or will be one: whoever gives it a value expects something to happen.
fn unused(plan: &Plan, used: &[Cell<bool>], found: &mut Diagnostics) {
    // What could not be read may have been the reference.
    let unread = |d: &Diagnostic| {
        d.place.file == plan.file
            && (d.code == "expression"
                || (d.code.starts_with("yaml") && d.code != "yaml-number")
                || d.code == "wrong-shape"
                || d.code == "unknown-key")
    };
    if found.iter().any(unread) {
        return;
    }
    for (param, used) in plan.params.iter().zip(used) {
        if !used.get() {
            let name = &param.name.value;
            found.push(
                Diagnostic::new(
                    "unused-parameter",
                    Place::new(plan.file, param.name.span),
                    format!("nothing uses the parameter `{name}`"),
                )
                .help(format!("refer to it as `${{params.{name}}}`, or remove it")),
            );
        }
    }
}

/// What the checks of a plan's parts share.
pub(super) struct Checks<'c, 'p, 'r> {
    pub(super) plan: &'c Plan,
    pub(super) names: &'c Names<'p>,
    units: &'c [Unit<'r>],
    pub(super) uses: &'c [Uses<'r>],
}

impl<'r> Checks<'_, '_, 'r> {
    fn step(&self, index: u32, step: &plan::Step, found: &mut Diagnostics) -> Step<'r> {
        let uses = self.uses[index as usize];
        let kind = match uses {
            Uses::Kind(kind) => Some(kind),
            _ => None,
        };
        let pure = kind.is_some_and(|kind| kind.nature == Nature::Pure);
        let shape = &self.names.shapes[index as usize];
        let written = step.extras.as_deref();
        let each =
            written.and_then(|extras| extras.for_each.as_ref()).map(|arg| (self.for_each(arg, pure, found), arg.span));
        let here = Here { each: each.as_ref().map(|((_, ty), _)| ty), conditions: &shape.conditions, condition: false };
        let mut checker = Checker { names: self.names, here, pure, found };
        let with = match uses {
            Uses::Kind(kind) => with_kind(&mut checker, step, kind),
            Uses::Plan(unit) => with_plan(&mut checker, step, &self.units[unit as usize]),
            Uses::Unknown => with_unknown(&mut checker, step),
        };
        let input = match kind.map(StepKind::input) {
            Some(Type::Struct(structure)) => Some(Arc::clone(structure)),
            _ => None,
        };
        let needs = self.needs(step, pure, found);
        let extras = written.map(|written| self.extras(step, written, &here, uses, found));
        let extras =
            extras.map(|extras| Box::new(Extras { for_each: each.map(|((input, _), span)| (input, span)), ..extras }));
        if written.is_none_or(|written| written.site.is_none()) && kind.is_some_and(|kind| kind.place == Where::Inside)
        {
            self.lacks_site(step, found);
        }
        Step {
            id: step.id.value.as_ref().into(),
            span: step.id.span,
            uses,
            input,
            with,
            needs,
            extras,
            output: shape.output.clone(),
        }
    }

    /// What a step is repeated over, and the type of `each.value`.
    fn for_each(&self, arg: &plan::Arg, pure: bool, found: &mut Diagnostics) -> (Input, Type) {
        let mut checker = Checker { names: self.names, here: Here::default(), pure, found };
        match &arg.kind {
            ArgKind::Text(expr::Template::Reference(written)) => match self.names.resolve(written, Here::default()) {
                Ok((reference, ty)) => (Input::Reference(Box::new(reference)), self.entry(written, &ty, found)),
                Err(diagnostic) => {
                    found.push(diagnostic);
                    (Input::Value(serde_json::Value::Null), Type::Any)
                }
            },
            ArgKind::List(items) => {
                let ty = common(items.iter().map(|item| self.type_of(item)));
                (checker.value(arg, &Type::List(Arc::new(Type::Any)), "for_each"), ty)
            }
            ArgKind::Map(entries) => {
                let ty = common(entries.iter().map(|(_, value)| self.type_of(value)));
                (checker.value(arg, &Type::Map(Arc::new(Type::Any)), "for_each"), ty)
            }
            // Of the wrong shape: reported when the plan was read.
            _ => (Input::Value(serde_json::Value::Null), Type::Any),
        }
    }

    fn entry(&self, written: &expr::Reference, ty: &Type, found: &mut Diagnostics) -> Type {
        let place = self.names.place(written.span);
        if matches!(ty.required(), Type::Handle(_) | Type::Later(..)) {
            found.push(
                Diagnostic::new("for-each-later", place, format!("`{written}` is known only once its step has run"))
                    .help("`for_each` needs to know its entries while planning"),
            );
            return Type::Any;
        }
        // A list or map that is null has no entries.
        match ty.required() {
            Type::List(item) | Type::Map(item) => item.as_ref().clone(),
            Type::Struct(structure) => common(structure.fields.iter().map(|field| field.ty.clone())),
            Type::Any => Type::Any,
            other => {
                let message = format!("`for_each` wants a list or a mapping, and `{written}` is {}", article(other));
                found.push(Diagnostic::new("wrong-type", place, message).label(other.to_string()));
                Type::Any
            }
        }
    }

    fn needs(&self, step: &plan::Step, pure: bool, found: &mut Diagnostics) -> Box<[(u32, Span)]> {
        let mut needs = Vec::with_capacity(step.needs.len());
        for word in &step.needs {
            let Some(index) = self.id(word, "needs", found) else { continue };
            let waits_in_vain = matches!(self.uses[index as usize], Uses::Kind(kind) if kind.nature != Nature::Pure);
            if pure && waits_in_vain {
                let message = format!("`{}` runs while planning, before `{}` does anything", step.id.value, word.value);
                let diagnostic = Diagnostic::new("pure-needs", Place::new(self.plan.file, word.span), message);
                found.push(
                    diagnostic.help(
                        "a step that only reads cannot wait for one that changes something: remove it from `needs`",
                    ),
                );
                continue;
            }
            needs.push((index, word.span));
        }
        needs.into()
    }

    /// The step of that id.
    fn id(&self, word: &plan::Word, what: &str, found: &mut Diagnostics) -> Option<u32> {
        let index = self.names.ids.get(&*word.value).copied();
        if index.is_none() {
            let near =
                did_you_mean(&word.value, self.names.ids.keys().copied()).map(|near| format!("did you mean `{near}`?"));
            let help = near
                .unwrap_or_else(|| format!("steps are {}", listed(self.plan.steps.iter().map(|step| &*step.id.value))));
            let message = format!("`{what}` names `{}`, and the plan has no such step", word.value);
            found.push(Diagnostic::new("unknown-step", Place::new(self.plan.file, word.span), message).help(help));
        }
        index
    }

    fn outputs(&self, found: &mut Diagnostics) -> (Vec<Output>, Type) {
        let mut outputs = Vec::with_capacity(self.plan.outputs.len());
        let mut fields = Vec::with_capacity(self.plan.outputs.len());
        for (name, arg) in &self.plan.outputs {
            let mut checker = Checker { names: self.names, here: Here::default(), pure: false, found };
            let value = checker.value(arg, &Type::Any, &name.value);
            outputs.push(Output { name: name.value.clone(), value });
            let ty = self.type_of(arg);
            fields.push(types::Field {
                name: name.value.to_string(),
                about: String::new(),
                ty,
                required: true,
                default: None,
            });
        }
        let name = self.plan.name.value.to_string();
        (outputs, Type::Struct(Arc::new(Struct { name, about: String::new(), fields, open: false })))
    }

    /// The type of a value that is checked elsewhere.
    fn type_of(&self, arg: &plan::Arg) -> Type {
        match &arg.kind {
            ArgKind::Null => Type::Any.nullable(),
            ArgKind::Bool(_) => Type::Bool,
            ArgKind::Int(_) => Type::Int,
            ArgKind::Float(_) => Type::Float,
            ArgKind::Text(expr::Template::Literal(_)) => Type::String,
            ArgKind::Text(expr::Template::Reference(written)) => {
                self.names.resolve(written, Here::default()).map_or(Type::Any, |(_, ty)| ty)
            }
            ArgKind::Text(expr::Template::Parts(parts)) => {
                let later = |part: &expr::Part| match part {
                    expr::Part::Reference(written) => self
                        .names
                        .resolve(written, Here::default())
                        .is_ok_and(|(_, ty)| holds_handle(&ty) || matches!(ty, Type::Sensitive(_) | Type::Text)),
                    expr::Part::Text(_) => false,
                };
                if parts.iter().any(later) { Type::Text } else { Type::String }
            }
            ArgKind::List(items) => Type::List(Arc::new(common(items.iter().map(|item| self.type_of(item))))),
            ArgKind::Map(entries) => {
                let field = |(name, arg): &(plan::Word, plan::Arg)| types::Field {
                    name: name.value.to_string(),
                    about: String::new(),
                    ty: self.type_of(arg),
                    required: true,
                    default: None,
                };
                let fields = entries.iter().map(field).collect();
                Type::Struct(Arc::new(Struct { name: "mapping".to_owned(), about: String::new(), fields, open: false }))
            }
        }
    }

    /// A run's id has to be known before anything is planned.
    fn run_id(&self, arg: &plan::Arg, found: &mut Diagnostics) -> Input {
        let mut other = None;
        arg.references(&mut |written| {
            if *written.root != *"params" {
                other = other.or(Some(written.span));
            }
        });
        if let Some(span) = other {
            let diagnostic =
                Diagnostic::new("run-id", self.names.place(span), "a run's id is known before its steps are planned");
            found.push(diagnostic.help("it can only be made of parameters"));
            return Input::Value(serde_json::Value::Null);
        }
        let mut checker = Checker { names: self.names, here: Here::default(), pure: true, found };
        checker.value(arg, &Type::Name, "run")
    }
}

/// The type that all have, or any.
fn common(mut types: impl Iterator<Item = Type>) -> Type {
    let Some(first) = types.next() else { return Type::Any };
    if types.all(|ty| ty == first) { first } else { Type::Any }
}
