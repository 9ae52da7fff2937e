//! From places in a text to places in the file.

use crate::diag::{Diagnostic, Span};
use crate::expr::{Condition, ConditionKind, Part, Reference, SyntaxError, Template};
use crate::yaml::Str;

/// Where a text stands in the file. If the file does not hold it as it is (escapes, folded lines), every place in it is the whole value: less
/// exact, never wrong.
#[derive(Clone, Copy)]
pub(super) struct Mapping {
    whole: Span,
    base: Option<u32>,
}

impl Mapping {
    pub(super) fn new(text: &Str<'_>, whole: Span) -> Self {
        Self { whole, base: text.verbatim }
    }

    pub(super) fn span(self, span: Span) -> Span {
        self.base.map_or(self.whole, |base| Span { start: base + span.start, end: base + span.end })
    }

    pub(super) fn error(self, file: crate::diag::FileId, error: SyntaxError) -> Diagnostic {
        let span = self.span(error.span);
        Diagnostic::new("expression", crate::diag::Place::new(file, span), error.message).help_if(error.help)
    }

    pub(super) fn template(self, template: &mut Template) {
        match template {
            Template::Literal(_) => {}
            Template::Reference(reference) => self.reference(reference),
            Template::Parts(parts) => {
                for part in parts {
                    if let Part::Reference(reference) = part {
                        self.reference(reference);
                    }
                }
            }
        }
    }

    pub(super) fn condition(self, condition: &mut Condition) {
        condition.span = self.span(condition.span);
        match &mut condition.kind {
            ConditionKind::Reference(reference) => self.reference(reference),
            ConditionKind::Not(inner) => self.condition(inner),
            ConditionKind::Equal(a, b)
            | ConditionKind::NotEqual(a, b)
            | ConditionKind::And(a, b)
            | ConditionKind::Or(a, b) => {
                self.condition(a);
                self.condition(b);
            }
            ConditionKind::Null | ConditionKind::Bool(_) | ConditionKind::Int(_) | ConditionKind::Str(_) => {}
        }
    }

    fn reference(self, reference: &mut Reference) {
        reference.span = self.span(reference.span);
        reference.root_span = self.span(reference.root_span);
        for segment in &mut reference.path {
            segment.span = self.span(segment.span);
        }
    }
}
