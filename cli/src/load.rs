//! From what the caller names (a plan file, a built-in plan, a bundle, a saved plan) to a planned program.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use lifecycle_engine::compile;
use lifecycle_engine::diag::{FileId, Report, did_you_mean};
use lifecycle_engine::effect::RunNames;
use lifecycle_engine::error::in_words;
use lifecycle_engine::facts::{Facts, Recorded};
use lifecycle_engine::graph::Graph;
use lifecycle_engine::planning::{self, Bound, Given, Target};
use lifecycle_engine::program::Program;
use lifecycle_engine::render::saved::{Saved, Source};
use lifecycle_engine::render::{DryRun, Param};
use lifecycle_engine::step::Registry;
use lifecycle_engine::types::Type;
use lifecycle_steps::facts::Machine;
use serde_json::Value;

use lifecycle_cli::builtin::LIBRARY;
use lifecycle_cli::runs::{fresh_id, outputs, plain_id};

use crate::args::{Global, Params};

use crate::commands::facts::known;
use crate::place;
use crate::print::{Failure, failed, plainly, problems, refused};

/// What is to be planned.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The plan as the caller names it.
    pub source: &'a str,
    /// Its parameters.
    pub params: &'a Params,
    /// What follows `--`.
    pub command: &'a [String],
    /// Facts to act without.
    pub mask: &'a [String],
    /// Facts to plan against instead of this host's.
    pub facts: Option<&'a Path>,
}

/// The id of a run whose plan gives it none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    /// The plan's name: a dry run is the same every time.
    Plain,
    /// One that no other run has, so that a plan can be run several times at once.
    Fresh,
}

/// A planned program and what it came from.
#[derive(Debug)]
pub struct Planned {
    /// The program.
    pub program: Program,
    /// Its parameters, sensitive ones marked.
    pub params: Vec<Param>,
    /// The names of the sensitive ones that have a value.
    pub sensitive: Vec<String>,
    /// The plan files; built-in ones left out.
    pub sources: Vec<Source>,
}

impl Planned {
    /// What it would do.
    pub fn dry_run(&self) -> DryRun {
        DryRun::of(&self.program, self.params.clone())
    }
}

/// What the caller's word for a plan means.
enum Meaning {
    /// A plan built into the program, and the parameters that its short form stands for.
    Builtin(&'static str, Vec<String>),
    /// A plan file.
    File(PathBuf),
    /// A plan saved by `plan -o`.
    Saved(Box<Saved>),
}

/// Plans a program for a run. A saved plan is planned again and compared with what was shown.
pub fn program(global: &Global, registry: &Registry, wanted: &Wanted) -> Result<Program, Failure> {
    match meaning(wanted.source)? {
        Meaning::Saved(saved) => again(global, registry, wanted, &saved),
        meaning => fresh(global, registry, wanted, meaning, Id::Fresh).map(|planned| planned.program),
    }
}

/// Plans a program to be shown.
pub fn planned(global: &Global, registry: &Registry, wanted: &Wanted) -> Result<Planned, Failure> {
    fresh(global, registry, wanted, meaning(wanted.source)?, Id::Plain)
}

fn fresh(global: &Global, registry: &Registry, wanted: &Wanted, meaning: Meaning, id: Id) -> Result<Planned, Failure> {
    wanted.mask.iter().try_for_each(|name| known(name))?;
    let mut set = wanted.params.set.clone();
    let graph = match meaning {
        Meaning::Saved(_) => {
            let help = "`run` runs it, `plan --diff` compares it; to plan again name the plan itself";
            return Err(refused(format!("{} is a saved plan", wanted.source), help));
        }
        Meaning::Builtin(name, given) => {
            // What the caller says comes last, and counts.
            set.splice(0..0, given);
            builtin(name, registry)
        }
        Meaning::File(path) => compile::file(&path, registry, LIBRARY),
    };
    let graph = graph.map_err(|report| problems(&report, global))?;
    let file = wanted.params.file.as_deref().map(read).transpose()?;
    let file = wanted.params.file.as_deref().zip(file.as_deref()).map(|(path, text)| (path.to_string_lossy(), text));
    let given = Given { set: &set, file: file.as_ref().map(|(name, text)| (&**name, *text)), command: wanted.command };
    plan(global, &graph, given, wanted, id)
}

fn plan(global: &Global, graph: &Graph, given: Given, wanted: &Wanted, id: Id) -> Result<Planned, Failure> {
    let wrong = |report: Report| problems(&report, global);
    let bound = planning::bind(graph, given).map_err(wrong)?;
    let mut facts = match wanted.facts {
        Some(path) => Facts::fixed(facts_file(path)?),
        None => Facts::live(Box::new(Machine)).mask(wanted.mask.iter().cloned()),
    };
    let root = if wanted.facts.is_some() { root_of(global, &mut facts)? } else { place::root(global)? };
    let target = target(global, graph, &bound, &mut facts, root, id)?;
    let program = planning::program(graph, &bound, &mut facts, target).map_err(wrong)?;
    let params = params(graph, &bound);
    let secret = |p: &&Param| {
        graph.root().params.iter().any(|q| *q.name == *p.name && matches!(q.ty.required(), Type::Sensitive(_)))
    };
    let sensitive = params.iter().filter(|p| !p.value.is_null()).filter(secret).map(|p| p.name.clone()).collect();
    Ok(Planned { program, params, sensitive, sources: sources(graph)? })
}

fn params(graph: &Graph, bound: &Bound) -> Vec<Param> {
    let declared = graph.root().params.iter().enumerate();
    declared
        .map(|(k, param)| {
            let value = bound.value(k).cloned().unwrap_or_default();
            let default = param.default.as_ref() == Some(&value);
            Param { name: param.name.to_string(), value, default }
        })
        .collect()
}

/// The plan files as they are now. A built-in plan is part of the program, and its name says no more than that.
fn sources(graph: &Graph) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for (id, name) in (0..).zip(graph.sources.names()) {
        if LIBRARY.text(name).is_none() {
            let path = std::path::absolute(name).map_err(|e| failed(format!("cannot make {name} absolute"), &e))?;
            sources.push(Source::of(path, graph.sources.get(FileId(id)).text()));
        }
    }
    Ok(sources)
}

/// Where the program will run: the state root, the run's id, and what an existing run gives to a plan that opens it.
fn target(
    global: &Global,
    graph: &Graph,
    bound: &Bound,
    facts: &mut Facts,
    root: PathBuf,
    id: Id,
) -> Result<Target, Failure> {
    let run = planning::run_id(graph, bound).map_err(|report| problems(&report, global))?;
    let opened = match (&run.id, run.opens || run.beside) {
        (Some(id), true) => outputs(&RunNames { root: root.clone(), id: id.clone() }, facts)?,
        _ => Value::Null,
    };
    let given = run.id.filter(|_| !run.beside);
    let id = match (given, id) {
        (Some(given), _) => given,
        (None, Id::Plain) => plain_id(&graph.root().name),
        (None, Id::Fresh) => fresh_id(&graph.root().name),
    };
    Ok(Target { root, id, opened })
}

/// The state root that the facts' own caller would have, so that a dry run against them is the same everywhere.
fn root_of(global: &Global, facts: &mut Facts) -> Result<PathBuf, Failure> {
    if global.root.is_some() {
        return place::root(global);
    }
    Ok(match facts.get::<u32>("euid") {
        None | Some(0) => "/run/lifecycle".into(),
        Some(uid) => format!("/run/user/{uid}/lifecycle").into(),
    })
}

/// Plans a saved plan again, with the parameters that were given then, and refuses if anything is not as it was shown.
fn again(global: &Global, registry: &Registry, wanted: &Wanted, saved: &Saved) -> Result<Program, Failure> {
    if wanted.params.file.is_some() || !wanted.command.is_empty() || !wanted.mask.is_empty() {
        let help = "plan again to change them; only sensitive parameters, which are never saved, are given with -p";
        return Err(refused("a saved plan already has its parameters, command and facts", help));
    }
    let named = |set: &String| set.split_once('=').map_or_else(String::new, |(name, _)| name.to_owned());
    if let Some(other) = wanted.params.set.iter().map(named).find(|name| !saved.sensitive.contains(name)) {
        return Err(refused(format!("the saved plan already has the parameter `{other}`"), "plan again to change it"));
    }
    if let Some(missing) = saved.sensitive.iter().find(|name| !wanted.params.set.iter().any(|set| named(set) == **name))
    {
        let help = format!("it is sensitive, and never saved: add -p {missing}=VALUE");
        return Err(refused(format!("the saved plan needs the parameter `{missing}`"), help));
    }
    let graph = match LIBRARY.text(&saved.plan) {
        Some(_) => builtin(&saved.plan, registry),
        None => compile::file(Path::new(&saved.plan), registry, LIBRARY),
    };
    let graph = graph.map_err(|report| problems(&report, global))?;
    let values = serde_json::to_string(&saved.params).map_err(|e| failed("cannot write the saved parameters", &e))?;
    let given = Given { set: &wanted.params.set, file: Some(("the saved plan", &values)), command: &[] };
    let planned = plan(global, &graph, given, &Wanted { mask: &saved.mask, ..*wanted }, Id::Plain)?;
    match saved.check(&planned.dry_run(), &planned.sources) {
        Ok(()) => Ok(planned.program),
        Err(changed) => Err(plainly(&format!(
            "{changed}\n\nNothing was done. `lifecycle plan -o FILE` saves the plan as it is now.\n"
        ))),
    }
}

/// Compiles a plan; the inner error is what is wrong with it.
pub fn compile<'r>(source: &str, registry: &'r Registry) -> Result<Result<Graph<'r>, Report>, Failure> {
    match meaning(source)? {
        Meaning::Builtin(name, _) => Ok(builtin(name, registry)),
        Meaning::File(path) => Ok(compile::file(&path, registry, LIBRARY)),
        Meaning::Saved(_) => Err(refused(format!("{source} is a saved plan"), "name the plan that it was saved from")),
    }
}

fn builtin<'r>(name: &str, registry: &'r Registry) -> Result<Graph<'r>, Report> {
    compile::text(name, LIBRARY.text(name).unwrap_or_default(), registry, LIBRARY)
}

/// A built-in plan's name means that plan, in whatever directory its caller is: somebody else may have put a file of that name there. `./NAME` is the
/// file.
fn meaning(source: &str) -> Result<Meaning, Failure> {
    let path = Path::new(source);
    if let Some((name, _)) = LIBRARY.plans.iter().find(|(name, _)| *name == source) {
        return Ok(Meaning::Builtin(name, Vec::new()));
    }
    if path.is_dir() {
        return bundle(source);
    }
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Err(unknown(source)),
        Err(e) => return Err(failed(format!("cannot look at {source}"), &in_words(&e))),
    }
    // Saved plans are JSON, and JSON is YAML: only what says that it is one is taken as one.
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim_start().starts_with('{') && text.contains("\"lifecycle_saved_plan\"") => {
            match Saved::parse(&text) {
                Ok(saved) => Ok(Meaning::Saved(Box::new(saved))),
                Err(why) => {
                    Err(refused(format!("cannot use {source}: {why}"), "save it again with `lifecycle plan -o`"))
                }
            }
        }
        // What cannot be read the compiler reports as it reports every plan.
        _ => Ok(Meaning::File(path.to_owned())),
    }
}

/// A bundle directory is the plan that runs it; its container is called as the directory is, unless the caller says otherwise.
fn bundle(source: &str) -> Result<Meaning, Failure> {
    const PLAN: &str = "oci/run";
    let path = std::path::absolute(source).map_err(|e| failed(format!("cannot use {source}"), &e))?;
    if !path.join("config.json").is_file() {
        return Err(refused(
            format!("{source} is a directory without a config.json"),
            "name a plan file or an OCI bundle",
        ));
    }
    let name = path.file_name().map_or(Cow::Borrowed("bundle"), |name| name.to_string_lossy());
    let given = vec![format!("id={}", plain_id(&name)), format!("bundle={}", path.display())];
    Ok(Meaning::Builtin(PLAN, given))
}

fn unknown(source: &str) -> Failure {
    let names: Vec<&str> = LIBRARY.plans.iter().map(|(name, _)| *name).collect();
    let help = match did_you_mean(source, names.iter().copied()) {
        Some(near) => format!("did you mean the built-in plan `{near}`?"),
        None => format!("built-in plans are {}", names.join(", ")),
    };
    refused(format!("there is no file and no built-in plan `{source}`"), help)
}

/// The text of a file that the caller named.
pub fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| failed(format!("cannot read {}", path.display()), &e))
}

/// Facts that `lifecycle facts --format json` wrote, or that a test keeps.
pub fn facts_file(path: &Path) -> Result<Recorded, Failure> {
    let text = read(path)?;
    serde_json::from_str(&text).map_err(|e| {
        refused(format!("{} is not a file of facts: {e}", path.display()), "`lifecycle facts --format json` writes one")
    })
}
