//! Commands of the host.

mod run;

pub use run::Run;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::Planning;
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Text;

use crate::fs;

/// Where a command runs: the caller's working directory, or a path as the caller means it.
pub(crate) fn directory(path: Option<&HostPath>, cx: &mut Planning) -> Result<PathBuf, PlanError> {
    match path {
        Some(path) => fs::absolute(path, cx),
        // A caller whose directory was removed has none; a command that names no directory does not care.
        None => Ok(fs::working_directory(cx).unwrap_or_else(|_| "/".into())),
    }
}

/// Refuses what could not be run at all.
pub(crate) fn check(field: &str, args: &[Text], env: &BTreeMap<String, Text>) -> Result<(), PlanError> {
    if args.is_empty() {
        return Err(
            PlanError::new(format!("{field}args"), "a program is missing").help("write it as a list: [touch, /tmp/x]")
        );
    }
    match env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        Some(name) => Err(PlanError::new(format!("{field}env"), format!("{name:?} cannot be the name of a variable"))),
        None => Ok(()),
    }
}
