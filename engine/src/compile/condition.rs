//! The conditions of `if`: what they refer to, and whether what they compare can be equal at all.

use serde_json::Value;

use super::value::{Checker, article, holds_handle};
use crate::diag::{Diagnostic, Span, did_you_mean, listed};
use crate::expr::{Condition as Written, ConditionKind};
use crate::graph::{Condition, Input, Target};
use crate::types::Type;

/// A side of a comparison: its value, its type (none for null), and whether it is written out.
struct Side {
    input: Input,
    ty: Option<Type>,
    literal: bool,
}

impl Checker<'_, '_> {
    /// Checks a condition. Gives the place of the first reference to something that is known only later.
    pub(super) fn condition(&mut self, written: &Written) -> (Condition, Option<Span>) {
        let mut later = None;
        let condition = self.part(written, &mut later);
        (condition, later)
    }

    fn part(&mut self, written: &Written, later: &mut Option<Span>) -> Condition {
        match &written.kind {
            ConditionKind::Not(a) => Condition::Not(Box::new(self.part(a, later))),
            ConditionKind::And(a, b) => Condition::And(Box::new(self.part(a, later)), Box::new(self.part(b, later))),
            ConditionKind::Or(a, b) => Condition::Or(Box::new(self.part(a, later)), Box::new(self.part(b, later))),
            ConditionKind::Equal(a, b) => {
                let (a, b) = self.comparison(a, b, later);
                Condition::Equal(a, b)
            }
            ConditionKind::NotEqual(a, b) => {
                let (a, b) = self.comparison(a, b, later);
                Condition::Differ(a, b)
            }
            _ => {
                let side = self.side(written, later);
                self.refuse_whole_step(written, &side.input);
                Condition::Value(side.input)
            }
        }
    }

    /// A step is not true or false, and to ask whether it has run is written otherwise.
    fn refuse_whole_step(&mut self, written: &Written, input: &Input) {
        if let (ConditionKind::Reference(reference), Input::Reference(resolved)) = (&written.kind, input)
            && let (Target::Step(_), []) = (resolved.target, &*resolved.path)
        {
            let message = format!("`{reference}` is a whole step, which is neither true nor false");
            let help = format!(
                "name one of its outputs, such as `{reference}.NAME`; `{reference} != null` asks whether it runs"
            );
            self.report(Diagnostic::new("whole-step", self.names.place(written.span), message).help(help));
        }
    }

    fn comparison(&mut self, a: &Written, b: &Written, later: &mut Option<Span>) -> (Input, Input) {
        let left = self.side(a, later);
        let right = self.side(b, later);
        if let (Some(x), Some(y)) = (&left.ty, &right.ty) {
            self.comparable(a, x, left.literal, b, y, right.literal);
        }
        (left.input, right.input)
    }

    fn comparable(&mut self, a: &Written, x: &Type, x_literal: bool, b: &Written, y: &Type, y_literal: bool) {
        let (x, y) = (bare(x), bare(y));
        for (word, literal, other) in [(a, x_literal, y), (b, y_literal, x)] {
            if let (ConditionKind::Str(text), true, Type::Enum(words)) = (&word.kind, literal, other)
                && !words.iter().any(|known| **known == **text)
            {
                let help = did_you_mean(text, words.iter().map(String::as_str)).map_or_else(
                    || format!("one of {}", listed(words.iter().map(String::as_str))),
                    |near| format!("did you mean '{near}'?"),
                );
                let message = format!("it is never '{text}'");
                self.report(Diagnostic::new("never-equal", self.names.place(word.span), message).help(help));
                return;
            }
        }
        let any = matches!(x, Type::Any | Type::Handle(_)) || matches!(y, Type::Any | Type::Handle(_));
        if any || x.accepts(y) || y.accepts(x) {
            return;
        }
        let message = format!("{} and {} are never equal", article(x), article(y));
        let help = match (x, y) {
            (Type::String, Type::Int | Type::Bool) if x_literal => Some("leave out the quotes".to_owned()),
            (Type::Int | Type::Bool, Type::String) if y_literal => Some("leave out the quotes".to_owned()),
            _ => None,
        };
        self.report(Diagnostic::new("never-equal", self.names.place(a.span.to(b.span)), message).help_if(help));
    }

    fn side(&mut self, written: &Written, later: &mut Option<Span>) -> Side {
        let known = |value: Value, ty: Option<Type>| Side { input: Input::Value(value), ty, literal: true };
        match &written.kind {
            ConditionKind::Null => known(Value::Null, None),
            ConditionKind::Bool(value) => known((*value).into(), Some(Type::Bool)),
            ConditionKind::Int(value) => known((*value).into(), Some(Type::Int)),
            ConditionKind::Str(text) => known(text.as_ref().into(), Some(Type::String)),
            ConditionKind::Reference(reference) => match self.names.resolve(reference, self.here) {
                Ok((resolved, ty)) => {
                    if holds_handle(&ty) {
                        *later = later.or(Some(reference.span));
                    }
                    Side { input: Input::Reference(Box::new(resolved)), ty: Some(ty), literal: false }
                }
                Err(diagnostic) => {
                    self.report(diagnostic);
                    known(Value::Null, Some(Type::Any))
                }
            },
            _ => {
                self.report(
                    Diagnostic::new(
                        "expression",
                        self.names.place(written.span),
                        "only values can be compared, not conditions",
                    )
                    .help("join conditions with `&&` or `||`"),
                );
                known(Value::Null, Some(Type::Any))
            }
        }
    }
}

/// A type without what does not matter to a comparison.
fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Nullable(inner) | Type::Sensitive(inner) | Type::Later(inner, _) => bare(inner),
        other => other,
    }
}
