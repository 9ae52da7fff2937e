//! A step's own keys.

use std::time::Duration;

use super::read::Reader;
use super::text::Mapping;
use super::{Arg, ArgKind, At, Extras, Retry, Step, Word};
use crate::diag::Span;
use crate::expr::Condition;
use crate::types::Millis;
use crate::yaml::{Entries, Kind, Node};

const STEP_KEYS: &[&str] =
    &["uses", "with", "needs", "if", "for_each", "timeout", "retry", "continue-on-error", "site"];

impl Reader<'_> {
    pub(super) fn step(&mut self, id: Word, node: Node<'_, '_>) -> Option<Step> {
        let Kind::Map(entries) = node.kind() else {
            let message = format!("the step `{}` is a mapping, not {}", id.value, node.describe());
            self.report("wrong-shape", node.span(), message).help("write `{ uses: KIND, with: { … } }`");
            return None;
        };
        let mut uses = None;
        let mut step = Step {
            uses: At { value: Box::default(), span: id.span },
            id,
            with: Vec::new(),
            needs: Vec::new(),
            extras: None,
        };
        for (key, node) in entries.iter() {
            match &*key.text {
                "uses" => uses = Some(self.word(node, "uses")),
                "with" => step.with = self.with(node),
                "needs" => step.needs = self.ids(node, "needs"),
                "if" => self.extras(&mut step).condition = self.condition(node),
                "for_each" => self.extras(&mut step).for_each = Some(self.for_each(node)),
                "timeout" => self.extras(&mut step).timeout = self.duration(node, "timeout"),
                "retry" => self.extras(&mut step).retry = self.retry(node),
                "continue-on-error" => {
                    let value = self.bool(node, "continue-on-error");
                    self.extras(&mut step).continue_on_error = value.map(|value| At { value, span: key.span });
                }
                "site" => self.extras(&mut step).site = Some(self.site(node)),
                other => self.unknown(key, other, STEP_KEYS, "a step"),
            }
        }
        match uses {
            Some(Some(uses)) => step.uses = uses,
            // A `uses` of the wrong shape has been reported. The step stays, so that references to it are not reported too.
            Some(None) => {}
            None => {
                self.report(
                    "missing-key",
                    step.id.span,
                    format!("the step `{}` does not say what it `uses`", step.id.value),
                )
                .help("add `uses: KIND`; `lifecycle steps` lists the kinds");
            }
        }
        Some(step)
    }

    #[expect(clippy::unused_self, reason = "reads as the other fields do")]
    fn extras<'s>(&self, step: &'s mut Step) -> &'s mut Extras {
        step.extras.get_or_insert_default()
    }

    fn with(&mut self, node: Node<'_, '_>) -> Vec<(Word, Arg)> {
        match node.kind() {
            Kind::Map(entries) => self.fields(entries),
            Kind::Null => Vec::new(),
            _ => {
                let message = format!("`with` is a mapping of the step's fields, not {}", node.describe());
                self.report("wrong-shape", node.span(), message).help("write `with: { field: value }`");
                Vec::new()
            }
        }
    }

    fn fields(&mut self, entries: Entries<'_, '_>) -> Vec<(Word, Arg)> {
        let word = |text: &str, span| At { value: text.into(), span };
        entries.iter().map(|(key, node)| (word(&key.text, key.span), self.arg(node))).collect()
    }

    /// Steps by their ids: a list, or one alone.
    pub(super) fn ids(&mut self, node: Node<'_, '_>, what: &str) -> Vec<Word> {
        let words = match node.kind() {
            Kind::Seq(items) => items.iter().filter_map(|item| self.id_of(item, what)).collect(),
            Kind::Str(_) => self.id_of(node, what).into_iter().collect(),
            _ => {
                let message = format!("`{what}` is a list of step ids, not {}", node.describe());
                self.report("wrong-shape", node.span(), message).help(format!("write `{what}: [first, second]`"));
                Vec::new()
            }
        };
        self.distinct(&words, what);
        words
    }

    /// A step's id; `${id}`, as other places want it, is understood and pointed out.
    fn id_of(&mut self, node: Node<'_, '_>, what: &str) -> Option<Word> {
        if let Kind::Str(text) = node.kind()
            && let Some(id) = text.text.strip_prefix("${").and_then(|t| t.strip_suffix('}'))
        {
            self.report("no-reference-here", node.span(), format!("`{what}` lists ids, not references"))
                .help(format!("write `{id}`"));
            return None;
        }
        self.word(node, what)
    }

    fn condition(&mut self, node: Node<'_, '_>) -> Option<At<Condition>> {
        match node.kind() {
            Kind::Str(text) => {
                let mapping = Mapping::new(text, node.span());
                match Condition::parse(&text.text) {
                    Ok(mut condition) => {
                        mapping.condition(&mut condition);
                        Some(At { value: condition, span: node.span() })
                    }
                    Err(error) => {
                        let diagnostic = mapping.error(self.file, error);
                        self.push(diagnostic);
                        None
                    }
                }
            }
            Kind::Bool(value) => {
                let condition = Condition { kind: crate::expr::ConditionKind::Bool(value), span: node.span() };
                Some(At { value: condition, span: node.span() })
            }
            _ => {
                let message = format!("`if` is a condition, not {}", node.describe());
                self.report("wrong-shape", node.span(), message).help("write `if: \"${step.field} == 'x'\"`");
                None
            }
        }
    }

    fn for_each(&mut self, node: Node<'_, '_>) -> Arg {
        let arg = self.arg(node);
        let ok = match &arg.kind {
            ArgKind::Text(template) => matches!(template, crate::expr::Template::Reference(_)),
            ArgKind::List(_) | ArgKind::Map(_) => true,
            _ => false,
        };
        if !ok {
            self.report(
                "wrong-shape",
                node.span(),
                format!("`for_each` is a list, a mapping, or a reference to one, not {}", node.describe()),
            )
            .help("write `for_each: \"${params.names}\"` or `for_each: [a, b]`");
        }
        arg
    }

    fn site(&mut self, node: Node<'_, '_>) -> Arg {
        let arg = self.arg(node);
        if let ArgKind::Text(crate::expr::Template::Literal(word)) = &arg.kind {
            let help = format!("write `site: \"${{{word}}}\"`");
            self.report("wrong-shape", node.span(), "`site` is a reference to the step that makes the process")
                .help(help);
        }
        arg
    }

    fn duration(&mut self, node: Node<'_, '_>, what: &str) -> Option<At<Duration>> {
        let span = node.span();
        match node.kind() {
            Kind::Str(text) => match Millis::parse(&text.text) {
                Ok(value) => Some(At { value: value.duration(), span }),
                Err(message) => {
                    self.report("wrong-type", span, message).help_if(None);
                    None
                }
            },
            Kind::Int(value) => {
                self.report("wrong-type", span, format!("`{what}: {value}` has no unit"))
                    .help(format!("write `{what}: {value}s`"));
                None
            }
            _ => {
                self.report("wrong-type", span, format!("`{what}` is a duration, not {}", node.describe()))
                    .help("write `5s` or `250ms`");
                None
            }
        }
    }

    fn retry(&mut self, node: Node<'_, '_>) -> Option<At<Retry>> {
        let span = node.span();
        let mut retry = Retry { count: 0, backoff: Duration::from_secs(1) };
        match node.kind() {
            Kind::Int(count) => retry.count = self.count(count, span)?,
            Kind::Map(entries) => {
                for (key, node) in entries.iter() {
                    match (&*key.text, node.kind()) {
                        ("count", Kind::Int(count)) => retry.count = self.count(count, node.span())?,
                        ("count", _) => {
                            self.report(
                                "wrong-type",
                                node.span(),
                                format!("`count` is a whole number, not {}", node.describe()),
                            )
                            .help_if(None);
                            return None;
                        }
                        ("backoff", _) => retry.backoff = self.duration(node, "backoff")?.value,
                        (other, _) => self.unknown(key, other, &["count", "backoff"], "`retry`"),
                    }
                }
                if retry.count == 0 {
                    self.report("missing-key", span, "`retry` does not say how often").help("add `count: 3`");
                    return None;
                }
            }
            _ => {
                self.report("wrong-shape", span, format!("`retry` is a mapping, not {}", node.describe()))
                    .help("write `retry: { count: 3, backoff: 1s }`");
                return None;
            }
        }
        Some(At { value: retry, span })
    }

    fn count(&mut self, count: i64, span: Span) -> Option<u32> {
        if let Ok(count @ 1..=1000) = u32::try_from(count) {
            Some(count)
        } else {
            self.report("wrong-type", span, format!("`count` is between 1 and 1000, not {count}")).help_if(None);
            None
        }
    }
}
