//! The dry run for reading in a terminal.
//!
//! Steps stand in an order in which they may run. What happens inside a process that a step makes is set apart by a rule at its left; a nested
//! plan is indented, or folded into one line. Each effect is marked with how it is taken back.

use std::collections::HashSet;

use super::model::{DryRun, Effect, How, Step, Why, compact};
use super::paint::{Paint, Style, count, pad, sentence, width, wrap};
use super::view::View;
use crate::effect::Class;
use crate::step::Nature;
use crate::types::Millis;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Use colour.
    pub color: bool,
    /// Columns.
    pub width: usize,
    /// Show each nested plan in one line.
    pub fold: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self { color: false, width: 80, fold: false }
    }
}

/// The mark of a class, and its colour.
pub(super) fn mark(class: Class) -> (&'static str, Style) {
    match class {
        Class::Reversible => ("+", Style::Green),
        Class::Scoped => ("·", Style::Blue),
        Class::Foreign => ("»", Style::Magenta),
        Class::Kept => ("=", Style::Yellow),
        Class::Commit => ("!", Style::Red),
    }
}

/// The mark of what only waits: there is nothing to take back.
pub(super) const WAITS: (&str, Style) = ("○", Style::Dim);

/// The text, with a newline at the end of each line and no space before it.
pub fn print(run: &DryRun, look: Look) -> String {
    let view = View::of(run);
    let mut page = Page { view: &view, look, paint: Paint { on: look.color }, out: String::new(), column: 0 };
    page.column = page.kind_column();
    page.head();
    page.steps();
    page.end();
    page.out
}

struct Page<'a> {
    view: &'a View<'a>,
    look: Look,
    paint: Paint,
    out: String,
    /// The width of the column of names.
    column: usize,
}

/// Where the last line was written: in which nested plan, in which site.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    scope: usize,
    site: Option<usize>,
}

type Piece<'a> = (&'a str, Style);

impl Page<'_> {
    fn line(&mut self, pieces: &[Piece]) {
        let mut text: String = String::new();
        let plain: String = pieces.iter().map(|(text, _)| *text).collect();
        let end = plain.trim_end().len();
        let mut used = 0;
        for (piece, style) in pieces {
            // Spaces at the end of a line are noise in a diff.
            let piece = &piece[..piece.len().min(end.saturating_sub(used))];
            used += piece.len();
            text.push_str(&self.paint.style(*style, piece));
        }
        self.out.push_str(&text);
        self.out.push('\n');
    }

    fn blank(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// Text that may need several lines, each after the same indent.
    fn wrapped(&mut self, first: &[Piece], rest: &[Piece], text: &str, style: Style) {
        let room = self.look.width.saturating_sub(first.iter().map(|(t, _)| width(t)).sum());
        for (i, line) in wrap(text, room).iter().enumerate() {
            let mut pieces = if i == 0 { first.to_vec() } else { rest.to_vec() };
            pieces.push((line, style));
            self.line(&pieces);
        }
    }

    fn head(&mut self) {
        let run = self.view.run;
        self.line(&[(&run.plan, Style::Bold)]);
        if !run.about.is_empty() {
            self.wrapped(&[], &[], &run.about, Style::Plain);
        }
        let mut rows: Vec<(&str, String, &str)> = run
            .params
            .iter()
            .filter(|p| !p.value.is_null())
            .map(|p| (p.name.as_str(), compact(&p.value), if p.default { "  (default)" } else { "" }))
            .collect();
        if let Some(own) = run.runs.first() {
            let opened = if run.opens { "  (continued)" } else { "" };
            rows.push(("run", own.root.join(&own.id).display().to_string(), opened));
        }
        self.blank();
        let column = rows.iter().map(|(name, ..)| width(name)).max().unwrap_or(0).min(24);
        for (name, value, note) in rows {
            let name = format!("  {}  ", pad(name, column));
            let indent = " ".repeat(width(&name));
            let room = self.look.width.saturating_sub(width(&name) + width(note));
            let lines = wrap(&value, room);
            for (i, line) in lines.iter().enumerate() {
                let lead = if i == 0 { &name } else { &indent };
                let note = if i + 1 == lines.len() { note } else { "" };
                self.line(&[(lead, Style::Dim), (line, Style::Plain), (note, Style::Dim)]);
            }
        }
    }

    /// Names of a usual length line up; longer ones push their own line out.
    fn kind_column(&self) -> usize {
        let view = self.view;
        let widths = view.order.iter().map(|&i| width(view.short(i, view.scope[i])));
        widths.filter(|w| *w <= 18).max().unwrap_or(0)
    }

    fn steps(&mut self) {
        let mut at = Place { scope: 0, site: None };
        let (mut armed, mut seen) = (HashSet::new(), HashSet::from([0]));
        for &i in &self.view.order {
            if self.look.fold
                && let Some(top) = self.view.top(self.view.scope[i])
            {
                if seen.insert(top) {
                    at = self.enter(at, Place { scope: 0, site: None }, &mut seen);
                    self.folded(top);
                }
                continue;
            }
            at = self.enter(at, Place { scope: self.view.scope[i], site: self.view.site[i] }, &mut seen);
            let step = self.view.step(i);
            if let Some(maker) = at.site
                && step.armed
                && armed.insert(maker)
            {
                self.armed(at);
            }
            self.step(i, at);
        }
        self.enter(at, Place { scope: 0, site: None }, &mut seen);
    }

    fn indent(&self, at: Place) -> String {
        "  ".repeat(self.view.depth(at.scope))
    }

    /// Leaves one site or nested plan and enters another.
    fn enter(&mut self, from: Place, to: Place, seen: &mut HashSet<usize>) -> Place {
        if from == to {
            return to;
        }
        if from.site.is_some() {
            let foot = format!("{}  ╰─", self.indent(from));
            self.line(&[(&foot, Style::Dim)]);
        }
        if from.scope != to.scope && to.scope != 0 {
            let outer = Place { scope: self.view.parent[to.scope].unwrap_or(0), site: None };
            let first = seen.insert(to.scope);
            if first && outer.scope != 0 && outer.scope != from.scope {
                self.enter(Place { scope: 0, site: None }, outer, seen);
            }
            self.title(to.scope, if first { "" } else { "  (continued)" }, false);
        }
        if let Some(maker) = to.site {
            self.blank();
            let name = format!("inside ‹{}›", self.view.short(maker, to.scope));
            let lead = format!("{}  ╭─ ", self.indent(to));
            self.line(&[(&lead, Style::Dim), (&name, Style::Bold)]);
        }
        to
    }

    fn title(&mut self, scope: usize, note: &str, folded: bool) {
        let view = self.view;
        let about = view.scope(scope);
        let parent = view.parent[scope].unwrap_or(0);
        let indent = "  ".repeat(view.depth(parent));
        let name = match about.address.strip_prefix(&format!("{}/", view.scope(parent).address)) {
            Some(rest) => rest,
            None => &about.address,
        };
        let first = view.order.iter().find(|&&i| view.scope[i] == scope).map(|&i| view.step(i).run.as_str());
        let outer = view.run.runs.first().map(|r| r.id.as_str());
        let run = first.filter(|r| Some(*r) != outer).map_or_else(String::new, |r| format!(", run {r}"));
        let arrow = if folded { "▸ " } else { "▾ " };
        self.blank();
        let plan = format!("  plan {}{run}", about.plan);
        self.line(&[
            (&indent, Style::Plain),
            (arrow, Style::Dim),
            (name, Style::Bold),
            (&plan, Style::Cyan),
            (note, Style::Plain),
        ]);
    }

    fn folded(&mut self, top: usize) {
        let view = self.view;
        let members = || view.order.iter().copied().filter(|&i| view.top(view.scope[i]) == Some(top));
        let steps = members().filter(|&i| !view.step(i).skipped).count();
        let effects = members().map(|i| view.step(i).effects.len()).sum();
        self.title(top, &format!("  {}, {}", count(steps, "step"), count(effects, "effect")), true);
        let mut after: Vec<String> = Vec::new();
        for (a, _) in members().flat_map(|i| &view.after[i]) {
            let name = view.step(*a).address.clone();
            if view.top(view.scope[*a]) != Some(top) && !after.contains(&name) {
                after.push(name);
            }
        }
        if !after.is_empty() {
            self.wrapped(
                &[("  ", Style::Plain)],
                &[("  ", Style::Plain)],
                &format!("after {}", after.join(", ")),
                Style::Dim,
            );
        }
    }

    fn armed(&mut self, at: Place) {
        let note = "armed: what follows is not waited for, and happens once it is released";
        let lead = format!("{}  ├─ ", self.indent(at));
        let rest = format!("{}  │  ", self.indent(at));
        self.wrapped(&[(&lead, Style::Dim)], &[(&rest, Style::Dim)], note, Style::Yellow);
    }

    fn step(&mut self, i: usize, at: Place) {
        let (view, step) = (self.view, self.view.step(i));
        let gutter = match at.site {
            Some(_) => format!("{}  │ ", self.indent(at)),
            None => self.indent(at),
        };
        match at.site {
            Some(_) => self.line(&[(&gutter, Style::Dim)]),
            None => self.blank(),
        }
        if step.skipped {
            let name = format!("{}  ", pad(view.short(i, at.scope), self.column));
            let note = format!("{}  skipped, its `if` is false", step.kind);
            return self.line(&[(&gutter, Style::Dim), (&name, Style::Dim), (&note, Style::Dim)]);
        }
        self.title_of_step(i, at, &gutter);
        let inner = format!("{gutter}  ");
        if let Some(condition) = &step.condition {
            let text = format!("only if {condition}");
            self.wrapped(&[(&inner, Style::Dim)], &[(&inner, Style::Dim)], &text, Style::Yellow);
        }
        if let Some(how) = &step.options {
            let text = options(how);
            self.wrapped(&[(&inner, Style::Dim)], &[(&inner, Style::Dim)], &text, Style::Dim);
        }
        for effect in step.effects.iter().filter(|e| !e.inside) {
            self.effect(step, effect, &inner);
        }
        self.inside(step, &inner);
    }

    /// Name, kind and marks at the left, what it waits for at the right or below.
    fn title_of_step(&mut self, i: usize, at: Place, gutter: &str) {
        let (view, step) = (self.view, self.view.step(i));
        let name = pad(view.short(i, at.scope), self.column);
        let marks = marks(step, view.run.main.contains(&step.address));
        let waits = self.waits(i, at.scope);
        let pieces = [
            (gutter, Style::Dim),
            (&name, Style::Bold),
            ("  ", Style::Plain),
            (&step.kind, Style::Cyan),
            (&marks, Style::Yellow),
        ];
        let used: usize = pieces.iter().map(|(t, _)| width(t)).sum();
        let room = self.look.width.saturating_sub(used);
        if width(&waits) + 2 <= room || waits.is_empty() {
            let gap = " ".repeat(room.saturating_sub(width(&waits)));
            let mut pieces = pieces.to_vec();
            pieces.extend([(gap.as_str(), Style::Plain), (waits.as_str(), Style::Dim)]);
            self.line(&pieces);
        } else {
            self.line(&pieces);
            let inner = format!("{gutter}  ");
            self.wrapped(&[(&inner, Style::Dim)], &[(&inner, Style::Dim)], &waits, Style::Dim);
        }
    }

    /// In a site one step follows the other: only what is elsewhere is worth a word.
    fn waits(&self, i: usize, scope: usize) -> String {
        let view = self.view;
        let elsewhere = |&&(a, why): &&(usize, Why)| match view.site[i] {
            Some(maker) => why != Why::Site && view.site[a] != Some(maker),
            None => true,
        };
        let names: Vec<&str> = view.after[i].iter().filter(elsewhere).map(|&(a, _)| view.short(a, scope)).collect();
        if names.is_empty() { String::new() } else { format!("after {}", names.join(", ")) }
    }

    fn effect(&mut self, step: &Step, effect: &Effect, inner: &str) {
        let (sign, style) = if step.nature == Nature::Waits { WAITS } else { mark(effect.class) };
        let note = match effect.class {
            Class::Kept => " (kept)",
            Class::Commit => " (one-way)",
            _ => "",
        };
        let lead = format!("{sign} ");
        let text = format!("{}{note}", effect.does);
        let rest = format!("{inner}    ");
        // A description of several lines has one of its own for each part; only the first is marked.
        for (i, part) in text.lines().enumerate() {
            let first: [Piece; 2] =
                if i == 0 { [(inner, Style::Dim), (&lead, style)] } else { [(&rest, Style::Dim), ("", style)] };
            self.wrapped(&first, &[(&rest, Style::Dim)], part, Style::Plain);
        }
    }

    fn inside(&mut self, step: &Step, inner: &str) {
        if !step.effects.iter().any(|e| e.inside) {
            return;
        }
        self.line(&[(inner, Style::Dim), ("then in it, first of all:", Style::Dim)]);
        let inner = format!("{inner}  ");
        for effect in step.effects.iter().filter(|e| e.inside) {
            self.effect(step, effect, &inner);
        }
    }

    fn end(&mut self) {
        let run = self.view.run;
        let sum = &run.summary;
        self.blank();
        self.line(&[(&"─".repeat(self.look.width), Style::Dim)]);
        let armed = if sum.armed > 0 { format!(" ({} armed)", sum.armed) } else { String::new() };
        let skipped = if sum.skipped > 0 { format!(", {} skipped", sum.skipped) } else { String::new() };
        let total = format!("{}{armed}{skipped}, {}.", count(sum.steps, "step"), count(sum.effects, "effect"));
        self.wrapped(&[], &[], &total, Style::Bold);
        self.legend();
        self.remains();
        self.outputs();
        self.read();
    }

    fn legend(&mut self) {
        let sum = &self.view.run.summary;
        let rows = [
            (mark(Class::Reversible), sum.reversible, "undo takes back one by one, last first"),
            (mark(Class::Scoped), sum.scoped, "gone with the process or namespace that holds them"),
            (mark(Class::Foreign), sum.foreign, "seen by other programs; undo calls their counterpart, at least once"),
            (mark(Class::Kept), sum.kept, "kept on purpose; undo leaves them"),
            (mark(Class::Commit), sum.commit, "one-way; after it only what is around it can be taken back"),
            (WAITS, sum.waits, "only waited for"),
        ];
        let most = rows.iter().map(|(_, n, _)| n.to_string().len()).max().unwrap_or(1);
        for ((sign, style), n, text) in rows.into_iter().filter(|(_, n, _)| *n > 0) {
            let number = format!(" {n:>most$}  ");
            let indent = " ".repeat(3 + width(&number));
            let lead = [("  ", Style::Plain), (sign, style), (&number, Style::Bold)];
            self.wrapped(&lead, &[(&indent, Style::Plain)], text, Style::Plain);
        }
    }

    fn remains(&mut self) {
        let view = self.view;
        let kept: Vec<(usize, &Effect)> = view
            .order
            .iter()
            .flat_map(|&i| view.step(i).effects.iter().map(move |e| (i, e)))
            .filter(|(_, e)| e.class == Class::Kept)
            .collect();
        if view.run.summary.effects == 0 {
            return;
        }
        if kept.is_empty() {
            return self.wrapped(&[], &[], "Once undone, nothing stays.", Style::Plain);
        }
        self.line(&[("Once undone, this stays:", Style::Plain)]);
        for (i, effect) in kept {
            let text = format!("{} ({})", effect.does, view.step(i).address);
            self.wrapped(
                &[("  ", Style::Plain), ("= ", Style::Yellow)],
                &[("      ", Style::Plain)],
                &text,
                Style::Plain,
            );
        }
    }

    fn outputs(&mut self) {
        let Some(outputs) = self.view.run.outputs.as_object() else { return };
        for (name, value) in outputs {
            let lead = format!("Output {name}: ");
            self.wrapped(&[(&lead, Style::Plain)], &[("  ", Style::Plain)], &compact(value), Style::Plain);
        }
    }

    fn read(&mut self) {
        let facts = &self.view.run.facts;
        let mut from = Vec::new();
        if !facts.host.is_empty() {
            from.push(count(facts.host.len(), "fact"));
        }
        if !facts.files.is_empty() {
            let names: Vec<String> = facts.files.keys().map(|p| p.display().to_string()).collect();
            from.push(if names.len() <= 2 { sentence(&names) } else { count(names.len(), "file") });
        }
        if !from.is_empty() {
            let text = format!("Planned from {}; nothing was touched.", sentence(&from));
            self.wrapped(&[], &[], &text, Style::Dim);
        }
    }
}

fn marks(step: &Step, main: bool) -> String {
    let commits = step.nature == Nature::Commit || step.effects.iter().any(|e| e.class == Class::Commit);
    let marks = [
        (step.nature == Nature::Pure, "  only reads"),
        (step.nature == Nature::Waits, "  waits"),
        (commits, "  commit point"),
        (main, "  main"),
    ];
    marks.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect()
}

fn options(how: &How) -> String {
    let mut parts = Vec::new();
    if let Some(ms) = how.timeout_ms {
        parts.push(format!("at most {}", Millis(ms)));
    }
    if how.retries > 0 {
        parts.push(format!(
            "tried again up to {} after {}",
            count(how.retries as usize, "time"),
            Millis(how.backoff_ms)
        ));
    }
    if how.continue_on_error {
        parts.push("its failure undoes only itself".to_owned());
    }
    parts.join("; ")
}
