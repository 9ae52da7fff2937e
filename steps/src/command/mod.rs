//! Commands of the host.

mod run;

pub use run::Run;

use std::path::PathBuf;

use lifecycle_engine::step::Planning;
use lifecycle_engine::types::HostPath;

/// A path as the caller means it: relative to the caller's working directory, which undo may not have.
pub(crate) fn absolute(path: Option<&HostPath>, cx: &mut Planning) -> PathBuf {
    let cwd: PathBuf = cx.facts.get("cwd").unwrap_or_else(|| "/".into());
    // Without its `.` components: `/work/.` is `/work`.
    path.map_or_else(|| cwd.clone(), |path| cwd.join(&path.0).components().collect())
}
