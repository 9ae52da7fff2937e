//! Two dry runs compared: parameters, steps, effects, and the facts that they were planned from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

pub use super::align::lines;
use super::align::pair;
use super::model::{DryRun, Effect, Step, compact};
use super::paint::{Paint, Style, clean, count, sentence, wrap};
use crate::effect::Class;
use crate::facts::{FileFact, Recorded};

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Use colour.
    pub color: bool,
    /// Columns.
    pub width: usize,
    /// Compare the facts too.
    pub facts: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self { color: false, width: 80, facts: true }
    }
}

/// A fact that is not what it was.
#[derive(Clone, Debug, PartialEq)]
pub struct FactChange {
    /// The fact's name, or the file's path.
    pub name: String,
    /// What it was; `None` if it was not asked for.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

impl fmt::Display for FactChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = clean(&self.name);
        match (&self.old, &self.new) {
            (Some(old), Some(new)) if old == new => write!(f, "{name}: its contents changed"),
            (Some(old), Some(new)) => write!(f, "{name}: {} → {}", clean(old), clean(new)),
            (Some(old), None) => write!(f, "{name}: {}, no longer asked for", clean(old)),
            (None, Some(new)) => write!(f, "{name}: {}, not asked for before", clean(new)),
            (None, None) => write!(f, "{name}"),
        }
    }
}

/// The facts that differ, host first, by name. File contents are compared by digest.
pub fn facts(old: &Recorded, new: &Recorded) -> Vec<FactChange> {
    let (old, new) = (old.digested(), new.digested());
    let mut changes = Vec::new();
    compare(&old.host, &new.host, &mut changes, Clone::clone, compact);
    let name = |path: &std::path::PathBuf| path.display().to_string();
    compare(&old.files, &new.files, &mut changes, name, file);
    compare(&old.kinds, &new.kinds, &mut changes, name, file);
    changes
}

fn compare<K: Ord, V: PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    changes: &mut Vec<FactChange>,
    name: impl Fn(&K) -> String,
    show: impl Fn(&V) -> String,
) {
    let keys: BTreeSet<&K> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (a, b) = (old.get(key), new.get(key));
        if a != b {
            changes.push(FactChange { name: name(key), old: a.map(&show), new: b.map(&show) });
        }
    }
}

fn file(fact: &FileFact) -> String {
    match fact {
        FileFact::Text(_) | FileFact::Sha256(_) => "a file".to_owned(),
        FileFact::Errno(errno) => crate::error::errno_in_words(*errno),
        FileFact::Kind(kind) => serde_json::to_value(kind).map_or_else(|_| format!("{kind:?}"), |v| compact(&v)),
    }
}

/// The difference for a person; `None` if there is none.
pub fn text(old: &DryRun, new: &DryRun, look: &Look) -> Option<String> {
    let mut page = Page { paint: Paint { on: look.color }, width: look.width, out: String::new() };
    page.head(old, new);
    page.params(old, new);
    let tally = page.steps(old, new);
    if look.facts {
        page.facts(&facts(&old.facts, &new.facts));
    }
    if page.out.is_empty() {
        return None;
    }
    page.tally(&tally);
    Some(page.out)
}

/// The difference of two sets of facts for a person; `None` if there is none.
pub fn facts_text(old: &Recorded, new: &Recorded, look: &Look) -> Option<String> {
    let mut page = Page { paint: Paint { on: look.color }, width: look.width, out: String::new() };
    page.facts(&facts(old, new));
    (!page.out.is_empty()).then_some(page.out)
}

#[derive(Default)]
struct Tally {
    steps: [usize; 3],
    effects: [usize; 3],
}

struct Page {
    paint: Paint,
    width: usize,
    out: String,
}

/// Added, removed or changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Added,
    Removed,
    Changed,
}

impl Sign {
    fn of(self) -> (&'static str, Style) {
        match self {
            Self::Added => ("+ ", Style::Green),
            Self::Removed => ("- ", Style::Red),
            Self::Changed => ("~ ", Style::Yellow),
        }
    }
}

impl Page {
    fn line(&mut self, indent: usize, sign: Sign, text: &str) {
        let (lead, style) = sign.of();
        let room = self.width.saturating_sub(indent + 2);
        for (i, line) in wrap(text, room).iter().enumerate() {
            let lead = if i == 0 { lead } else { "  " };
            let body = if sign == Sign::Changed { Style::Plain } else { style };
            self.out.push_str(&" ".repeat(indent));
            self.out.push_str(&self.paint.style(style, lead));
            self.out.push_str(&self.paint.style(body, line));
            self.out.push('\n');
        }
    }

    fn title(&mut self, text: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out.push_str(&self.paint.style(Style::Bold, text));
        self.out.push('\n');
    }

    fn head(&mut self, old: &DryRun, new: &DryRun) {
        let opens = |run: &DryRun| if run.opens { "continues a run" } else { "makes a run" }.to_owned();
        let main = |run: &DryRun| if run.main.is_empty() { "none".to_owned() } else { run.main.join(", ") };
        for (what, a, b) in [
            ("plan", old.plan.clone(), new.plan.clone()),
            ("it", opens(old), opens(new)),
            ("main step", main(old), main(new)),
            ("outputs", compact(&old.outputs), compact(&new.outputs)),
        ] {
            if a != b {
                self.line(0, Sign::Changed, &format!("{what}: {a} → {b}"));
            }
        }
    }

    fn params(&mut self, old: &DryRun, new: &DryRun) {
        let map = |run: &DryRun| -> Map<String, Value> {
            run.params.iter().map(|p| (p.name.clone(), p.value.clone())).collect()
        };
        let changes = fields(&map(old), &map(new));
        if !changes.is_empty() {
            self.title("Parameters");
            for (sign, text) in &changes {
                self.line(2, *sign, text);
            }
        }
    }

    /// In the order of the new one, each removed step after the one that it followed.
    fn steps(&mut self, old: &DryRun, new: &DryRun) -> Tally {
        let index = |run: &DryRun| -> BTreeMap<String, usize> {
            run.steps.iter().enumerate().map(|(i, s)| (s.address.clone(), i)).collect()
        };
        let (in_old, in_new) = (index(old), index(new));
        let mut tally = Tally::default();
        let mut body = Self { out: String::new(), ..*self };
        let mut next = 0;
        for step in &new.steps {
            if let Some(&at) = in_old.get(&step.address) {
                for gone in old.steps.get(next..at).unwrap_or_default() {
                    body.removed(gone, &in_new, &mut tally);
                }
                next = next.max(at + 1);
                if let Some(before) = old.steps.get(at) {
                    body.both(before, step, &mut tally);
                }
            } else {
                body.whole(Sign::Added, step, &mut tally);
            }
        }
        for gone in old.steps.get(next..).unwrap_or_default() {
            body.removed(gone, &in_new, &mut tally);
        }
        if !body.out.is_empty() {
            self.title("Steps");
            self.out.push_str(&body.out);
        }
        tally
    }

    fn removed(&mut self, step: &Step, in_new: &BTreeMap<String, usize>, tally: &mut Tally) {
        if !in_new.contains_key(&step.address) {
            self.whole(Sign::Removed, step, tally);
        }
    }

    fn whole(&mut self, sign: Sign, step: &Step, tally: &mut Tally) {
        let at = usize::from(sign == Sign::Removed);
        tally.steps[at] += 1;
        tally.effects[at] += step.effects.len();
        self.line(2, sign, &format!("{} ({})", step.address, step.kind));
        for effect in &step.effects {
            self.line(6, sign, &told(effect));
        }
    }

    fn both(&mut self, old: &Step, new: &Step, tally: &mut Tally) {
        let mut inner = Self { out: String::new(), ..*self };
        for (sign, text) in fields(&about(old), &about(new)) {
            inner.line(6, sign, &text);
        }
        for change in pair(&old.effects, &new.effects) {
            inner.effect(change, tally);
        }
        if !inner.out.is_empty() {
            tally.steps[2] += 1;
            self.line(2, Sign::Changed, &format!("{} ({})", new.address, new.kind));
            self.out.push_str(&inner.out);
        }
    }

    fn effect(&mut self, change: (Option<&Effect>, Option<&Effect>), tally: &mut Tally) {
        match change {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => {
                tally.effects[2] += 1;
                if told(a) == told(b) {
                    self.line(6, Sign::Changed, &told(b));
                } else {
                    self.line(6, Sign::Removed, &told(a));
                    self.line(6, Sign::Added, &told(b));
                }
                if a.class != b.class {
                    self.line(10, Sign::Changed, &format!("class: {} → {}", class(a), class(b)));
                }
                let none = Map::new();
                let data = |e: &'_ Effect| e.data.as_object().cloned().unwrap_or_else(|| none.clone());
                for (sign, text) in fields(&data(a), &data(b)) {
                    self.line(10, sign, &text);
                }
            }
            (Some(a), None) => {
                tally.effects[1] += 1;
                self.line(6, Sign::Removed, &told(a));
            }
            (None, Some(b)) => {
                tally.effects[0] += 1;
                self.line(6, Sign::Added, &told(b));
            }
            (None, None) => {}
        }
    }

    fn facts(&mut self, changes: &[FactChange]) {
        if changes.is_empty() {
            return;
        }
        self.title("Facts");
        for change in changes {
            let sign = match (&change.old, &change.new) {
                (None, Some(_)) => Sign::Added,
                (Some(_), None) => Sign::Removed,
                _ => Sign::Changed,
            };
            self.line(2, sign, &change.to_string());
        }
    }

    fn tally(&mut self, tally: &Tally) {
        let part = |n: [usize; 3], what: &str| {
            let words = ["added", "removed", "changed"];
            let parts: Vec<String> =
                n.iter().zip(words).filter(|(n, _)| **n > 0).map(|(n, word)| format!("{n} {word}")).collect();
            (!parts.is_empty()).then(|| format!("{what}: {}", sentence(&parts)))
        };
        let parts: Vec<String> =
            [part(tally.steps, "Steps"), part(tally.effects, "Effects")].into_iter().flatten().collect();
        self.out.push('\n');
        let text = if parts.is_empty() { "No effect differs.".to_owned() } else { format!("{}.", parts.join(". ")) };
        for line in wrap(&text, self.width) {
            self.out.push_str(&self.paint.style(Style::Bold, &line));
            self.out.push('\n');
        }
    }
}

fn told(effect: &Effect) -> String {
    let place = if effect.inside { " (in the process that it makes)" } else { "" };
    let kept = if effect.class == Class::Kept { " (kept)" } else { "" };
    format!("{}{kept}{place}", effect.does)
}

fn class(effect: &Effect) -> String {
    serde_json::to_value(effect.class).map_or_else(|_| format!("{:?}", effect.class), |v| compact(&v))
}

/// What is said of a step besides its effects. Where it is written does not count: an added comment is no difference.
fn about(step: &Step) -> Map<String, Value> {
    let mut map = match serde_json::to_value(Step { effects: Vec::new(), place: String::new(), ..step.clone() }) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    for key in ["address", "effects", "place"] {
        map.shift_remove(key);
    }
    let mut after: Vec<Value> = step.after.iter().map(|e| e.step.as_str().into()).collect();
    after.sort_by_key(compact);
    map.insert("after".to_owned(), Value::Array(after));
    map
}

fn fields(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<(Sign, String)> {
    let mut changes = Vec::new();
    collect("", old, new, &mut changes);
    changes
}

fn collect(path: &str, old: &Map<String, Value>, new: &Map<String, Value>, changes: &mut Vec<(Sign, String)>) {
    let full = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for (key, b) in new {
        match (old.get(key), b) {
            (None, _) => changes.push((Sign::Added, format!("{}: {}", full(key), compact(b)))),
            (Some(a), _) if a == b => {}
            (Some(Value::Object(a)), Value::Object(b)) if !is_shown(a) && !is_shown(b) => {
                collect(&full(key), a, b, changes);
            }
            (Some(a), _) => changes.push((Sign::Changed, changed(&full(key), a, b))),
        }
    }
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    changes.extend(gone.map(|(key, a)| (Sign::Removed, format!("{}: {}", full(key), compact(a)))));
}

/// A handle, or text with handles: one value for a person.
fn is_shown(map: &Map<String, Value>) -> bool {
    map.contains_key("shown") && (map.contains_key("handle") || map.contains_key("handles"))
}

/// Of two lists or maps only what differs is worth reading.
fn changed(key: &str, a: &Value, b: &Value) -> String {
    match (a, b) {
        (Value::Array(old), Value::Array(new)) => {
            let less: Vec<String> =
                old.iter().filter(|v| !new.contains(v)).map(|v| format!("-{}", compact(v))).collect();
            let more = new.iter().filter(|v| !old.contains(v)).map(|v| format!("+{}", compact(v)));
            let all: Vec<String> = less.into_iter().chain(more).collect();
            if all.is_empty() {
                format!("{key}: {}, in another order", count(new.len(), "item"))
            } else {
                format!("{key}: {}", all.join(" "))
            }
        }
        _ => format!("{key}: {} → {}", compact(a), compact(b)),
    }
}
