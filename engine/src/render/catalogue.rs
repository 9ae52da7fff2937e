//! The catalogue: what kinds of steps and effects there are, and one kind's documentation. All of it comes from the registry.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::model::compact;
use super::paint::{Paint, Style, pad, width, wrap};
use super::text::mark;
use crate::effect::Class;
use crate::step::{EffectKind, Nature, Place, Registry, StepKind};
use crate::types::{Field, Millis, Size, Struct, Type};

/// The version of the JSON form.
pub const VERSION: u32 = 1;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Use colour.
    pub color: bool,
    /// Columns.
    pub width: usize,
}

/// All kinds of steps by subject, each with its description's first sentence.
pub fn steps(registry: &Registry, look: Look) -> String {
    let rows = registry.steps().map(|s| (s.kind, format!("{}{}", sentence_of(s), note(s))));
    let mut out = table(rows.collect(), look);
    out.push_str("\n`lifecycle steps KIND` documents one.\n");
    out
}

/// The first sentence of its description.
fn sentence_of(step: &StepKind) -> String {
    let about = structure(step.input()).map_or("", |s| s.about.as_str());
    let about = if about.is_empty() { step.changes } else { about };
    let paragraph = about.split("\n\n").next().unwrap_or(about).replace('\n', " ");
    match paragraph.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => paragraph,
    }
}

fn note(step: &StepKind) -> &'static str {
    match (step.nature, step.place) {
        (Nature::Commit, _) => " (one-way)",
        (_, Place::Inside) => " (inside)",
        _ => "",
    }
}

/// All kinds of effects with their classes, and one example of each.
pub fn effects(registry: &Registry, look: Look) -> String {
    let paint = Paint { on: look.color };
    let column = registry.effects().map(|e| width(e.kind)).max().unwrap_or(0);
    let mut out = String::new();
    for kind in registry.effects() {
        let (classes, example) = shape(kind);
        let signs: String = classes.iter().map(|c| mark(*c).0).collect();
        let style = classes.first().map_or(Style::Plain, |c| mark(*c).1);
        let name = pad(kind.kind, column);
        let lead = 6 + column;
        for (i, line) in wrap(&example, look.width.saturating_sub(lead)).iter().enumerate() {
            let head = if i == 0 {
                format!("{}  {}  ", paint.style(style, &pad(&signs, 2)), paint.style(Style::Cyan, &name))
            } else {
                " ".repeat(lead)
            };
            push(&mut out, &format!("{head}{}", paint.style(Style::Plain, line)));
        }
    }
    let legend = [Class::Reversible, Class::Scoped, Class::Foreign, Class::Kept, Class::Commit]
        .map(|c| format!("{} {}", mark(c).0, class(c)))
        .join("   ");
    push(&mut out, "");
    push(&mut out, &paint.style(Style::Dim, &legend));
    out
}

/// One kind of step.
pub fn step(kind: &StepKind, look: Look) -> String {
    let mut page = Page { look, paint: Paint { on: look.color }, out: String::new() };
    let about = structure(kind.input()).map(|s| s.about.clone()).unwrap_or_default();
    let title = page.paint.style(Style::Bold, kind.kind);
    push(&mut page.out, &title);
    page.prose(0, &about);
    page.heading("");
    page.row("changes", kind.changes);
    page.row("reversed by", kind.reversed_by);
    page.row("nature", nature(kind.nature));
    page.row("place", place(kind));
    if !kind.after.is_empty() {
        page.row("comes after", &format!("{} (in the same site)", kind.after.join(", ")));
    }
    if kind.arms {
        page.row("arms", "what follows it in its site happens when another run releases it");
    }
    page.heading("Fields of `with`");
    page.fields(kind.input(), Side::With);
    page.heading("Output");
    page.fields(kind.output(), Side::Output);
    for example in kind.examples {
        page.heading(&format!("Example: {}", example.about));
        for line in example.plan.trim_matches('\n').lines() {
            let line = format!("  {}", super::paint::clean(line));
            push(&mut page.out, &line);
        }
    }
    page.out
}

/// All kinds of steps as JSON.
pub fn steps_json(registry: &Registry) -> Value {
    json!({ "lifecycle_steps": VERSION, "steps": registry.steps().map(step_json).collect::<Vec<_>>() })
}

/// All kinds of effects as JSON.
pub fn effects_json(registry: &Registry) -> Value {
    let effects = registry.effects().map(|kind| {
        let (classes, example) = shape(kind);
        json!({ "kind": kind.kind, "classes": classes, "example": example })
    });
    json!({ "lifecycle_effects": VERSION, "effects": effects.collect::<Vec<_>>() })
}

/// One kind of step as JSON.
pub fn step_json(kind: &StepKind) -> Value {
    json!({
        "kind": kind.kind,
        "about": structure(kind.input()).map(|s| s.about.clone()).unwrap_or_default(),
        "changes": kind.changes,
        "reversed_by": kind.reversed_by,
        "nature": kind.nature,
        "place": kind.place,
        "makes_site": kind.makes_site,
        "arms": kind.arms,
        "after": kind.after,
        "with": fields_json(kind.input()),
        "schema": kind.schema(),
        "output": fields_json(kind.output()),
        "examples": kind.examples,
    })
}

fn push(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Reversible => "reversible",
        Class::Scoped => "scoped",
        Class::Foreign => "foreign",
        Class::Kept => "kept",
        Class::Commit => "commit",
    }
}

fn nature(nature: Nature) -> &'static str {
    match nature {
        Nature::Pure => "only reads: runs while planning, and its output is a value",
        Nature::Reversible => "can be taken back",
        Nature::Waits => "waits, and changes nothing",
        Nature::Commit => "one-way: waits for every reversible step that does not depend on it",
    }
}

fn place(kind: &StepKind) -> &'static str {
    match (kind.place, kind.makes_site) {
        (Place::Inside, _) => "in the process that `site:` names",
        (Place::Either, _) => "on the host, or in the process that `site:` names",
        (Place::Host, true) => "on the host; makes a process that can be a site",
        (Place::Host, false) => "on the host",
    }
}

/// The classes that its examples have, and what the first one says. Examples are data: to make one touches nothing.
fn shape(kind: &EffectKind) -> (Vec<Class>, String) {
    let examples = (kind.examples)(Path::new("/scratch"));
    let mut seen = BTreeSet::new();
    let classes = examples.iter().map(|e| e.class()).filter(|c| seen.insert(class(*c))).collect();
    (classes, examples.first().map(|e| e.describe()).unwrap_or_default())
}

fn table(rows: Vec<(&str, String)>, look: Look) -> String {
    let paint = Paint { on: look.color };
    let column = rows.iter().map(|(kind, _)| width(kind)).max().unwrap_or(0);
    let mut out = String::new();
    let mut subject = "";
    for (kind, text) in rows {
        let own = kind.split('.').next().unwrap_or(kind);
        if !subject.is_empty() && own != subject {
            push(&mut out, "");
        }
        subject = own;
        for (i, line) in wrap(&text, look.width.saturating_sub(column + 2)).iter().enumerate() {
            let head = if i == 0 { paint.style(Style::Cyan, &pad(kind, column)) } else { " ".repeat(column) };
            push(&mut out, &format!("{head}  {}", paint.style(Style::Plain, line)));
        }
    }
    out
}

/// The structure that the type is, behind null and the like.
fn structure(ty: &Type) -> Option<&Struct> {
    match ty {
        Type::Struct(s) => Some(s),
        Type::List(t) | Type::Map(t) | Type::Nullable(t) | Type::Sensitive(t) | Type::Later(t, _) => structure(t),
        _ => None,
    }
}

/// Whether a field is given or got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    With,
    Output,
}

struct Page {
    look: Look,
    paint: Paint,
    out: String,
}

/// Structures that hold themselves, and those that the runtime spec nests without end, are shown this deep.
const DEPTH: usize = 3;

impl Page {
    fn prose(&mut self, indent: usize, text: &str) {
        for paragraph in text.split("\n\n").filter(|p| !p.trim().is_empty()) {
            for line in wrap(&paragraph.replace('\n', " "), self.look.width.saturating_sub(indent)) {
                push(&mut self.out, &format!("{}{line}", " ".repeat(indent)));
            }
        }
    }

    fn heading(&mut self, text: &str) {
        push(&mut self.out, "");
        if !text.is_empty() {
            let text = self.paint.style(Style::Bold, text);
            push(&mut self.out, &text);
        }
    }

    fn row(&mut self, name: &str, text: &str) {
        for (i, line) in wrap(&text.replace('\n', " "), self.look.width.saturating_sub(15)).iter().enumerate() {
            let name = pad(if i == 0 { name } else { "" }, 13);
            let row = format!("{}  {}", self.paint.style(Style::Dim, &name), self.paint.style(Style::Plain, line));
            push(&mut self.out, &row);
        }
    }

    fn fields(&mut self, ty: &Type, side: Side) {
        match structure(ty) {
            Some(s) if !s.fields.is_empty() => s.fields.iter().for_each(|f| self.field(f, 1, side)),
            Some(_) => push(&mut self.out, "  none"),
            None => {
                let text = format!("  {ty}");
                push(&mut self.out, &text);
            }
        }
    }

    fn field(&mut self, field: &Field, depth: usize, side: Side) {
        let indent = "  ".repeat(depth);
        let mut note = String::new();
        match &field.default {
            _ if side == Side::Output => note.push_str(if field.ty.accepts_null() { "may be null" } else { "" }),
            // Writing to a String cannot fail.
            Some(default) if !default.is_null() => {
                let shown = with_unit(field.ty.required(), default).unwrap_or_else(|| shorten(&compact(default)));
                let _ = write!(note, "default {shown}");
            }
            _ if field.required => note.push_str("required"),
            _ => note.push_str("optional"),
        }
        let ty = field.ty.required().to_string();
        let row = format!(
            "{indent}{}  {}  {}",
            self.paint.style(Style::Bold, &field.name),
            self.paint.style(Style::Cyan, &ty),
            self.paint.style(Style::Dim, &note)
        );
        if width(&field.name) + width(&ty) + width(&note) + indent.len() + 4 > self.look.width {
            let first = format!(
                "{indent}{}  {}",
                self.paint.style(Style::Bold, &field.name),
                self.paint.style(Style::Dim, &note)
            );
            push(&mut self.out, &first);
            self.prose(indent.len() + 4, &ty);
        } else {
            push(&mut self.out, &row);
        }
        self.prose(indent.len() + 4, &field.about);
        if depth < DEPTH
            && let Some(inner) = structure(&field.ty)
        {
            inner.fields.iter().for_each(|f| self.field(f, depth + 1, side));
        }
    }
}

fn shorten(text: &str) -> String {
    if width(text) <= 40 { text.to_owned() } else { text.chars().take(39).collect::<String>() + "…" }
}

fn fields_json(ty: &Type) -> Value {
    match structure(ty) {
        Some(s) => s.fields.iter().map(|f| field_json(f, 1)).collect(),
        None => json!(ty.to_string()),
    }
}

fn field_json(field: &Field, depth: usize) -> Value {
    let mut value = json!({
        "name": field.name,
        "type": field.ty.to_string(),
        "required": field.required,
        "default": field.default,
        "about": field.about,
    });
    if depth < DEPTH
        && let (Some(inner), Some(map)) = (structure(&field.ty), value.as_object_mut())
    {
        map.insert("fields".into(), inner.fields.iter().map(|f| field_json(f, depth + 1)).collect());
    }
    value
}

/// A default as a plan would say it.
fn with_unit(ty: &Type, default: &Value) -> Option<String> {
    match ty {
        Type::Duration => default.as_u64().map(|ms| Millis(ms).to_string()),
        Type::Size => default.as_u64().map(|bytes| Size(bytes).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::effect::{Applied, Cx, EffectDef, Record, Undone};
    use crate::error::{EffectError, PlanError};
    use crate::render::tests::snapshot;
    use crate::step::{Example, Planning, Step};
    use crate::types::{Mode, Size};

    #[derive(Debug, Serialize, Deserialize)]
    struct Directory {
        path: std::path::PathBuf,
    }

    impl EffectDef for Directory {
        const KIND: &'static str = "directory";
        fn examples(scratch: &Path) -> Vec<Self> {
            vec![Self { path: scratch.join("a") }]
        }
        fn class(&self) -> Class {
            Class::Reversible
        }
        fn describe(&self) -> String {
            format!("make the directory {}", self.path.display())
        }
        fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
            Ok(Applied::done())
        }
        fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
            Ok(Undone::Done)
        }
    }

    struct MakeDirectory;

    /// Makes a directory that belongs to the run.
    ///
    /// One that is there already is left as it is, and is not removed afterwards.
    #[derive(Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is read")]
    struct Input {
        /// Where. Parents are not made.
        path: crate::types::HostPath,
        /// Its permissions, whatever the umask says.
        #[serde(default = "usual")]
        mode: Mode,
        /// What may go in.
        limits: Option<Limits>,
    }

    /// Limits.
    #[derive(Deserialize, schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is read")]
    struct Limits {
        /// Bytes in all.
        bytes: Option<Size>,
    }

    #[derive(Serialize, schemars::JsonSchema)]
    struct Output {
        /// Where it is.
        path: String,
    }

    fn usual() -> Mode {
        Mode(0o755)
    }

    impl Step for MakeDirectory {
        const KIND: &'static str = "file.directory";
        const CHANGES: &'static str = "Makes one directory, with exactly the permissions that are asked for.";
        const REVERSED_BY: &'static str = "Removing it, if it was not there before and is empty.";
        const PLACE: Place = Place::Inside;
        const AFTER: crate::step::After = &["rootfs.pivot"];
        const EXAMPLES: &'static [Example] = &[Example {
            about: "a directory for logs",
            plan: "plan: example\nsteps:\n  logs: { uses: file.directory, with: { path: /var/log/web } }\n",
            needs: &[],
        }];
        type Input = Input;
        type Output = Output;
        fn plan(input: Input, _: &mut Planning) -> Result<Output, PlanError> {
            Ok(Output { path: input.path.to_string() })
        }
    }

    fn registry() -> Registry {
        Registry::new([StepKind::of::<MakeDirectory>()], [EffectKind::of::<Directory>()])
    }

    #[test]
    fn the_catalogue_says_all_that_the_types_know() {
        let (registry, look) = (registry(), Look { color: false, width: 80 });
        snapshot("steps.txt", &steps(&registry, look));
        snapshot("effects.txt", &effects(&registry, look));
        let kind = registry.step("file.directory").expect("registered");
        snapshot("step.txt", &step(kind, look));
        snapshot("step.json", &serde_json::to_string_pretty(&step_json(kind)).expect("json"));
        assert_eq!(steps_json(&registry)["steps"][0]["with"][1]["default"], "0755");
        assert_eq!(effects_json(&registry)["effects"][0]["classes"], json!(["reversible"]));
    }
}
