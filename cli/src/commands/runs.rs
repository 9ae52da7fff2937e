//! `lifecycle runs`.

use std::fmt::Write;
use std::process::ExitCode;

use lifecycle_engine::journal::{self, RunState, Status};
use lifecycle_engine::render::from_journal;
use lifecycle_engine::render::paint;
use lifecycle_engine::run::is_alive;
use serde_json::json;

use crate::args::{Global, Output, Runs};
use crate::place;
use crate::print::{self, Failure};
use crate::watch::span;

/// Executes the command.
pub fn run(global: &Global, args: &Runs) -> Result<ExitCode, Failure> {
    let mut rows = Vec::new();
    for names in place::runs(global)? {
        rows.push(match journal::read(&names) {
            Ok(state) => Row::of(&state),
            Err(e) => Row {
                id: names.id,
                plan: String::new(),
                state: format!("unreadable: {e}"),
                steps: 0,
                age: String::new(),
                parent: None,
            },
        });
    }
    match args.format {
        Output::Json => {
            let rows: Vec<_> = rows
                .iter()
                .map(|r| json!({ "id": r.id, "plan": r.plan, "state": r.state, "steps": r.steps, "parent": r.parent }))
                .collect();
            print::text(&format!("{:#}\n", json!(rows)))
        }
        Output::Text => print::text(&table(&rows)),
    }
}

struct Row {
    id: String,
    plan: String,
    state: String,
    steps: usize,
    age: String,
    parent: Option<String>,
}

impl Row {
    /// As a terminal may have it: a journal can be damaged, and an error names what it was about.
    fn shown(&self) -> Self {
        let parent = self.parent.as_deref().map(paint::clean);
        let (id, plan, state) = (paint::clean(&self.id), paint::clean(&self.plan), paint::clean(&self.state));
        Self { id, plan, state, steps: self.steps, age: self.age.clone(), parent }
    }

    fn of(state: &RunState) -> Self {
        let first = state.segments.first();
        let age = first.map_or_else(String::new, |s| span(s.began, lifecycle_engine::site::now()));
        let alive = state.segments.last().is_some_and(|s| is_alive(&s.engine));
        let (head, _) = from_journal(state, lifecycle_engine::site::now(), alive);
        let steps = state.begun().filter(|(_, n)| n.status != Status::Skipped).count();
        let plan = first.map_or_else(String::new, |s| s.plan.clone());
        Self { id: state.id.clone(), plan, state: head.state, steps, age, parent: state.parent.clone() }
    }
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no runs\n".into();
    }
    let rows: Vec<Row> = rows.iter().map(Row::shown).collect();
    let rows = &rows;
    let width = |f: fn(&Row) -> usize, title: &str| rows.iter().map(f).max().unwrap_or(0).max(title.len());
    let (id, plan, state) =
        (width(|r| r.id.len(), "RUN"), width(|r| r.plan.len(), "PLAN"), width(|r| r.state.len(), "STATE"));
    let mut text = format!("{:id$}  {:plan$}  {:state$}  STEPS  AGE\n", "RUN", "PLAN", "STATE");
    for r in rows {
        let within = r.parent.as_ref().map_or_else(String::new, |p| format!("  (in {p})"));
        let _ = writeln!(text, "{:id$}  {:plan$}  {:state$}  {:5}  {}{within}", r.id, r.plan, r.state, r.steps, r.age);
    }
    text
}
