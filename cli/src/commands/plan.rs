//! `lifecycle plan`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lifecycle_engine::facts::Recorded;
use lifecycle_engine::render::saved::{self, Saved};
use lifecycle_engine::render::{DryRun, diff, dot, json, mermaid, svg, text};
use lifecycle_engine::step::Registry;
use serde_json::Value;

use crate::args::{Format, Global, Plan};
use crate::load::{self, Planned, Wanted};
use crate::print::{self, Failure, failed, refused};
use lifecycle_cli::builtin::LIBRARY;

/// Shows one plan, saves it, or compares two.
pub fn run(global: &Global, args: &Plan) -> Result<ExitCode, Failure> {
    let registry = lifecycle_steps::registry();
    if args.diff {
        return compare(global, args, &registry);
    }
    let ([source], [] | [_]) = (args.plans.as_slice(), args.facts.as_slice()) else {
        return Err(refused("two plans or two fact files can only be compared", "add --diff"));
    };
    let facts = args.facts.first().map(PathBuf::as_path);
    let shown = match &args.output {
        None => side(global, args, &registry, source, facts)?,
        Some(path) => Side::Run(Box::new(save(global, args, &registry, source, path)?)),
    };
    match shown {
        Side::Run(run) => print::text(&print(&run, args, global)),
        Side::Facts(_) => {
            Err(refused(format!("{source} is a file of facts, not a plan"), "compare it with another one: --diff"))
        }
    }
}

fn print(run: &DryRun, args: &Plan, global: &Global) -> String {
    match args.format {
        Format::Text => {
            text::print(run, text::Look { color: print::color(global), width: print::width(), fold: args.fold })
        }
        Format::Json => json::print(run),
        Format::Dot => dot::print(run),
        Format::Mermaid => mermaid::print(run),
        Format::Svg => svg::print(run),
    }
}

/// One side of a comparison.
enum Side {
    /// What would happen.
    Run(Box<DryRun>),
    /// What a host offers.
    Facts(Box<Recorded>),
}

fn wanted<'a>(args: &'a Plan, source: &'a str, facts: Option<&'a Path>) -> Wanted<'a> {
    Wanted { source, params: &args.params, command: &args.command, mask: &args.mask, facts }
}

/// A plan is planned; a saved plan, a dry run in JSON and a file of facts are read.
fn side(
    global: &Global,
    args: &Plan,
    registry: &Registry,
    source: &str,
    facts: Option<&Path>,
) -> Result<Side, Failure> {
    if let Some(side) = stored(source)? {
        if facts.is_some() {
            return Err(refused(
                format!("{source} was planned against its own facts"),
                "leave out --facts, or name the plan itself",
            ));
        }
        return Ok(side);
    }
    let planned = load::planned(global, registry, &wanted(args, source, facts))?;
    Ok(Side::Run(Box::new(planned.dry_run())))
}

fn stored(source: &str) -> Result<Option<Side>, Failure> {
    let path = Path::new(source);
    if !path.is_file() {
        return Ok(None);
    }
    let text = load::read(path)?;
    // Plans are YAML, of which JSON is a part: what kind of JSON it is says its first key.
    let Ok(Value::Object(map)) = serde_json::from_str(&text) else { return Ok(None) };
    let wrong = |why| refused(format!("cannot use {source}: {why}"), "write it again with this version of the program");
    if map.contains_key("lifecycle_saved_plan") {
        return Saved::parse(&text).map(|saved| Some(Side::Run(Box::new(saved.dry_run)))).map_err(wrong);
    }
    if map.contains_key("lifecycle_dry_run") {
        return json::parse(&text).map(|run| Some(Side::Run(Box::new(run)))).map_err(wrong);
    }
    if map.contains_key("host") {
        return load::facts_file(path).map(|facts| Some(Side::Facts(Box::new(facts))));
    }
    Ok(None)
}

fn compare(global: &Global, args: &Plan, registry: &Registry) -> Result<ExitCode, Failure> {
    let (Some(first), Some(last)) = (args.plans.first(), args.plans.last()) else {
        return Err(refused("there is nothing to compare", "name two plans"));
    };
    if args.plans.len() < 2 && args.facts.len() < 2 {
        return Err(refused("there is nothing to compare it with", "name a second plan, or --facts twice"));
    }
    let old = side(global, args, registry, first, args.facts.first().map(PathBuf::as_path))?;
    let new = side(global, args, registry, last, args.facts.last().map(PathBuf::as_path))?;
    let look = diff::Look { color: print::color(global), width: print::width(), facts: true };
    let difference = match (&old, &new) {
        (Side::Run(old), Side::Run(new)) => diff::text(old, new, &look),
        (Side::Facts(old), Side::Facts(new)) => diff::facts_text(old, new, &look),
        _ => return Err(refused("a plan cannot be compared with a file of facts", "give the facts with --facts")),
    };
    match difference {
        None => print::text("no difference\n"),
        Some(text) => print::text(&text).map(|_| ExitCode::from(1)),
    }
}

/// Plans by absolute path, so that the saved plan can be run from any directory.
fn save(global: &Global, args: &Plan, registry: &Registry, source: &str, path: &Path) -> Result<DryRun, Failure> {
    if !args.facts.is_empty() {
        return Err(refused("a plan against other facts cannot be run here", "save it without --facts"));
    }
    let absolute = std::path::absolute(source).map_err(|e| failed(format!("cannot use {source}"), &e))?;
    let name = match LIBRARY.text(source) {
        Some(_) if !absolute.is_file() => source.to_owned(),
        _ => absolute.display().to_string(),
    };
    let planned = load::planned(global, registry, &wanted(args, &name, None))?;
    let dry_run = planned.dry_run();
    // A bundle is saved as the plan that runs it.
    let plan = if absolute.is_dir() && name != source { planned.program.plan.clone() } else { name };
    let saved = Saved {
        lifecycle_saved_plan: saved::VERSION,
        plan,
        sources: planned.sources.clone(),
        params: given(&planned),
        sensitive: planned.sensitive.clone(),
        command: args.command.clone(),
        mask: args.mask.clone(),
        digest: saved::digest(&dry_run),
        dry_run,
    };
    private(path, &saved.print())?;
    Ok(saved.dry_run)
}

/// All parameters but the sensitive ones; those that follow from `--` are among them.
fn given(planned: &Planned) -> std::collections::BTreeMap<String, Value> {
    let open = planned.params.iter().filter(|p| !p.value.is_null() && !planned.sensitive.contains(&p.name));
    open.map(|p| (p.name.clone(), p.value.clone())).collect()
}

/// Paths, commands and parameters are nobody else's business.
fn private(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| failed(format!("cannot write {}", path.display()), &e))
}
