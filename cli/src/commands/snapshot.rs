//! `lifecycle snapshot`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lifecycle_engine::render::{diff, text};

use crate::args::{Global, Snapshot};
use crate::load::{self, Wanted};
use crate::print::{self, Failure, failed};
use lifecycle_cli::builtin::LIBRARY;

/// Compares every plan with its snapshot, or stores it.
pub fn run(global: &Global, args: &Snapshot) -> Result<ExitCode, Failure> {
    let registry = lifecycle_steps::registry();
    let mut out = String::new();
    let mut differing = 0;
    for plan in &args.plans {
        let wanted = Wanted { source: plan, params: &args.params, command: &[], mask: &[], facts: Some(&args.facts) };
        let now = text::print(&load::planned(global, &registry, &wanted)?.dry_run(), text::Look::default());
        let path = path(plan, args.dir.as_deref());
        let (word, differs) = if args.update { (update(&path, &now)?, false) } else { compare(&path, &now, global)? };
        differing += usize::from(differs);
        out.extend([plan.as_str(), ": ", word.as_str(), "\n"]);
    }
    if differing > 0 {
        out.push_str("\nLook at what changed; `lifecycle snapshot --update` with the same arguments accepts it.\n");
    }
    print::text(&out).map(|code| if differing > 0 { ExitCode::from(1) } else { code })
}

/// Beside the plan, unless the caller names a directory. Two plans of one name in different directories do not meet.
fn path(plan: &str, dir: Option<&Path>) -> PathBuf {
    let file = Path::new(plan).with_extension("");
    let builtin = LIBRARY.text(plan).is_some();
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None if builtin => "snapshots".into(),
        None => file.parent().unwrap_or(Path::new("")).join("snapshots"),
    };
    let name = if builtin {
        plan.replace('/', ".")
    } else {
        file.file_name().unwrap_or_default().to_string_lossy().into_owned()
    };
    dir.join(format!("{name}.txt"))
}

fn update(path: &Path, now: &str) -> Result<String, Failure> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == now) {
        return Ok("as it was".into());
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(path, now));
    written.map_err(|e| failed(format!("cannot write {}", path.display()), &e))?;
    Ok(format!("stored in {}", path.display()))
}

/// What to say, and whether they differ.
fn compare(path: &Path, now: &str, global: &Global) -> Result<(String, bool), Failure> {
    match std::fs::read_to_string(path) {
        Ok(old) => Ok(match diff::lines(&old, now, print::color(global)) {
            None => ("as in its snapshot".into(), false),
            Some(lines) => (format!("differs from {}\n{}", path.display(), lines.trim_end()), true),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok((format!("has no snapshot {}", path.display()), true)),
        Err(e) => Err(failed(format!("cannot read {}", path.display()), &e)),
    }
}
