//! Values against types.

use serde_json::Value;

use super::names::{Here, Names};
use crate::diag::{Diagnostic, Diagnostics, Span, did_you_mean, listed};
use crate::expr::{Part, Reference as Written, Template};
use crate::graph::{Input, Target, TextPart};
use crate::plan::{Arg, ArgKind};
use crate::types::{Millis, Mode, Name, Size, Struct, Type};
use crate::value::escaped;

/// Checks the values of one step, or of one plan's outputs.
pub(super) struct Checker<'c, 'p> {
    pub(super) names: &'c Names<'p>,
    pub(super) here: Here<'c>,
    /// The step runs while planning, so nothing may come in that is known only later.
    pub(super) pure: bool,
    pub(super) found: &'c mut Diagnostics,
}

/// Whether a value of the type may be known only once a step has run.
pub(super) fn holds_handle(ty: &Type) -> bool {
    match ty {
        Type::Handle(_) | Type::Later(..) => true,
        Type::List(inner) | Type::Map(inner) | Type::Sensitive(inner) | Type::Nullable(inner) => holds_handle(inner),
        Type::Struct(structure) => structure.fields.iter().any(|field| holds_handle(&field.ty)),
        _ => false,
    }
}

/// Whether text into which a handle or a sensitive value was written may stand where `want` is wanted.
fn takes_text(want: &Type) -> bool {
    match want {
        Type::Any | Type::Text => true,
        Type::Nullable(inner) | Type::Sensitive(inner) | Type::Later(inner, _) => takes_text(inner),
        _ => false,
    }
}

impl Checker<'_, '_> {
    /// Checks a value against a type. What is wrong is reported, and null taken in its place. `what` names the field for messages.
    pub(super) fn value(&mut self, arg: &Arg, want: &Type, what: &str) -> Input {
        match (&arg.kind, want) {
            (ArgKind::Text(Template::Reference(reference)), _) => self.reference(reference, want, what),
            (ArgKind::Text(Template::Parts(parts)), _) => self.parts(parts, arg.span, want, what),
            (_, Type::Nullable(inner) | Type::Later(inner, _) | Type::Sensitive(inner)) => {
                if matches!(arg.kind, ArgKind::Null) && want.accepts_null() {
                    Input::Value(Value::Null)
                } else {
                    self.value(arg, inner, what)
                }
            }
            (ArgKind::List(items), Type::Any) => self.list(items, &Type::Any, what),
            (ArgKind::List(items), Type::List(item)) => self.list(items, item, what),
            (ArgKind::Map(entries), Type::Any) => self.map(entries, &Type::Any, what),
            (ArgKind::Map(entries), Type::Map(value)) => self.map(entries, value, what),
            (ArgKind::Map(entries), Type::Struct(structure)) => self.structure(entries, arg.span, structure, what),
            _ => Input::Value(self.literal(arg, want, what)),
        }
    }

    /// Whether a checked value needs no second look once it is known. Only asked for what is long to look through.
    pub(super) fn is_settled(&self, arg: &Arg, want: &Type) -> bool {
        let ArgKind::Text(Template::Reference(written)) = &arg.kind else { return false };
        matches!(want.required(), Type::Struct(_) | Type::List(_) | Type::Map(_))
            && self.names.resolve(written, self.here).is_ok_and(|(reference, have)| {
                // Outputs of an older run may be those of an older plan.
                reference.target != Target::Run && want.is_met_by(&have)
            })
    }

    fn list(&mut self, items: &[Arg], item: &Type, what: &str) -> Input {
        fold_list(items.iter().map(|arg| self.value(arg, item, what)).collect())
    }

    fn map(&mut self, entries: &[(crate::plan::Word, Arg)], value: &Type, what: &str) -> Input {
        let name = |key: &str| if what.is_empty() { key.to_owned() } else { format!("{what}.{key}") };
        fold_map(
            entries.iter().map(|(key, arg)| (key.value.clone(), self.value(arg, value, &name(&key.value)))).collect(),
        )
    }

    fn structure(&mut self, entries: &[(crate::plan::Word, Arg)], span: Span, structure: &Struct, what: &str) -> Input {
        let mut given = Vec::with_capacity(entries.len());
        for (key, arg) in entries {
            match structure.field(&key.value) {
                Some(field) => {
                    given.push((key.value.clone(), self.value(arg, &field.ty, &format!("{what}.{}", key.value))));
                }
                None if structure.open => {
                    given.push((key.value.clone(), self.value(arg, &Type::Any, &format!("{what}.{}", key.value))));
                }
                None => self.unknown_field(
                    &key.value,
                    key.span,
                    structure.fields.iter().map(|f| f.name.as_str()),
                    &format!("`{what}`"),
                ),
            }
        }
        let missing: Vec<&str> = structure
            .fields
            .iter()
            .filter(|field| {
                field.required && !field.ty.accepts_null() && entries.iter().all(|(key, _)| *key.value != *field.name)
            })
            .map(|field| field.name.as_str())
            .collect();
        if !missing.is_empty() {
            self.report(Diagnostic::new(
                "missing-field",
                self.names.place(span),
                format!("`{what}` lacks {}", listed(missing)),
            ));
        }
        fold_map(given)
    }

    pub(super) fn unknown_field<'n>(
        &mut self,
        name: &str,
        span: Span,
        known: impl Iterator<Item = &'n str> + Clone,
        of: &str,
    ) {
        let help = match did_you_mean(name, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.clone().next().is_none() => "it takes none".to_owned(),
            None => format!("known are {}", listed(known)),
        };
        self.report(
            Diagnostic::new("unknown-field", self.names.place(span), format!("{of} has no field `{name}`")).help(help),
        );
    }

    fn reference(&mut self, written: &Written, want: &Type, what: &str) -> Input {
        let (reference, have) = match self.names.resolve(written, self.here) {
            Ok(resolved) => resolved,
            Err(diagnostic) => {
                self.report(diagnostic);
                return Input::Value(Value::Null);
            }
        };
        self.fits(written, &have, want, what);
        Input::Reference(Box::new(reference))
    }

    fn fits(&mut self, written: &Written, have: &Type, want: &Type, what: &str) {
        let place = self.names.place(written.span);
        if self.pure && holds_handle(have) {
            self.report(
                Diagnostic::new(
                    "pure-handle",
                    place,
                    format!("`{written}` is known only once its step has run, and this step runs while planning"),
                )
                .label(have.to_string())
                .help("what a step needs while planning comes from parameters and from other steps that only read"),
            );
            return;
        }
        if want.accepts(have) {
            return;
        }
        let nullable = have.accepts_null() && !want.accepts_null() && want.accepts(have.required());
        let diagnostic = if nullable {
            Diagnostic::new("may-be-null", place, format!("`{what}` cannot be null, and `{written}` may be"))
                .label(have.to_string())
                .help(self.why_null(written))
        } else if let Type::Sensitive(inner) = have.required() {
            if want.accepts(inner) {
                Diagnostic::new("sensitive", place, format!("`{written}` is sensitive, and `{what}` would show it"))
                    .label(have.to_string())
                    .help("sensitive values go only into fields of type text or sensitive")
            } else {
                self.mismatch(written, have, want, what)
            }
        } else {
            self.mismatch(written, have, want, what)
        };
        self.report(diagnostic);
    }

    fn mismatch(&self, written: &Written, have: &Type, want: &Type, what: &str) -> Diagnostic {
        let help = match (want.required(), have.required()) {
            (Type::List(item), one) if item.accepts(one) => {
                Some(format!("for a list of one write `[\"${{{written}}}\"]`"))
            }
            (_, Type::Struct(structure)) => {
                let fitting: Vec<&str> =
                    structure.fields.iter().filter(|f| want.accepts(&f.ty)).map(|f| f.name.as_str()).collect();
                match fitting.as_slice() {
                    [] => None,
                    [one] => Some(format!("did you mean `{written}.{one}`?")),
                    many => Some(format!("of its fields, {} would fit", listed(many.iter().copied()))),
                }
            }
            _ => None,
        };
        let message = format!("`{what}` wants {}, and `{written}` is {}", article(want), article(have));
        Diagnostic::new("wrong-type", self.names.place(written.span), message).label(have.to_string()).help_if(help)
    }

    fn why_null(&self, written: &Written) -> String {
        let shape = self.names.ids.get(&*written.root).map(|index| &self.names.shapes[*index as usize]);
        match shape {
            Some(shape) if shape.may_fail => {
                format!("`{}` may fail and the run goes on (`continue-on-error`)", written.root)
            }
            Some(shape) if !shape.conditions.is_empty() && !shape.repeated => {
                let conditions: Vec<String> = shape.conditions.iter().map(ToString::to_string).collect();
                format!("`{}` runs only if `{}`; give this step the same `if`", written.root, conditions.join(" && "))
            }
            _ => format!("add `if: {written} != null`"),
        }
    }

    /// Text with references in it.
    fn parts(&mut self, parts: &[Part], span: Span, want: &Type, what: &str) -> Input {
        let mut hidden = None;
        let mut out = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Part::Text(text) => out.push(TextPart::Literal(text.clone())),
                Part::Reference(written) => match self.names.resolve(written, self.here) {
                    Ok((reference, have)) => {
                        if self.in_text(written, &have)
                            && (holds_handle(&have) || matches!(have, Type::Sensitive(_) | Type::Text))
                        {
                            hidden = hidden.or(Some((written, matches!(have, Type::Sensitive(_)))));
                        }
                        out.push(TextPart::Reference(reference));
                    }
                    Err(diagnostic) => self.report(diagnostic),
                },
            }
        }
        match hidden {
            Some((written, sensitive)) if !takes_text(want) => {
                let message = if sensitive {
                    format!("`{written}` is sensitive, and `{what}` would show it")
                } else {
                    format!(
                        "`{written}` is known only once its step has run, and `{what}` has to be known while planning"
                    )
                };
                let help = format!("`{what}` is {}; only fields of type text can hold it", article(want));
                self.report(Diagnostic::new("text-later", self.names.place(written.span), message).help(help));
            }
            None if !want.accepts(&Type::String) => {
                let message = format!("`{what}` wants {}, and this is text", article(want));
                self.report(
                    Diagnostic::new("wrong-type", self.names.place(span), message)
                        .help("a value keeps its type where the reference stands alone"),
                );
            }
            _ => {}
        }
        Input::Text(out.into())
    }

    /// Whether a value can be written into text; reports it if not.
    fn in_text(&mut self, written: &Written, have: &Type) -> bool {
        let place = self.names.place(written.span);
        if self.pure && holds_handle(have) {
            self.fits(written, have, &Type::Any, "");
            return false;
        }
        let inner = match have {
            Type::Sensitive(inner) | Type::Later(inner, _) => inner,
            other => other,
        };
        if inner.is_scalar() || matches!(inner, Type::Any | Type::Handle(_)) {
            return true;
        }
        let diagnostic = if have.accepts_null() {
            Diagnostic::new("may-be-null", place, format!("`{written}` may be null, which text cannot hold"))
                .help(self.why_null(written))
        } else {
            Diagnostic::new("wrong-type", place, format!("`{written}` is {}, which text cannot hold", article(have)))
                .help("only words and numbers can be written into text")
        };
        self.report(diagnostic.label(have.to_string()));
        false
    }

    /// A value without references that is not a list or a mapping where one is wanted.
    fn literal(&mut self, arg: &Arg, want: &Type, what: &str) -> Value {
        let result = match &arg.kind {
            ArgKind::Text(Template::Literal(text)) => word(text, want),
            ArgKind::Int(number) => int(*number, self.written(arg), want),
            ArgKind::Float(number) if matches!(want, Type::Float | Type::Any | Type::Text) => {
                Ok(serde_json::json!(number))
            }
            ArgKind::Bool(value) if matches!(want, Type::Bool | Type::Any | Type::Text) => Ok(Value::Bool(*value)),
            ArgKind::Null if want.accepts_null() => Ok(Value::Null),
            ArgKind::Float(_) | ArgKind::Bool(_) if matches!(want, Type::String | Type::Name | Type::Path) => {
                Err(quote(self.written(arg)))
            }
            _ if matches!(want, Type::List(_)) => Err((String::new(), Some("a list is written `[a, b]`".to_owned()))),
            _ => Err((String::new(), None)),
        };
        result.unwrap_or_else(|(message, help)| {
            let message = if message.is_empty() {
                format!("`{what}` wants {}, and this is {}", article(want), self.describe(arg))
            } else {
                format!("`{what}`: {message}")
            };
            let help = help.or_else(|| handle_help(want));
            self.report(Diagnostic::new("wrong-type", self.names.place(arg.span), message).help_if(help));
            Value::Null
        })
    }

    /// How a number or a truth value is written, if that is known.
    fn written(&self, arg: &Arg) -> Option<&str> {
        let text = self.names.text?.get(arg.span.start as usize..arg.span.end as usize)?;
        let same = match arg.kind {
            ArgKind::Int(value) => text.parse() == Ok(value) || text.starts_with("0x") || text.starts_with("0o"),
            ArgKind::Float(value) => text.parse() == Ok(value),
            ArgKind::Bool(value) => text.to_ascii_lowercase().parse() == Ok(value),
            _ => false,
        };
        same.then_some(text)
    }

    /// `a list`, `the number 5`, …
    fn describe(&self, arg: &Arg) -> String {
        let written = self.written(arg);
        match &arg.kind {
            ArgKind::Null => "nothing".to_owned(),
            ArgKind::Bool(value) => format!("`{}`", written.map_or_else(|| value.to_string(), str::to_owned)),
            ArgKind::Int(_) | ArgKind::Float(_) => {
                written.map_or_else(|| "a number".to_owned(), |text| format!("the number {text}"))
            }
            ArgKind::Text(_) => "text".to_owned(),
            ArgKind::List(_) => "a list".to_owned(),
            ArgKind::Map(_) => "a mapping".to_owned(),
        }
    }

    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }
}

type Wrong = (String, Option<String>);

/// What was written, not what it was read as: 1.10 is the number 1.1.
fn quote(written: Option<&str>) -> Wrong {
    let written = written.map_or_else(String::new, |text| format!(": \"{text}\""));
    (String::new(), Some(format!("if it is text, put it in quotes{written}")))
}

fn word(text: &str, want: &Type) -> Result<Value, Wrong> {
    let plain = |message: String| (message, None);
    match want {
        Type::Any | Type::String | Type::Text | Type::Path => {}
        Type::Name => drop(Name::parse(text).map_err(plain)?),
        Type::Size => drop(Size::parse(text).map_err(plain)?),
        Type::Duration => drop(Millis::parse(text).map_err(plain)?),
        Type::Mode => drop(Mode::parse(text).map_err(plain)?),
        Type::Enum(words) if words.iter().any(|word| word == text) => {}
        Type::Enum(words) => {
            let near =
                did_you_mean(text, words.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
            let help = near.unwrap_or_else(|| format!("one of {}", listed(words.iter().map(String::as_str))));
            return Err((format!("`{text}` is not one of its words"), Some(help)));
        }
        Type::Int if text.parse::<i64>().is_ok() => {
            return Err((String::new(), Some(format!("remove the quotes: {text}"))));
        }
        Type::Int if let Ok(Size(bytes)) = Size::parse(text) => {
            return Err((String::new(), Some(format!("it is a number without a unit; {text} in bytes is {bytes}"))));
        }
        Type::Bool => {
            let meant = match &*text.to_ascii_lowercase() {
                "yes" | "on" | "true" => Some("true"),
                "no" | "off" | "false" => Some("false"),
                _ => None,
            };
            return Err((String::new(), meant.map(|meant| format!("write {meant}, without quotes"))));
        }
        Type::List(item) if word(text, item).is_ok() => {
            return Err((String::new(), Some(format!("for a list of one write [{text}]"))));
        }
        _ => return Err((String::new(), None)),
    }
    Ok(Value::String(text.to_owned()))
}

fn int(number: i64, written: Option<&str>, want: &Type) -> Result<Value, Wrong> {
    match want {
        Type::Any | Type::Int | Type::Float | Type::Text => Ok(number.into()),
        Type::Size if number >= 0 => Ok(number.into()),
        Type::Size => Err(("a size cannot be negative".to_owned(), None)),
        Type::Mode => Err((
            format!("a bare {number} is not a file mode"),
            Some(format!("write it as octal in quotes: \"{number:0>4}\"")),
        )),
        Type::Duration => Err((format!("{number} has no unit"), Some(format!("write {number}s or {number}ms")))),
        Type::String | Type::Name | Type::Path => Err(quote(written)),
        _ => Err((String::new(), None)),
    }
}

fn handle_help(want: &Type) -> Option<String> {
    match want {
        Type::Handle(name) => Some(format!("a {name} comes from another step: write `${{STEP}}` or `${{STEP.FIELD}}`")),
        Type::Nullable(inner) | Type::Later(inner, _) => handle_help(inner),
        _ => None,
    }
}

/// A type with its article, for the middle of a sentence.
pub(super) fn article(ty: &Type) -> String {
    let vowel = ty.to_string().starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O']);
    match ty {
        Type::Text => "text".to_owned(),
        Type::Any => "anything".to_owned(),
        Type::Enum(words) => format!("one of {}", listed(words.iter().map(String::as_str))),
        Type::Nullable(inner) => format!("{} or null", article(inner)),
        Type::Sensitive(inner) => format!("a sensitive {inner}"),
        _ => format!("{} {ty}", if vowel { "an" } else { "a" }),
    }
}

fn fold_list(items: Vec<Input>) -> Input {
    if items.iter().all(|item| matches!(item, Input::Value(_))) {
        return Input::Value(items.into_iter().filter_map(known).collect());
    }
    Input::List(items.into())
}

fn fold_map(entries: Vec<(Box<str>, Input)>) -> Input {
    if entries.iter().all(|(_, value)| matches!(value, Input::Value(_))) {
        let object = entries
            .into_iter()
            .filter_map(|(key, value)| known(value).map(|value| (escaped(&key).into_owned(), value)));
        return Input::Value(Value::Object(object.collect()));
    }
    Input::Map(entries.into())
}

fn known(input: Input) -> Option<Value> {
    match input {
        Input::Value(value) => Some(value),
        _ => None,
    }
}
