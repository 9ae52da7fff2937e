//! Where runs are, and what they are called.

use std::path::{Path, PathBuf};

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::facts::Facts;
use lifecycle_engine::journal::{self, JournalError};
use lifecycle_engine::run::RunError;
use lifecycle_engine::types::Name;
use serde_json::Value;

/// The state root: what the caller names, `/run/lifecycle` for root, `$XDG_RUNTIME_DIR/lifecycle` for others.
///
/// # Errors
///
/// The caller names a relative path, and the working directory is gone.
pub fn root(given: Option<&Path>) -> std::io::Result<PathBuf> {
    if let Some(root) = given {
        return std::path::absolute(root);
    }
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Ok("/run/lifecycle".into());
    }
    Ok(match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("lifecycle"),
        None => std::env::temp_dir().join(format!("lifecycle-{}", uid.as_raw())),
    })
}

/// The outputs of the run that a plan opens. The journal is read like everything that planning reads, so that the plan replays.
///
/// # Errors
///
/// There is no such run, or its journal cannot be read.
pub fn outputs(names: &RunNames, facts: &mut Facts) -> Result<Value, RunError> {
    let path = names.dir().join(journal::JOURNAL);
    match facts.file(&path) {
        Ok(text) => Ok(journal::outputs(&path, text.as_bytes())?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(JournalError::Absent { id: names.id.clone(), root: names.root.clone() }.into())
        }
        Err(source) => Err(JournalError::Io { what: "read", path, source }.into()),
    }
}

/// The id of a run whose plan gives it none: the plan's name.
#[must_use]
pub fn plain_id(plan: &str) -> String {
    let id: String = plan.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Name::parse(&id).map_or_else(|_| "run".to_owned(), |name| name.as_str().to_owned())
}

/// The plan's name and what tells this run from others.
#[must_use]
pub fn fresh_id(plan: &str) -> String {
    let mut random = [0u8; 4];
    // Without randomness the pid alone tells runs apart that go on at the same time.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    format!("{}-{:x}-{:08x}", plain_id(plan), std::process::id(), u32::from_ne_bytes(random))
}
