//! The dry run for Markdown, as a Mermaid flowchart.

use std::fmt::Write;

use super::groups::{Item, items};
use super::model::{DryRun, Step, Why};
use super::paint::{clean, count};
use super::view::View;
use crate::effect::Class;
use crate::step::Nature;

const CLASSES: &str = "  classDef pure fill:#f0f2f4,stroke:#9aa7b4
  classDef reversible fill:#fff,stroke:#2e9e5b
  classDef waits fill:#fff,stroke:#e0a020
  classDef commit fill:#fff,stroke:#c93535,stroke-width:2px
  classDef armed fill:#fff,stroke:#c93535,stroke-dasharray:5 3
  classDef skipped fill:#fff,stroke:#c3ccd4,color:#9aa7b4,stroke-dasharray:2 2
";

/// The flowchart.
pub fn print(run: &DryRun) -> String {
    let view = View::of(run);
    // A JSON string is a YAML string: the head is YAML.
    let title = serde_json::Value::String(clean(&run.plan)).to_string();
    let mut out = format!("---\ntitle: {title}\n---\nflowchart TB\n");
    let mut depth = 1;
    for item in items(&view) {
        let pad = "  ".repeat(depth);
        // Writing to a String cannot fail, here and below.
        let _ = match item {
            Item::Plan(scope) => {
                depth += 1;
                let label = format!("{}: plan {}", view.scope(scope).address, view.scope(scope).plan);
                writeln!(out, "{pad}subgraph plan{scope}[\"{}\"]", escape(&label))
            }
            Item::Site(maker) => {
                depth += 1;
                let label = format!("inside ‹{}›", view.step(maker).address);
                writeln!(out, "{pad}subgraph site{maker}[\"{}\"]", escape(&label))
            }
            Item::Step(i) => writeln!(out, "{pad}n{i}[\"{}\"]:::{}", label(view.step(i)), class(view.step(i))),
            Item::End => {
                depth -= 1;
                writeln!(out, "{}end", "  ".repeat(depth))
            }
        };
    }
    for &to in &view.order {
        for &(from, why) in &view.after[to] {
            let arrow = match why {
                Why::Data => "-->",
                Why::Order => "-.->",
                Why::Site => "==>",
            };
            let _ = writeln!(out, "  n{from} {arrow} n{to}");
        }
    }
    out + CLASSES
}

fn label(step: &Step) -> String {
    let mut lines = vec![format!("<b>{}</b>", escape(&step.address)), escape(&step.kind)];
    lines.extend(step.condition.as_ref().map(|c| format!("if {}", escape(c))));
    if !step.effects.is_empty() {
        lines.push(count(step.effects.len(), "effect"));
    }
    lines.join("<br>")
}

fn class(step: &Step) -> &'static str {
    match step.nature {
        _ if step.skipped => "skipped",
        _ if step.armed => "armed",
        Nature::Commit => "commit",
        _ if step.effects.iter().any(|e| e.class == Class::Commit) => "commit",
        Nature::Pure => "pure",
        Nature::Reversible => "reversible",
        Nature::Waits => "waits",
    }
}

/// Everything that Mermaid, its Markdown or its HTML could read as its own, spelled by number.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in clean(text).chars() {
        if c.is_alphanumeric() || " /._-,:+=‹›@".contains(c) {
            out.push(c);
        } else {
            let _ = write!(out, "#{};", u32::from(c));
        }
    }
    out
}
