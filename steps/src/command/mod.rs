//! Commands of the host.

mod run;

pub use run::Run;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::Planning;
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Text;

/// A path as the caller means it: relative to the caller's working directory, which undo may not have.
pub(crate) fn absolute(path: Option<&HostPath>, cx: &mut Planning) -> PathBuf {
    let cwd: PathBuf = cx.facts.get("cwd").unwrap_or_else(|| "/".into());
    // Without its `.` components: `/work/.` is `/work`.
    path.map_or_else(|| cwd.clone(), |path| cwd.join(&path.0).components().collect())
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
