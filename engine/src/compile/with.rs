//! What a step is given, against the fields of its kind or the parameters of the plan that it uses.

use super::value::Checker;
use crate::diag::{Diagnostic, did_you_mean, listed};
use serde_json::Value;

use crate::graph::{Field, Input, Param, Target, Unit};
use crate::plan::{self, ArgKind};
use crate::step::StepKind;
use crate::types::{self, Type};

pub(super) fn with_kind(checker: &mut Checker<'_, '_>, step: &plan::Step, kind: &StepKind) -> Box<[Field]> {
    let Type::Struct(structure) = kind.input() else {
        return with_unknown(checker, step);
    };
    let of = format!("`{}`", kind.kind);
    let mut with = Vec::with_capacity(step.with.len());
    for (word, arg) in &step.with {
        if let Some(index) = structure.fields.iter().position(|field| *field.name == *word.value) {
            let want = &structure.fields[index].ty;
            let problems = checker.found.len();
            let value = checker.value(arg, want, &word.value);
            if checker.found.len() == problems {
                written_out(checker, kind, &word.value, arg, &value);
            }
            with.push(Field { index: index as u32, settled: checker.is_settled(arg, want), value, span: arg.span });
        } else {
            checker.unknown_field(
                &word.value,
                word.span,
                structure.fields.iter().map(|field| field.name.as_str()),
                &of,
            );
            // What it refers to is used nevertheless.
            checker.value(arg, &Type::Any, &word.value);
        }
    }
    let given = |field: &&types::Field| step.with.iter().all(|(word, _)| *word.value != *field.name);
    let missing: Vec<&types::Field> =
        structure.fields.iter().filter(|field| field.required && !field.ty.accepts_null()).filter(given).collect();
    lacks(checker, step, &of, missing.iter().map(|field| (field.name.as_str(), &field.ty, field.about.as_str())));
    with.into()
}

/// Checks what of a field is written out, be it in a parameter's default: a list item by item, so that each mistake is shown where it is.
fn written_out(checker: &mut Checker<'_, '_>, kind: &StepKind, name: &str, arg: &plan::Arg, value: &Input) {
    let names = checker.names;
    let mut check = |span, value: &Value, of: &str| {
        if !value.is_null()
            && let Err(error) = kind.check(name, value)
        {
            let message = format!("`{}`{of}: {}", error.field, error.message);
            checker.report(Diagnostic::new("wrong-value", names.place(span), message).help_if(error.help));
        }
    };
    match (value, &arg.kind) {
        (Input::Reference(reference), _) => {
            if let (Target::Param(index), []) = (reference.target, &*reference.path) {
                let param = &names.params[index as usize];
                if let Some(default) = param.default.as_ref().filter(|_| !matches!(param.ty, Type::Sensitive(_))) {
                    check(param.span, &default.clone(), &format!(", by the default of `params.{}`", param.name));
                }
            }
        }
        (Input::List(inputs), ArgKind::List(args)) => {
            for (input, arg) in inputs.iter().zip(args) {
                if let Input::Value(item) = input {
                    check(arg.span, &Value::Array(vec![item.clone()]), "");
                }
            }
        }
        (Input::Value(Value::Array(items)), ArgKind::List(args)) if !items.is_empty() => {
            for (item, arg) in items.iter().zip(args) {
                check(arg.span, &Value::Array(vec![item.clone()]), "");
            }
        }
        (Input::Value(value), _) => check(arg.span, value, ""),
        _ => {}
    }
}

pub(super) fn with_plan(checker: &mut Checker<'_, '_>, step: &plan::Step, unit: &Unit<'_>) -> Box<[Field]> {
    let of = format!("the plan `{}`", unit.name);
    let mut with = Vec::with_capacity(step.with.len());
    for (word, arg) in &step.with {
        if let Some(index) = unit.params.iter().position(|param| param.name == word.value) {
            let want = &unit.params[index].ty;
            let value = checker.value(arg, want, &word.value);
            with.push(Field { index: index as u32, settled: checker.is_settled(arg, want), value, span: arg.span });
        } else {
            let known = unit.params.iter().map(|param| &*param.name);
            let help = did_you_mean(&word.value, known.clone()).map_or_else(
                || format!("its parameters are {}", listed(known)),
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!("{of} has no parameter `{}`", word.value);
            checker.report(Diagnostic::new("unknown-parameter", checker.names.place(word.span), message).help(help));
            checker.value(arg, &Type::Any, &word.value);
        }
    }
    let given = |param: &&Param| step.with.iter().all(|(word, _)| word.value != param.name);
    let missing: Vec<&Param> = unit.params.iter().filter(|param| param.required).filter(given).collect();
    lacks(checker, step, &of, missing.iter().map(|param| (&*param.name, &param.ty, &*param.about)));
    with.into()
}

/// Only what its references refer to can be checked.
pub(super) fn with_unknown(checker: &mut Checker<'_, '_>, step: &plan::Step) -> Box<[Field]> {
    for (word, arg) in &step.with {
        checker.value(arg, &Type::Any, &word.value);
    }
    Box::default()
}

fn lacks<'f>(
    checker: &mut Checker<'_, '_>,
    step: &plan::Step,
    of: &str,
    missing: impl Iterator<Item = (&'f str, &'f Type, &'f str)>,
) {
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return;
    }
    let message = format!("{of} needs {}", listed(missing.iter().map(|(name, _, _)| *name)));
    let described = |(name, ty, about): &(&str, &Type, &str)| {
        let about = about.lines().next().unwrap_or_default();
        if about.is_empty() { format!("{name}: {ty}") } else { format!("{name}: {ty}  # {about}") }
    };
    let help = format!("add to `with`:\n{}", missing.iter().map(described).collect::<Vec<_>>().join("\n"));
    checker.report(Diagnostic::new("missing-field", checker.names.place(step.uses.span), message).help(help));
}
