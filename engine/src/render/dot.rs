//! The dry run for Graphviz.

use super::groups::{Item, items};
use super::model::{DryRun, Step, Why};
use super::paint::{clean, count};
use super::view::View;
use crate::effect::Class;
use crate::step::Nature;

/// The graph in the DOT language.
pub fn print(run: &DryRun) -> String {
    let view = View::of(run);
    let mut out = Vec::new();
    out.push(format!("digraph {} {{", quote(&run.plan)));
    out.push(format!(
        "  label={}; labelloc=t; fontname=\"sans-serif\"; labeljust=l; rankdir=TB; newrank=true;",
        quote(&run.about)
    ));
    out.push(
        "  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"sans-serif\", fontsize=11];".into(),
    );
    out.push("  edge [color=\"#8796a5\", arrowsize=0.7];".into());
    let mut depth = 1;
    for item in items(&view) {
        let pad = "  ".repeat(depth);
        match item {
            Item::Plan(scope) => {
                let label = format!("{}  plan {}", view.scope(scope).address, view.scope(scope).plan);
                out.push(format!(
                    "{pad}subgraph cluster_plan{scope} {{ label={}; style=rounded; color=\"#d9d2bd\";",
                    quote(&label)
                ));
                depth += 1;
            }
            Item::Site(maker) => {
                let label = format!("inside ‹{}›", view.step(maker).address);
                let style = "style=\"rounded,filled\"; fillcolor=\"#eaf3fb\"; color=\"#bcd7ee\";";
                out.push(format!("{pad}subgraph cluster_site{maker} {{ label={}; {style}", quote(&label)));
                depth += 1;
            }
            Item::Step(i) => out.push(format!("{pad}n{i} [{}];", node(view.step(i)))),
            Item::End => {
                depth -= 1;
                out.push(format!("{}}}", "  ".repeat(depth)));
            }
        }
    }
    for &to in &view.order {
        for &(from, why) in &view.after[to] {
            out.push(format!("  n{from} -> n{to}{};", edge(why)));
        }
    }
    out.push("}\n".into());
    out.join("\n")
}

fn node(step: &Step) -> String {
    let mut lines = vec![step.address.clone(), step.kind.clone()];
    lines.extend(step.condition.as_ref().map(|c| format!("if {c}")));
    let commits = step.nature == Nature::Commit || step.effects.iter().any(|e| e.class == Class::Commit);
    let kept = step.effects.iter().filter(|e| e.class == Class::Kept).count();
    let mut notes = Vec::new();
    if !step.effects.is_empty() {
        notes.push(count(step.effects.len(), "effect"));
    }
    for (holds, note) in
        [(commits, "commit point"), (step.armed, "armed"), (step.skipped, "skipped"), (kept > 0, "keeps some")]
    {
        if holds {
            notes.push(note.to_owned());
        }
    }
    if !notes.is_empty() {
        lines.push(notes.join(", "));
    }
    // `\n` joins the lines for Graphviz; each line has had its own backslashes escaped.
    let label = lines.iter().map(|l| escape(l)).collect::<Vec<_>>().join("\\n");
    let style = match step.nature {
        _ if step.skipped => ", style=\"rounded,filled,dotted\", fontcolor=\"#8796a5\"",
        _ if step.armed => ", style=\"rounded,filled,dashed\", color=\"#c93535\"",
        _ if commits => ", color=\"#c93535\", penwidth=2",
        Nature::Pure => ", fillcolor=\"#f0f2f4\"",
        Nature::Waits => ", color=\"#e0a020\"",
        Nature::Reversible | Nature::Commit => "",
    };
    format!("label=\"{label}\"{style}")
}

fn edge(why: Why) -> &'static str {
    match why {
        Why::Data => " [color=\"#2f6fb2\"]",
        Why::Order => "",
        Why::Site => " [color=\"#14866d\", penwidth=2]",
    }
}

fn escape(text: &str) -> String {
    clean(text).replace('\\', "\\\\").replace('"', "\\\"")
}

fn quote(text: &str) -> String {
    format!("\"{}\"", escape(text))
}
