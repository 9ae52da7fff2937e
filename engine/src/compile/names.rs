//! What references refer to, and of which type it is.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::diag::{Diagnostic, FileId, Place, Span, did_you_mean, listed};
use crate::expr::{self, ConditionKind, Segment, SegmentKind};
use crate::graph::{Param, Reference, Target};
use crate::types::Type;

/// What other steps of the plan know of a step.
pub(super) struct Shape<'p> {
    /// The type of one run of it.
    pub(super) output: Type,
    /// It has a `for_each`.
    pub(super) repeated: bool,
    /// Its failure does not end the run.
    pub(super) may_fail: bool,
    /// The parts of its `if` that are joined by `&&`.
    pub(super) conditions: Vec<&'p expr::Condition>,
}

/// The names that a plan's references may use.
pub(super) struct Names<'p> {
    pub(super) file: FileId,
    /// Its text, where the spans of the values are in it.
    pub(super) text: Option<&'p str>,
    pub(super) params: &'p [Param],
    /// By parameter: whether anything refers to it.
    pub(super) used: &'p [Cell<bool>],
    pub(super) ids: &'p HashMap<&'p str, u32>,
    pub(super) shapes: &'p [Shape<'p>],
    /// The outputs of the run that the plan opens.
    pub(super) run: Option<&'p Type>,
}

/// Where a reference stands.
#[derive(Clone, Copy, Default)]
pub(super) struct Here<'p> {
    /// The type of `each.value`, in a step with `for_each`.
    pub(super) each: Option<&'p Type>,
    /// What holds whenever the step runs.
    pub(super) conditions: &'p [&'p expr::Condition],
    /// It is a condition.
    pub(super) condition: bool,
}

/// The parts of a condition that are joined by `&&`: each holds where it holds.
pub(super) fn conjuncts<'p>(condition: &'p expr::Condition, out: &mut Vec<&'p expr::Condition>) {
    match &condition.kind {
        ConditionKind::And(a, b) => {
            conjuncts(a, out);
            conjuncts(b, out);
        }
        _ => out.push(condition),
    }
}

impl<'p> Here<'p> {
    /// The references that are not null, since a condition says so.
    fn not_null(&self) -> impl Iterator<Item = &'p expr::Reference> {
        self.conditions.iter().filter_map(|condition| match &condition.kind {
            ConditionKind::Reference(reference) => Some(reference),
            ConditionKind::NotEqual(a, b) => match (&a.kind, &b.kind) {
                (ConditionKind::Reference(reference), ConditionKind::Null)
                | (ConditionKind::Null, ConditionKind::Reference(reference)) => Some(reference),
                _ => None,
            },
            // What equals a value that is not null is not null.
            ConditionKind::Equal(a, b) => match (&a.kind, &b.kind) {
                (
                    ConditionKind::Reference(reference),
                    ConditionKind::Bool(_) | ConditionKind::Int(_) | ConditionKind::Str(_),
                )
                | (
                    ConditionKind::Bool(_) | ConditionKind::Int(_) | ConditionKind::Str(_),
                    ConditionKind::Reference(reference),
                ) => Some(reference),
                _ => None,
            },
            _ => None,
        })
    }

    /// Whether the first `depth` segments of a reference are known not to be null.
    fn knows(&self, reference: &expr::Reference, depth: usize) -> bool {
        let kinds = |r: &'p expr::Reference| r.path.iter().map(|s| &s.kind).take(depth);
        self.not_null().any(|known| {
            known.root == reference.root
                && known.path.len() >= depth
                && kinds(known).eq(reference.path.iter().map(|s| &s.kind).take(depth))
        })
    }
}

impl Names<'_> {
    /// What a reference refers to, and its type.
    pub(super) fn resolve(&self, reference: &expr::Reference, here: Here<'_>) -> Result<(Reference, Type), Diagnostic> {
        let (target, ty, taken) = match &*reference.root {
            "params" => self.param(reference)?,
            "each" => self.each(reference, here)?,
            "run" => {
                if let Some(outputs) = self.run {
                    (Target::Run, outputs.clone(), 0)
                } else {
                    let diagnostic =
                        self.wrong(reference.root_span, "`run` is nothing here: the plan opens no run".to_owned());
                    return Err(
                        diagnostic.help("`opens` names the run whose outputs `run` gives; parameters are `params`")
                    );
                }
            }
            id => match self.ids.get(id) {
                Some(index) => (Target::Step(*index), self.step(*index, here), 0),
                None => return Err(self.unknown_step(reference, here)),
            },
        };
        let ty = self.walk(reference, ty, taken, here)?;
        let path = reference.path[taken..].iter().map(|segment| segment.kind.clone()).collect();
        Ok((Reference { target, path, span: reference.span }, ty))
    }

    fn param(&self, reference: &expr::Reference) -> Result<(Target, Type, usize), Diagnostic> {
        let names = || self.params.iter().map(|param| &*param.name);
        let Some(Segment { kind: SegmentKind::Field(name) | SegmentKind::Key(name), span }) = reference.path.first()
        else {
            return Err(self
                .wrong(reference.span, "`params` is not a value; a parameter is `params.NAME`".to_owned())
                .help(known("parameters", names())));
        };
        if let Some(index) = self.params.iter().position(|param| param.name == *name) {
            self.used[index].set(true);
            Ok((Target::Param(index as u32), self.params[index].ty.clone(), 1))
        } else {
            self.meant(did_you_mean(name, names()));
            let help = did_you_mean(name, names())
                .map_or_else(|| known("parameters", names()), |near| format!("did you mean `params.{near}`?"));
            Err(Diagnostic::new("unknown-parameter", self.place(*span), format!("the plan has no parameter `{name}`"))
                .help(help))
        }
    }

    fn each(&self, reference: &expr::Reference, here: Here<'_>) -> Result<(Target, Type, usize), Diagnostic> {
        let Some(value) = here.each else {
            let diagnostic =
                self.wrong(reference.root_span, "`each` is nothing here: the step has no `for_each`".to_owned());
            return Err(diagnostic.help("only a step that has `for_each` can use `each.key` and `each.value`"));
        };
        match reference.path.first().map(|segment| &segment.kind) {
            Some(SegmentKind::Field(name)) if **name == *"key" => Ok((Target::Key, Type::String, 1)),
            Some(SegmentKind::Field(name)) if **name == *"value" => Ok((Target::Entry, value.clone(), 1)),
            _ => Err(self
                .wrong(reference.span, "`each` has `key` and `value`".to_owned())
                .help("write `each.key` or `each.value`")),
        }
    }

    fn step(&self, index: u32, here: Here<'_>) -> Type {
        let shape = &self.shapes[index as usize];
        let same = !shape.repeated
            && !shape.may_fail
            && shape.conditions.iter().all(|condition| here.conditions.contains(condition));
        let skippable = shape.may_fail || !shape.conditions.is_empty();
        let one = if skippable && !same { shape.output.clone().nullable() } else { shape.output.clone() };
        if shape.repeated { Type::Map(Arc::new(one)) } else { one }
    }

    /// Follows the path from segment `taken` on.
    fn walk(&self, reference: &expr::Reference, start: Type, taken: usize, here: Here<'_>) -> Result<Type, Diagnostic> {
        let (mut ty, mut null, mut sensitive) = (start, false, false);
        for depth in taken..=reference.path.len() {
            while let Type::Nullable(inner) | Type::Sensitive(inner) = &ty {
                match &ty {
                    Type::Sensitive(_) => sensitive = true,
                    _ => null |= !here.knows(reference, depth),
                }
                ty = inner.as_ref().clone();
            }
            let Some(segment) = reference.path.get(depth) else { break };
            // The entries of a step with `for_each` are all there; those of any other map need not be.
            let entries_exist =
                depth == 0 && self.ids.get(&*reference.root).is_some_and(|i| self.shapes[*i as usize].repeated);
            ty = self.enter(reference, &ty, segment, entries_exist)?;
        }
        let ty = if sensitive { Type::Sensitive(Arc::new(ty)) } else { ty };
        Ok(if null { ty.nullable() } else { ty })
    }

    fn enter(
        &self,
        reference: &expr::Reference,
        ty: &Type,
        segment: &Segment,
        entries_exist: bool,
    ) -> Result<Type, Diagnostic> {
        match (ty, &segment.kind) {
            (Type::Any, _) => Ok(Type::Any),
            (Type::Struct(structure), SegmentKind::Field(name) | SegmentKind::Key(name)) => match structure.field(name)
            {
                Some(field) => Ok(field.ty.clone()),
                None => Err(self.unknown_field(reference, structure, name, segment.span)),
            },
            (Type::Map(value), SegmentKind::Field(_) | SegmentKind::Key(_)) if entries_exist => {
                Ok(value.as_ref().clone())
            }
            (Type::Map(value), SegmentKind::Field(_) | SegmentKind::Key(_)) => Ok(value.as_ref().clone().nullable()),
            (Type::List(item), SegmentKind::Index(_)) => Ok(item.as_ref().clone()),
            _ => {
                let before = upto(reference, segment.span);
                let (message, help) = match (ty, &segment.kind) {
                    (Type::List(_), _) => (
                        format!("`{before}` is a list, and has no fields"),
                        "an entry is picked by its index, such as `[0]`",
                    ),
                    (Type::Handle(_) | Type::Later(..), _) => (
                        format!("`{before}` is known only once its step has run, so nothing can be picked from it"),
                        "use it whole",
                    ),
                    (Type::Map(_) | Type::Struct(_), _) => (
                        format!("`{before}` has no order, so no entry [n]"),
                        "name the field, such as `.name` or `[\"name\"]`",
                    ),
                    _ => (format!("`{before}` is of type {ty}, and has no fields"), "use it whole"),
                };
                Err(self.wrong(segment.span, message).help(help))
            }
        }
    }

    fn unknown_field(
        &self,
        reference: &expr::Reference,
        structure: &crate::types::Struct,
        name: &str,
        span: Span,
    ) -> Diagnostic {
        let names = || structure.fields.iter().map(|field| field.name.as_str());
        let before = upto(reference, span);
        let help = did_you_mean(name, names()).map(|near| format!("did you mean `{before}.{near}`?"));
        let message = if structure.fields.is_empty() {
            format!("`{before}` has no outputs")
        } else {
            format!("`{before}` has no field `{name}`")
        };
        Diagnostic::new("unknown-field", self.place(span), message)
            .help(help.unwrap_or_else(|| known("fields", names())))
    }

    fn unknown_step(&self, reference: &expr::Reference, here: Here<'_>) -> Diagnostic {
        let id = &*reference.root;
        let near = did_you_mean(id, self.ids.keys().copied().chain(["params", "each", "run"]));
        let help = if self.params.iter().any(|param| *param.name == *id) {
            self.meant(Some(id));
            format!("a parameter is written `params.{id}`")
        } else if let Some(near) = near {
            format!("did you mean `{near}`?")
        } else if id.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
            format!("a variable of the shell or of the environment is written `$${{{id}}}`, with two dollar signs")
        } else if here.condition && reference.path.is_empty() {
            format!("text is written in quotes: '{id}'")
        } else {
            let mut ids: Vec<&str> = self.ids.keys().copied().collect();
            ids.sort_unstable();
            known("steps", ids)
        };
        Diagnostic::new("unknown-step", self.place(reference.root_span), format!("the plan has no step `{id}`"))
            .help(help)
    }

    /// A parameter whose name is misspelt is used nevertheless.
    fn meant(&self, name: Option<&str>) {
        if let Some(index) = self.params.iter().position(|param| Some(&*param.name) == name) {
            self.used[index].set(true);
        }
    }

    fn wrong(&self, span: Span, message: String) -> Diagnostic {
        Diagnostic::new("wrong-reference", self.place(span), message)
    }

    pub(super) fn place(&self, span: Span) -> Place {
        Place::new(self.file, span)
    }
}

/// The part of a reference before a segment, as text.
fn upto(reference: &expr::Reference, segment: Span) -> String {
    let path = reference.path.iter().take_while(|s| s.span != segment).cloned().collect();
    expr::Reference { path, ..reference.clone() }.to_string()
}

/// The names that there are, as a sentence.
fn known<'n>(what: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    let names = listed(names);
    if names.is_empty() { format!("the plan has no {what}") } else { format!("{what} are {names}") }
}
