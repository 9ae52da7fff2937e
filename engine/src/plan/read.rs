//! A plan's own keys, and what every part of it shares.

use std::collections::HashSet;

use super::text::Mapping;
use super::{Arg, ArgKind, At, Opens, Param, Plan, TypeSyntax, Word};
use crate::diag::{Diagnostic, Diagnostics, FileId, Place, Span, did_you_mean, listed};
use crate::expr::{Template, is_identifier};
use crate::yaml::{self, Entries, Key, Kind, Node};

/// Reads a plan. `None` if the text is not YAML or not a mapping; otherwise what could be read, everything else being reported.
pub fn parse(text: &str, file: FileId, found: &mut Diagnostics) -> Option<Plan> {
    let tree = yaml::parse(text, file, found)?;
    let mut reader = Reader { file, found };
    let Kind::Map(entries) = tree.root().kind() else {
        let message = match tree.root().kind() {
            Kind::Null => "the file is empty".to_owned(),
            _ => format!("a plan is a mapping, and this is {}", tree.root().describe()),
        };
        reader.report("not-a-plan", tree.root().span(), message).help("a plan has at least `plan: NAME` and `steps:`");
        return None;
    };
    Some(reader.plan(entries, tree.root().span()))
}

pub(super) struct Reader<'d> {
    pub(super) file: FileId,
    found: &'d mut Diagnostics,
}

/// Lets a diagnostic be completed after it has been added.
pub(super) struct Reported<'d>(&'d mut Diagnostics, Option<Diagnostic>);

impl Reported<'_> {
    pub(super) fn help(mut self, help: impl Into<String>) {
        self.1 = self.1.take().map(|d| d.help(help));
    }

    pub(super) fn help_if(mut self, help: Option<String>) {
        self.1 = self.1.take().map(|d| d.help_if(help));
    }
}

impl Drop for Reported<'_> {
    fn drop(&mut self) {
        if let Some(diagnostic) = self.1.take() {
            self.0.push(diagnostic);
        }
    }
}

/// A value in which `${` means nothing: what comes from outside a plan.
#[must_use]
pub fn literal(node: Node<'_, '_>) -> Arg {
    let kind = match node.kind() {
        Kind::Null => ArgKind::Null,
        Kind::Bool(value) => ArgKind::Bool(value),
        Kind::Int(value) => ArgKind::Int(value),
        Kind::Float(value) => ArgKind::Float(value),
        Kind::Str(text) => ArgKind::Text(Template::Literal(text.text.as_ref().into())),
        Kind::Seq(items) => ArgKind::List(items.iter().map(literal).collect()),
        Kind::Map(entries) => {
            let word = |key: &Key<'_>| At { value: key.text.as_ref().into(), span: key.span };
            ArgKind::Map(entries.iter().map(|(key, value)| (word(key), literal(value))).collect())
        }
    };
    Arg { kind, span: node.span() }
}

const PLAN_KEYS: &[&str] = &["plan", "about", "params", "steps", "outputs", "main", "run", "opens"];
const PARAM_KEYS: &[&str] = &["type", "default", "required", "sensitive", "about"];

impl Reader<'_> {
    fn plan(&mut self, entries: Entries<'_, '_>, span: Span) -> Plan {
        let mut plan = Plan {
            file: self.file,
            name: At { value: Box::default(), span: Span { start: span.start, end: span.start } },
            about: Box::default(),
            params: Vec::new(),
            steps: Vec::new(),
            outputs: Vec::new(),
            main: Vec::new(),
            run: None,
            opens: None,
        };
        let (mut named, mut stepped) = (false, false);
        for (key, node) in entries.iter() {
            match &*key.text {
                "plan" => {
                    named = true;
                    plan.name = self.word(node, "plan").unwrap_or(plan.name);
                    self.plan_name(&plan.name);
                }
                "about" => plan.about = self.text(node, "about"),
                "params" => {
                    plan.params = self.each(node, "params", |reader, name, node| Some(reader.param(name, node)));
                }
                "steps" => {
                    stepped = true;
                    plan.steps = self.each(node, "steps", Self::step);
                }
                "outputs" => {
                    plan.outputs = self.each(node, "outputs", |reader, name, node| Some((name, reader.arg(node))));
                }
                "main" => plan.main = self.ids(node, "main"),
                "run" => plan.run = Some(self.arg(node)),
                "opens" => plan.opens = self.opens(node),
                other => self.unknown(key, other, PLAN_KEYS, "a plan"),
            }
        }
        let start = Span { start: span.start, end: span.start };
        if !named {
            self.report("missing-key", start, "the plan has no name").help("start the file with `plan: NAME`");
        }
        if !stepped {
            self.report("missing-key", start, "the plan has no `steps`").help("a plan without steps does nothing");
        }
        plan
    }

    fn plan_name(&mut self, name: &Word) {
        let ok = |part: &str| is_identifier(part);
        if !name.value.is_empty() && !name.value.split('/').all(ok) {
            self.report("plan-name", name.span, format!("`{}` cannot be a plan's name", name.value))
                .help("a name is words of letters, digits, `-` and `_`, joined by `/`, such as `oci/create`");
        }
    }

    fn param(&mut self, name: Word, node: Node<'_, '_>) -> Param {
        let mut param = Param {
            ty: At { value: TypeSyntax::Word("string".into()), span: name.span },
            name,
            default: None,
            required: false,
            sensitive: false,
            about: Box::default(),
        };
        // `id: name` would be a natural shorthand, and a second way to say the same thing.
        let Kind::Map(entries) = node.kind() else {
            let message =
                format!("the parameter `{}` is described by a mapping, not by {}", param.name.value, node.describe());
            self.report("wrong-shape", node.span(), message).help("write `{ type: string, about: … }`");
            return param;
        };
        let mut required = None;
        for (key, node) in entries.iter() {
            match &*key.text {
                "type" => param.ty = self.ty(node).unwrap_or(param.ty),
                "default" => param.default = Some(self.constant(node, &param.name)),
                "required" => required = self.bool(node, "required").map(|value| At { value, span: key.span }),
                "sensitive" => param.sensitive = self.bool(node, "sensitive").unwrap_or(false),
                "about" => param.about = self.text(node, "about"),
                other => self.unknown(key, other, PARAM_KEYS, "a parameter"),
            }
        }
        if let (Some(At { value: true, span }), Some(_)) = (&required, &param.default) {
            self.report("required-default", *span, format!("`{}` is required and has a default", param.name.value))
                .help("a default is for when it is not given: remove one of the two");
        }
        param.required = required.map_or(param.default.is_none(), |r| r.value && param.default.is_none());
        param
    }

    /// A default is known before anything else is: it cannot refer to anything.
    fn constant(&mut self, node: Node<'_, '_>, name: &Word) -> Arg {
        let arg = self.arg(node);
        let mut first = None;
        arg.references(&mut |reference| first = first.or(Some(reference.span)));
        if let Some(span) = first {
            self.report("default-reference", span, format!("the default of `{}` refers to something", name.value))
                .help("a default is a plain value; leave it out and use the reference where the parameter is used");
            return Arg { kind: ArgKind::Null, span: arg.span };
        }
        arg
    }

    fn ty(&mut self, node: Node<'_, '_>) -> Option<At<TypeSyntax>> {
        let word = self.word(node, "type")?;
        match TypeSyntax::parse(&word.value) {
            Ok(value) => Some(At { value, span: word.span }),
            Err((message, help)) => {
                self.report("unknown-type", word.span, message).help_if(help);
                Some(At { value: TypeSyntax::Word("any".into()), span: word.span })
            }
        }
    }

    fn opens(&mut self, node: Node<'_, '_>) -> Option<Opens> {
        let Kind::Map(entries) = node.kind() else {
            let message = format!("`opens` is a mapping, not {}", node.describe());
            self.report("wrong-shape", node.span(), message)
                .help("write `opens: { run: \"${params.id}\", plan: oci/create }`");
            return None;
        };
        let (mut run, mut plan, mut beside) = (None, None, false);
        for (key, node) in entries.iter() {
            match &*key.text {
                "run" => run = Some(self.arg(node)),
                "plan" => plan = self.word(node, "plan"),
                "beside" => beside = self.bool(node, "beside").unwrap_or(false),
                other => self.unknown(key, other, &["run", "plan", "beside"], "`opens`"),
            }
        }
        for (name, missing) in [("run", run.is_none()), ("plan", plan.is_none())] {
            if missing {
                self.report("missing-key", node.span(), format!("`opens` lacks `{name}`"))
                    .help("write `opens: { run: \"${params.id}\", plan: oci/create }`");
            }
        }
        Some(Opens { run: run?, plan: plan?, beside, span: node.span() })
    }

    /// A mapping from ids to something: `params`, `steps`, `outputs`.
    pub(super) fn each<T>(
        &mut self,
        node: Node<'_, '_>,
        what: &str,
        mut read: impl FnMut(&mut Self, Word, Node<'_, '_>) -> Option<T>,
    ) -> Vec<T> {
        match node.kind() {
            Kind::Map(entries) => {
                let mut out = Vec::with_capacity(entries.len());
                for (key, node) in entries.iter() {
                    let word = At { value: key.text.as_ref().into(), span: key.span };
                    self.id(&word, what);
                    out.extend(read(self, word, node));
                }
                out
            }
            Kind::Null => Vec::new(),
            Kind::Seq(_) if what == "steps" => {
                self.report("wrong-shape", node.span(), "`steps` is a mapping from ids to steps, not a list")
                    .help("give each step an id: `load: { uses: spec.load }`");
                Vec::new()
            }
            _ => {
                self.report("wrong-shape", node.span(), format!("`{what}` is a mapping, not {}", node.describe()))
                    .help_if(None);
                Vec::new()
            }
        }
    }

    fn id(&mut self, word: &Word, what: &str) {
        let name = &word.value;
        if !is_identifier(name) {
            self.report("bad-id", word.span, format!("`{name}` cannot be an id in `{what}`"))
                .help("an id starts with a letter and has letters, digits, `-` and `_`");
        } else if what == "steps" && ["params", "each", "run", "true", "false", "null"].contains(&&**name) {
            self.report("bad-id", word.span, format!("`{name}` cannot be a step's id: references use the word"))
                .help("choose another one");
        }
    }

    /// Any value.
    pub(super) fn arg(&mut self, node: Node<'_, '_>) -> Arg {
        let kind = match node.kind() {
            Kind::Null => ArgKind::Null,
            Kind::Bool(value) => ArgKind::Bool(value),
            Kind::Int(value) => ArgKind::Int(value),
            Kind::Float(value) => ArgKind::Float(value),
            Kind::Str(text) => {
                let mapping = Mapping::new(text, node.span());
                match Template::parse(&text.text) {
                    Ok(mut template) => {
                        mapping.template(&mut template);
                        ArgKind::Text(template)
                    }
                    Err(error) => {
                        self.found.push(mapping.error(self.file, error));
                        ArgKind::Null
                    }
                }
            }
            Kind::Seq(items) => ArgKind::List(items.iter().map(|item| self.arg(item)).collect()),
            Kind::Map(entries) => {
                let word = |key: &Key<'_>| At { value: key.text.as_ref().into(), span: key.span };
                ArgKind::Map(entries.iter().map(|(key, value)| (word(key), self.arg(value))).collect())
            }
        };
        Arg { kind, span: node.span() }
    }

    /// A word of the language, in which references mean nothing.
    pub(super) fn word(&mut self, node: Node<'_, '_>, what: &str) -> Option<Word> {
        match node.kind() {
            Kind::Str(text) if !text.text.trim().is_empty() => {
                if text.text.contains("${") {
                    self.report("no-reference-here", node.span(), format!("`{what}` cannot be a reference"))
                        .help("it has to be known when the plan is compiled");
                    return None;
                }
                Some(At { value: text.text.trim().into(), span: node.span() })
            }
            _ => {
                self.report("wrong-shape", node.span(), format!("`{what}` is a word, not {}", node.describe()))
                    .help_if(None);
                None
            }
        }
    }

    fn text(&mut self, node: Node<'_, '_>, what: &str) -> Box<str> {
        if let Kind::Str(text) = node.kind() {
            text.text.trim().into()
        } else {
            self.report("wrong-shape", node.span(), format!("`{what}` is text, not {}", node.describe()))
                .help("put it in quotes");
            Box::default()
        }
    }

    pub(super) fn bool(&mut self, node: Node<'_, '_>, what: &str) -> Option<bool> {
        match node.kind() {
            Kind::Bool(value) => Some(value),
            Kind::Str(text) if matches!(&*text.text.to_ascii_lowercase(), "yes" | "on" | "no" | "off") => {
                let meant = matches!(&*text.text.to_ascii_lowercase(), "yes" | "on");
                let message = format!("`{}` is a string in YAML 1.2, not a bool", text.text);
                self.report("wrong-shape", node.span(), message).help(format!("write `{what}: {meant}`"));
                None
            }
            _ => {
                self.report(
                    "wrong-shape",
                    node.span(),
                    format!("`{what}` is `true` or `false`, not {}", node.describe()),
                )
                .help_if(None);
                None
            }
        }
    }

    /// A key that the language does not have.
    pub(super) fn unknown(&mut self, key: &Key<'_>, name: &str, known: &[&str], what: &str) {
        let help = trap(name, known)
            .or_else(|| did_you_mean(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?")));
        let help = help.unwrap_or_else(|| format!("known are {}", listed(known.iter().copied())));
        self.report("unknown-key", key.span, format!("{what} has no key `{name}`")).help(help);
    }

    pub(super) fn report(&mut self, code: &'static str, span: Span, message: impl Into<String>) -> Reported<'_> {
        Reported(self.found, Some(Diagnostic::new(code, Place::new(self.file, span), message)))
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// Reports ids that are listed twice.
    pub(super) fn distinct(&mut self, words: &[Word], what: &str) {
        let mut seen = HashSet::new();
        for word in words {
            if !seen.insert(&word.value) {
                self.report("listed-twice", word.span, format!("`{}` is listed twice in `{what}`", word.value))
                    .help("remove one");
            }
        }
    }
}

/// Keys that people bring along from neighbouring languages.
fn trap(name: &str, known: &[&str]) -> Option<String> {
    let step = known.contains(&"uses");
    let text = match name {
        "on" | "true" => {
            "plans are not started by events; YAML 1.1 would even read `on` as true. Conditions are written `if`"
        }
        "name" if known.contains(&"plan") => "a plan's name is given by `plan`",
        "name" | "id" if step => "a step's id is its key in `steps`",
        "name" if known.contains(&"default") => "a parameter's name is its key in `params`",
        "description" => "a description is written `about`",
        "jobs" | "tasks" => "a plan has `steps`; for a plan within a plan write a step with `uses: plan:NAME`",
        "inputs" | "parameters" | "vars" | "variables" => "values from outside are `params`",
        "env" if step => "a step has no environment of its own; look for a field in `with`",
        "run" | "command" | "shell" if step => "a host command is a step that `uses: command.run`",
        "depends_on" | "depends-on" | "after" | "requires" => "steps that come first are listed in `needs`",
        "when" | "condition" | "unless" => "a condition is written `if`",
        "foreach" | "for-each" | "with_items" | "loop" | "matrix" | "strategy" => "repetition is written `for_each`",
        "retries" | "attempts" => "write `retry: { count: 3, backoff: 1s }`",
        "continue_on_error" | "ignore_errors" | "allow_failure" => "it is spelt `continue-on-error`",
        "timeout-minutes" | "timeout_minutes" => "write `timeout: 5m`",
        "kind" if step => "a step's kind is given by `uses`",
        "args" | "params" | "inputs_" | "input" if step => "a step's input is given by `with`",
        _ => return None,
    };
    Some(text.to_owned())
}
