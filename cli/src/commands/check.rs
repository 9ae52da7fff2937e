//! `lifecycle check`.

use std::fmt::Write;
use std::process::ExitCode;

use lifecycle_engine::graph::Graph;
use lifecycle_engine::render::paint;

use crate::args::{Check, Global};
use crate::load;
use crate::print::{self, Failure};

/// Reports every problem of every plan, and goes on after one that is wrong.
pub fn run(global: &Global, args: &Check) -> Result<ExitCode, Failure> {
    let registry = lifecycle_steps::registry();
    let mut wrong = 0;
    for plan in &args.plans {
        match load::compile(plan, &registry)? {
            Err(report) => {
                wrong += 1;
                eprint!("{}", report.render(print::style(global)));
            }
            // To root it is no news.
            Ok(graph) if !rustix::process::geteuid().is_root() => eprint!("{}", remarks(&graph)),
            Ok(_) => {}
        }
    }
    if wrong == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let of = if args.plans.len() == 1 { String::new() } else { format!(" of {} plans", args.plans.len()) };
    eprintln!("{wrong}{of} {} problems", if wrong == 1 { "has" } else { "have" });
    print::text("").map(|_| ExitCode::from(1))
}

/// What is no mistake, and good to know beforehand.
fn remarks(graph: &Graph) -> String {
    let mut text = String::new();
    for item in &graph.order {
        if let Some(why) = graph.takes_root(*item) {
            let place = graph.place(*item);
            let file = graph.sources.get(place.file).name();
            let line = graph.sources.get(place.file).line_column(place.span.start).0;
            let step = graph.address(*item);
            let _ = writeln!(text, "{file}:{line}: step `{step}` needs root: {why}");
        }
    }
    paint::lines(&text)
}
