//! `lifecycle audit`.

use std::fmt::Write;
use std::process::ExitCode;

use lifecycle_engine::render::paint;
use lifecycle_engine::run::RunError;
use lifecycle_steps::audit::{Finding, Owner, audit};

use crate::args::{Audit, Global, Output};
use crate::place;
use crate::print::{self, Failure};

/// Executes the command. The exit code is 1 if there is residue.
pub fn run(global: &Global, args: &Audit) -> Result<ExitCode, Failure> {
    let root = place::root(global)?;
    let found = audit(&root).map_err(RunError::from)?;
    match args.format {
        Output::Json => print::text(&format!("{:#}\n", serde_json::json!(found)))?,
        Output::Text => print::text(&table(&found))?,
    };
    let residue = found.iter().any(|f| f.owner == Owner::Nobody);
    Ok(if residue { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn table(found: &[Finding]) -> String {
    if found.is_empty() {
        return "nothing on this machine carries our names\n".into();
    }
    let names: Vec<String> = found.iter().map(|f| paint::clean(&f.name)).collect();
    let wide = names.iter().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (f, name) in found.iter().zip(&names) {
        let owner = match &f.owner {
            Owner::Run(id) => format!("run {}", paint::clean(id)),
            Owner::Elsewhere => "a run of another state root".into(),
            Owner::Nobody => "NOBODY: `lifecycle recover` sweeps the state root, the rest is removed by hand".into(),
        };
        let _ = writeln!(text, "{:9}  {name:wide$}  {owner}", f.kind.to_string());
    }
    text
}
