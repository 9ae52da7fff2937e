//! Files and directories on the host.

pub mod directory;
pub mod file;

use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::Planning;
use lifecycle_engine::types::HostPath;

/// The caller's working directory.
pub(crate) fn working_directory(cx: &mut Planning) -> Result<PathBuf, PlanError> {
    cx.facts.get::<PathBuf>("cwd").ok_or_else(|| {
        PlanError::new("", "the working directory is not known")
            .help("write absolute paths, or run it from a directory that exists")
    })
}

/// What is made has a name.
fn ends_in_a_name(path: &Path) -> Result<(), PlanError> {
    match path.file_name() {
        Some(_) => Ok(()),
        None => Err(PlanError::new("path", format!("{} does not end in a name", path.display()))),
    }
}

/// The path, from `/` on: undo happens in another directory.
pub(crate) fn absolute(path: &HostPath, cx: &mut Planning) -> Result<PathBuf, PlanError> {
    let joined = if path.is_absolute() { path.0.clone() } else { working_directory(cx)?.join(&path.0) };
    Ok(joined.components().collect())
}
