//! Parameters as they are given: on the command line, and in a file.

use serde_json::{Value, json};

use super::{Bound, report};
use crate::compile::constant;
use crate::diag::{Diagnostic, Diagnostics, FileId, Place, Report, Span, did_you_mean, listed};
use crate::expr::Template;
use crate::graph::{Graph, Param};
use crate::plan::{Arg, ArgKind, literal};
use crate::types::Type;
use crate::value::SENSITIVE;
use crate::yaml::{self, Kind};

/// Parameters as they are given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// `-p name=value`, in order; the last one of a name counts.
    pub set: &'a [String],
    /// A parameter file: its name and text, YAML or JSON. What is also given by `set` is overridden.
    pub file: Option<(&'a str, &'a str)>,
    /// What follows `--`: given to the parameter `command`, if the plan has one and the list is not empty.
    pub command: &'a [String],
}

/// The parameter that takes what follows `--`.
const COMMAND: &str = "command";

/// Checks what is given against the parameters' types, and completes it by the defaults. Every problem is reported in one go, with the parameter, its
/// type, and where the value came from.
pub fn bind(graph: &Graph<'_>, given: Given<'_>) -> Result<Bound, Report> {
    let mut sources = graph.sources.clone();
    let mut found = Diagnostics::default();
    let params = &graph.root().params;
    let mut values: Vec<Option<Value>> = vec![None; params.len()];
    let mut named = vec![false; params.len()];
    if let Some((name, text)) = given.file {
        let file = FileId(sources.names().len() as u32);
        let shown = from_file(params, file, text, &mut values, &mut named, &mut found);
        sources.add(name, shown);
    }
    for set in given.set {
        // A text of its own, so that a message can point into it.
        let file = FileId(sources.names().len() as u32);
        let shown = from_set(params, file, set, &mut values, &mut named, &mut found);
        sources.add("-p", shown);
    }
    if !given.command.is_empty() {
        let file = sources.add("--", given.command.join(" "));
        from_command(graph, file, given.command, &mut values, &mut named, &mut found);
    }
    for ((param, value), named) in params.iter().zip(&mut values).zip(named) {
        if value.is_none() && !named {
            *value = default(graph, param, &mut found);
        }
    }
    if !found.is_empty() {
        return Err(report(found, sources));
    }
    let mark = |(param, value): (&Param, Option<Value>)| match (param.ty.required(), value.unwrap_or_default()) {
        (Type::Sensitive(_), value) if !value.is_null() => json!({ SENSITIVE: value }),
        (_, value) => value,
    };
    Ok(Bound { values: params.iter().zip(values).map(mark).collect() })
}

fn default(graph: &Graph<'_>, param: &Param, found: &mut Diagnostics) -> Option<Value> {
    if param.required {
        let place = Place::new(graph.root().file, param.span);
        let about = param
            .about
            .lines()
            .next()
            .filter(|line| !line.is_empty())
            .map(|line| format!(": {line}"))
            .unwrap_or_default();
        found.push(
            Diagnostic::new(
                "missing-parameter",
                place,
                format!("the parameter `{}` has to be given{about}", param.name),
            )
            .help(format!("add `-p {}=VALUE`, where VALUE is of type {}", param.name, param.ty)),
        );
    }
    param.default.clone()
}

fn index(params: &[Param], name: &str, place: Place, found: &mut Diagnostics) -> Option<usize> {
    let index = params.iter().position(|param| &*param.name == name);
    if index.is_none() {
        let names = || params.iter().map(|param| &*param.name);
        let help = match did_you_mean(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if params.is_empty() => "it has none".to_owned(),
            None => format!("its parameters are {}", listed(names())),
        };
        found.push(
            Diagnostic::new("unknown-parameter", place, format!("the plan has no parameter `{name}`")).help(help),
        );
    }
    index
}

/// Takes one `name=value`. Gives the text as it may be shown.
fn from_set(
    params: &[Param],
    file: FileId,
    set: &str,
    values: &mut [Option<Value>],
    named: &mut [bool],
    found: &mut Diagnostics,
) -> String {
    let Some((name, text)) = set.split_once('=') else {
        let place = Place::new(file, Span::new(0, set.len()));
        found.push(
            Diagnostic::new("parameter-syntax", place, "a parameter is given as `name=value`")
                .help(format!("write `-p {set}=VALUE`")),
        );
        return set.to_owned();
    };
    let Some(index) = index(params, name, Place::new(file, Span::new(0, name.len())), found) else {
        return set.to_owned();
    };
    let param = &params[index];
    let span = Span::new(name.len() + 1, set.len());
    let hidden = hide(set, span);
    named[index] = true;
    let mut inner = Diagnostics::default();
    let value =
        word_or_yaml(param, text, file, span, &mut inner).and_then(|arg| checked(param, &arg, file, None, &mut inner));
    values[index] = value.or(values[index].take());
    pass_on(param, Place::new(file, span), &inner, found);
    if is_sensitive(param) { hidden } else { set.to_owned() }
}

fn is_sensitive(param: &Param) -> bool {
    matches!(param.ty.required(), Type::Sensitive(_))
}

/// A text with a part of it unreadable, every other byte in its place.
fn hide(text: &str, span: Span) -> String {
    let (before, after) = (&text[..span.start as usize], &text[span.end as usize..]);
    format!("{before}{}{after}", "*".repeat((span.end - span.start) as usize))
}

/// Passes on what is wrong with a parameter's value; of a sensitive one only that it is wrong.
fn pass_on(param: &Param, place: Place, inner: &Diagnostics, found: &mut Diagnostics) {
    if !is_sensitive(param) {
        inner.iter().cloned().for_each(|diagnostic| found.push(diagnostic));
    } else if !inner.is_empty() {
        found.push(Diagnostic::new(
            "wrong-type",
            place,
            format!("the value of `{}` is not of type {}", param.name, param.ty),
        ));
    }
}

/// Text is taken as it is where text is wanted; anything else is read as YAML.
fn word_or_yaml(param: &Param, text: &str, file: FileId, span: Span, found: &mut Diagnostics) -> Option<Arg> {
    let mut ty = &param.ty;
    while let Type::Nullable(inner) | Type::Sensitive(inner) | Type::Later(inner, _) = ty {
        ty = inner;
    }
    let is_text = matches!(
        ty,
        Type::String | Type::Text | Type::Name | Type::Path | Type::Size | Type::Duration | Type::Mode | Type::Enum(_)
    );
    if is_text {
        return Some(Arg { kind: ArgKind::Text(Template::Literal(text.into())), span });
    }
    let mut inner = Diagnostics::default();
    let arg = yaml::parse(text, file, &mut inner).map(|tree| literal(tree.root()));
    // Places are in the value; the text that is shown has the name before it.
    let shift = |span: Span| Span { start: span.start + (name_len(param) + 1), end: span.end + (name_len(param) + 1) };
    for diagnostic in &inner {
        let mut diagnostic = diagnostic.clone();
        diagnostic.place.span = shift(diagnostic.place.span);
        diagnostic.related.clear();
        found.push(diagnostic);
    }
    if !inner.is_empty() {
        return None;
    }
    arg.map(|arg| whole(arg, span))
}

fn name_len(param: &Param) -> u32 {
    param.name.len() as u32
}

/// Points every part of a value at the whole of it: it is one word of the command line.
fn whole(arg: Arg, span: Span) -> Arg {
    let kind = match arg.kind {
        ArgKind::List(items) => ArgKind::List(items.into_vec().into_iter().map(|item| whole(item, span)).collect()),
        ArgKind::Map(entries) => {
            let entry = |(mut key, value): (crate::plan::Word, Arg)| {
                key.span = span;
                (key, whole(value, span))
            };
            ArgKind::Map(entries.into_vec().into_iter().map(entry).collect())
        }
        other => other,
    };
    Arg { kind, span }
}

/// Takes a file. Gives its text as it may be shown.
fn from_file(
    params: &[Param],
    file: FileId,
    text: &str,
    values: &mut [Option<Value>],
    named: &mut [bool],
    found: &mut Diagnostics,
) -> String {
    let mut shown = text.to_owned();
    let Some(tree) = yaml::parse(text, file, found) else { return shown };
    let entries = match tree.root().kind() {
        Kind::Map(entries) => entries,
        Kind::Null => return shown,
        _ => {
            let message =
                format!("a parameter file is a mapping from names to values, and this is {}", tree.root().describe());
            found.push(Diagnostic::new("wrong-shape", Place::new(file, tree.root().span()), message));
            return shown;
        }
    };
    for (key, node) in entries.iter() {
        let Some(index) = index(params, &key.text, Place::new(file, key.span), found) else { continue };
        named[index] = true;
        let mut inner = Diagnostics::default();
        values[index] = checked(&params[index], &literal(node), file, Some(text), &mut inner);
        pass_on(&params[index], Place::new(file, node.span()), &inner, found);
        if is_sensitive(&params[index]) {
            shown = hide(&shown, node.span());
        }
    }
    shown
}

fn from_command(
    graph: &Graph<'_>,
    file: FileId,
    command: &[String],
    values: &mut [Option<Value>],
    named: &mut [bool],
    found: &mut Diagnostics,
) {
    let params = &graph.root().params;
    let span = Span::new(0, command.join(" ").len());
    let Some(index) = params.iter().position(|param| *param.name == *COMMAND) else {
        let message = format!("the plan `{}` takes no command", graph.root().name);
        found.push(
            Diagnostic::new("no-command", Place::new(file, span), message)
                .help("a plan takes one by a parameter `command` of type list(string)"),
        );
        return;
    };
    let word = |text: &String| Arg { kind: ArgKind::Text(Template::Literal(text.as_str().into())), span };
    let list = Arg { kind: ArgKind::List(command.iter().map(word).collect()), span };
    named[index] = true;
    values[index] = checked(&params[index], &list, file, None, found);
}

fn checked(param: &Param, arg: &Arg, file: FileId, text: Option<&str>, found: &mut Diagnostics) -> Option<Value> {
    if matches!(param.ty.required(), Type::Handle(_)) {
        let place = Place::new(file, arg.span);
        let message = format!("the parameter `{}` is {}, which only another step can give", param.name, param.ty);
        found.push(Diagnostic::new("wrong-type", place, message).help("use the plan as a step of another one"));
        return None;
    }
    constant(file, text, arg, &param.ty, &param.name, found)
}

impl Bound {
    /// The values in the order of the plan's parameters, as they were bound; sensitive ones are marked.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The value of a parameter, as it was bound; sensitive ones are marked.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<&Value> {
        self.values.get(index)
    }
}
