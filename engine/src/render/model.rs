//! The dry run as data: what every format shows, what is compared, and what is saved.
//!
//! A [`DryRun`] holds no sensitive value and no text of a file that planning read, so it may go anywhere.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::effect::Class;
use crate::facts::Recorded;
use crate::program::{Condition, Node, NodeId, Options, Program};
use crate::step::Nature;
use crate::value::{HandleRef, TEXT, Text, decode, each_handle, handle_ref, redact, unescaped};

/// The version of the JSON form. It changes when a reader of the old one would misread the new one; added fields do not count.
pub const VERSION: u32 = 1;

/// What a program would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DryRun {
    /// [`VERSION`].
    pub lifecycle_dry_run: u32,
    /// The plan's name.
    pub plan: String,
    /// What the plan is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The plan's parameters in its own order.
    pub params: Vec<Param>,
    /// The files that it is written in.
    pub files: Vec<String>,
    /// The runs that it works on: the first is its own, the others are children.
    pub runs: Vec<Run>,
    /// It continues an existing run instead of making one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub opens: bool,
    /// The steps whose exit code is the run's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub main: Vec<String>,
    /// Nested plans; the first is the whole program.
    pub scopes: Vec<Scope>,
    /// The steps, each after all that it waits for.
    pub steps: Vec<Step>,
    /// The plan's outputs.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub outputs: Value,
    /// The counts that the text ends with.
    pub summary: Summary,
    /// What planning read; the contents of files by their digest.
    pub facts: Recorded,
}

/// A parameter of the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its value, redacted if sensitive; null if it has none.
    pub value: Value,
    /// The value is the plan's default.
    #[serde(default, skip_serializing_if = "is_false")]
    pub default: bool,
}

/// A run's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The run's id.
    pub id: String,
    /// The state root.
    pub root: PathBuf,
}

/// A plan used as a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The step's address; empty for the whole program.
    pub address: String,
    /// The plan's name.
    pub plan: String,
    /// The address of the scope around it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parent: String,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Such as `server/init`.
    pub address: String,
    /// The kind's name.
    pub kind: String,
    /// The kind's nature.
    pub nature: Nature,
    /// File and line where it is written.
    pub place: String,
    /// The address of the nested plan that it is part of; empty for the outermost.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// The id of the run whose journal it belongs to.
    pub run: String,
    /// The step that makes the process in which it happens; none for the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// It makes such a process.
    #[serde(default, skip_serializing_if = "is_false")]
    pub makes_site: bool,
    /// Another run releases it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub armed: bool,
    /// Its `if` is false.
    #[serde(default, skip_serializing_if = "is_false")]
    pub skipped: bool,
    /// Its `if`, where that depends on a handle.
    #[serde(default, rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// How it is run, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<How>,
    /// What it waits for.
    pub after: Vec<Edge>,
    /// What it changes, in order.
    pub effects: Vec<Effect>,
}

/// [`Options`] in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct How {
    /// The longest it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How often it is tried again.
    #[serde(default)]
    pub retries: u32,
    /// The wait before the first retry.
    #[serde(default)]
    pub backoff_ms: u64,
    /// Its failure undoes it and nothing else.
    #[serde(default)]
    pub continue_on_error: bool,
}

/// A step that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Its address.
    pub step: String,
    /// Why.
    pub why: Why,
}

/// Why a step waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It uses what the other one found out or made.
    Data,
    /// It happens in the process that the other one makes.
    Site,
    /// `needs`, or an order that the kinds declare.
    Order,
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The kind's name.
    pub kind: String,
    /// How it is taken back.
    pub class: Class,
    /// One line for a person.
    pub does: String,
    /// It happens in the process that the step makes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inside: bool,
    /// Its fields. A handle is `{"shown": "‹init.pid›", "handle": {…}}`.
    pub data: Value,
}

/// Counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Steps that will run.
    pub steps: usize,
    /// Steps whose `if` is false.
    pub skipped: usize,
    /// Steps that another run releases; counted in `steps` too.
    pub armed: usize,
    /// All effects.
    pub effects: usize,
    /// Effects undone by their own inverse.
    pub reversible: usize,
    /// Effects that die with a process or namespace.
    pub scoped: usize,
    /// Effects undone by another program.
    pub foreign: usize,
    /// Effects left on purpose.
    pub kept: usize,
    /// One-way effects.
    pub commit: usize,
    /// Effects that only wait; counted in no class.
    #[serde(default)]
    pub waits: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_false(b: &bool) -> bool {
    !b
}

impl DryRun {
    /// The dry run of a program that was planned with these parameters. Their values are redacted here.
    pub fn of(program: &Program, params: Vec<Param>) -> Self {
        let steps: Vec<Step> = program.nodes.iter().map(|node| step(program, node)).collect();
        let scope = |i: u32| program.scopes.get(i as usize).map_or_else(String::new, |s| s.address.to_string());
        Self {
            lifecycle_dry_run: VERSION,
            plan: program.plan.clone(),
            about: program.about.clone(),
            params: params.into_iter().map(|p| Param { value: shown(p.value), ..p }).collect(),
            files: program.files.clone(),
            runs: program.runs.iter().map(|r| Run { id: r.id.clone(), root: r.root.clone() }).collect(),
            opens: program.opens,
            main: program.main.iter().map(|id| address(program, *id)).collect(),
            scopes: program
                .scopes
                .iter()
                .map(|s| Scope { address: s.address.to_string(), plan: s.plan.clone(), parent: scope(s.parent) })
                .collect(),
            summary: Summary::of(&steps),
            steps,
            outputs: shown(program.outputs.clone()),
            facts: program.facts.digested(),
        }
    }
}

impl Summary {
    fn of(steps: &[Step]) -> Self {
        let waits = |s: &&Step| s.nature == Nature::Waits;
        let class =
            |class| steps.iter().filter(|s| !waits(s)).flat_map(|s| &s.effects).filter(|e| e.class == class).count();
        Self {
            steps: steps.iter().filter(|s| !s.skipped).count(),
            skipped: steps.iter().filter(|s| s.skipped).count(),
            armed: steps.iter().filter(|s| s.armed && !s.skipped).count(),
            effects: steps.iter().map(|s| s.effects.len()).sum(),
            reversible: class(Class::Reversible),
            scoped: class(Class::Scoped),
            foreign: class(Class::Foreign),
            kept: class(Class::Kept),
            commit: class(Class::Commit),
            waits: steps.iter().filter(waits).map(|s| s.effects.len()).sum(),
        }
    }
}

fn address(program: &Program, id: NodeId) -> String {
    program.nodes.get(id as usize).map_or_else(String::new, |n| n.address.to_string())
}

fn step(program: &Program, node: &Node) -> Step {
    let effects: Vec<Effect> = node
        .effects
        .iter()
        .map(|planned| Effect {
            kind: planned.effect.kind().to_owned(),
            class: planned.effect.class(),
            does: planned.effect.describe(),
            inside: planned.inside,
            data: shown(planned.data.clone()),
        })
        .collect();
    Step {
        address: node.address.to_string(),
        kind: node.kind.to_owned(),
        nature: node.nature,
        place: program.place(node),
        scope: program.scopes.get(node.scope as usize).map_or_else(String::new, |s| s.address.to_string()),
        run: program.runs.get(node.run as usize).map_or_else(String::new, |r| r.id.clone()),
        site: node.site.map(|id| address(program, id)),
        makes_site: node.makes_site,
        armed: node.armed,
        skipped: node.skipped,
        condition: node.when.as_deref().map(|c| redacted(c).to_string()),
        options: node.options.as_deref().map(How::of),
        after: edges(program, node),
        effects,
    }
}

impl How {
    fn of(options: &Options) -> Self {
        Self {
            timeout_ms: options.timeout.map(|t| t.as_millis() as u64),
            retries: options.retries,
            backoff_ms: options.backoff.as_millis() as u64,
            continue_on_error: options.continue_on_error,
        }
    }
}

fn edges(program: &Program, node: &Node) -> Vec<Edge> {
    let mut used = Vec::new();
    for planned in &node.effects {
        each_handle(&planned.data, &mut |at| used.push(at.step));
    }
    if let Some(condition) = &node.when {
        each_value(condition, &mut |value| each_handle(value, &mut |at| used.push(at.step)));
    }
    let why = |id: NodeId, other: &Node| {
        if node.site == Some(id) {
            Why::Site
        } else if other.nature == Nature::Pure || used.contains(&other.address) {
            Why::Data
        } else {
            Why::Order
        }
    };
    let edge = |&id: &NodeId| {
        let other = program.nodes.get(id as usize)?;
        Some(Edge { step: other.address.to_string(), why: why(id, other) })
    };
    node.after.iter().filter_map(edge).collect()
}

fn each_value(condition: &Condition, found: &mut dyn FnMut(&Value)) {
    match condition {
        Condition::Value(v) => found(v),
        Condition::Not(a) => each_value(a, found),
        Condition::And(a, b) | Condition::Or(a, b) => {
            each_value(a, found);
            each_value(b, found);
        }
        Condition::Equal(a, b) | Condition::Differ(a, b) => {
            found(a);
            found(b);
        }
    }
}

fn redacted(condition: &Condition) -> Condition {
    let clean = |v: &Value| {
        let mut v = v.clone();
        redact(&mut v);
        v
    };
    let boxed = |c: &Condition| Box::new(redacted(c));
    match condition {
        Condition::Value(v) => Condition::Value(clean(v)),
        Condition::Not(a) => Condition::Not(boxed(a)),
        Condition::And(a, b) => Condition::And(boxed(a), boxed(b)),
        Condition::Or(a, b) => Condition::Or(boxed(a), boxed(b)),
        Condition::Equal(a, b) => Condition::Equal(clean(a), clean(b)),
        Condition::Differ(a, b) => Condition::Differ(clean(a), clean(b)),
    }
}

/// The value as it may be shown: sensitive parts redacted, handles and text with handles in a form that reads without knowing ours.
fn shown(mut value: Value) -> Value {
    redact(&mut value);
    plainly(value)
}

fn plainly(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(plainly).collect(),
        Value::Object(map) => {
            let value = Value::Object(map);
            if let Some(at) = handle_ref(&value) {
                return json!({ "shown": at.to_string(), "handle": at });
            }
            if let Some(text) = value.get(TEXT).and_then(|_| decode::<Text>(value.clone()).ok()) {
                return json!({ "shown": text.to_string(), "handles": handles(&value) });
            }
            let Value::Object(map) = value else { return value };
            Value::Object(map.into_iter().map(|(k, v)| (unescaped(&k).to_owned(), plainly(v))).collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn handles(value: &Value) -> Vec<HandleRef> {
    let mut found = Vec::new();
    each_handle(value, &mut |at| found.push(at));
    found
}

/// The value on one line as a person reads it: handles by their name, text without quotes.
pub(super) fn compact(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(map) => match map.get("shown").and_then(Value::as_str) {
            Some(shown) if map.contains_key("handle") || map.contains_key("handles") => shown.to_owned(),
            _ => listed('{', map.iter().map(|(k, v)| format!("{k}: {}", compact(v))), '}'),
        },
        Value::Array(items) => listed('[', items.iter().map(compact), ']'),
        other => other.to_string(),
    }
}

fn listed(open: char, items: impl Iterator<Item = String>, close: char) -> String {
    format!("{open}{}{close}", items.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{HANDLE, Part, Sensitive};

    #[test]
    fn a_condition_shows_no_sensitive_value() {
        let secret = serde_json::to_value(Sensitive("hunter2")).expect("json");
        let condition = Condition::Not(Box::new(Condition::Equal(secret, json!("x"))));
        assert_eq!(redacted(&condition).to_string(), "!\"‹sensitive›\" == \"x\"");
    }

    #[test]
    fn handles_are_shown_by_name_and_kept_in_parts() {
        let at = HandleRef { step: "init".into(), effect: 2, field: "pid".into() };
        let text = Text(vec![Part::Literal("/proc/".into()), Part::Handle(at.clone()), Part::Sensitive("s3".into())]);
        let value = shown(json!({ "pid": { HANDLE: at }, "path": text }));
        let handle = json!({ "step": "init", "effect": 2, "field": "pid" });
        assert_eq!(value["pid"], json!({ "shown": "‹init.pid›", "handle": handle }));
        assert_eq!(value["path"], json!({ "shown": "/proc/‹init.pid›‹sensitive›", "handles": [handle] }));
        assert_eq!(compact(&value), "{pid: ‹init.pid›, path: /proc/‹init.pid›‹sensitive›}");
    }
}
