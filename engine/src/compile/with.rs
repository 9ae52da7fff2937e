//! What a step is given, against the fields of its kind or the parameters of the plan that it uses.

use super::value::Checker;
use crate::diag::{Diagnostic, did_you_mean, listed};
use crate::graph::{Field, Param, Unit};
use crate::plan;
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
            let value = checker.value(arg, want, &word.value);
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
