//! Where in the hierarchies a container's cgroup is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::{Facts, sha256};

use crate::effects::cgroup::{TOP, Version};

/// A cgroup's place, once for all hierarchies or relative to the caller's own in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Below the top of each hierarchy, without a leading slash.
    Below(String),
    /// Below the caller's own cgroup, by the hierarchy's mount point.
    BelowOwn(String, BTreeMap<PathBuf, String>),
}

impl Place {
    /// config-linux.md, "Cgroups Path": absolute is below the hierarchy's top, relative is ours to place. Without a path the name derives
    /// from the run, so that a container whose journal is lost can still be told whose it is.
    pub(super) fn of(path: Option<&str>, run: &RunNames, step: &str, facts: &mut Facts) -> Result<Self, PlanError> {
        let Some(given) = path else { return Ok(Self::Below(format!("{TOP}/{}", own_name(run, step)))) };
        let clean = plain_names(given);
        if clean.is_empty() {
            return Err(PlanError::new("path", format!("`{given}` is the top of the hierarchy"))
                .help("name a cgroup of the container's own, such as `/containers/web`"));
        }
        if given.starts_with('/') {
            return Ok(Self::Below(clean));
        }
        Ok(Self::BelowOwn(clean, facts.get("cgroup.own").unwrap_or_default()))
    }

    /// The name that derives from the run, beside the caller's own cgroup: an ordinary user's place for it.
    pub(super) fn below_own(run: &RunNames, step: &str, facts: &mut Facts) -> Self {
        Self::BelowOwn(format!("{TOP}/{}", own_name(run, step)), facts.get("cgroup.own").unwrap_or_default())
    }

    /// The path below the hierarchy's mount point, without a leading slash.
    pub(super) fn below(&self, mount: &Path, version: Version) -> String {
        match self {
            Self::Below(path) => path.clone(),
            Self::BelowOwn(path, own) => {
                let own = own.get(mount).map_or("/", String::as_str);
                // The caller's own cgroup has a process, the caller, so in version 2 it can give its children no controllers.
                let base = match version {
                    Version::V1 => Path::new(own),
                    Version::V2 => Path::new(own).parent().unwrap_or(Path::new("/")),
                };
                plain_names(&format!("{}/{path}", base.display()))
            }
        }
    }
}

/// A name that derives from the run and the step, since a run may have several cgroups. One that would be too long for a directory has the
/// digest of the step's address in its place.
fn own_name(run: &RunNames, step: &str) -> String {
    // NAME_MAX
    const LONGEST: usize = 255;
    let plain =
        |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_string() } else { format!("-{:x}", c as u32) };
    let step_name: String =
        step.split('/').map(|id| id.chars().map(plain).collect::<String>()).collect::<Vec<_>>().join("-");
    let name = |step: &str| format!("{}{step}", beginning(run));
    Some(name(&step_name)).filter(|name| name.len() <= LONGEST).unwrap_or_else(|| name(&sha256(step.as_bytes())))
}

/// What the names of a run's own cgroups begin with. The tag tells runs apart whose ids are too long for a file name that says more.
pub(crate) fn beginning(run: &RunNames) -> String {
    format!("{:.150}.{}.", run.id, run.tag())
}

/// The path with `.` and `..` taken out as text, never leading above the top.
fn plain_names(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle_engine::facts::Recorded;
    use serde_json::json;

    fn place(path: Option<&str>) -> Result<Place, PlanError> {
        let run = RunNames { root: "/run/lifecycle".into(), id: "web".into() };
        let mut given = Recorded::default();
        given.host.insert("cgroup.own".into(), json!({ "/sys/fs/cgroup": "/user/session", "/cg/pids": "/box" }));
        Place::of(path, &run, "cgroup", &mut Facts::fixed(given))
    }

    #[test]
    fn an_absolute_path_is_below_the_top_and_never_above() {
        assert!(place(Some("/..")).is_err());
        let place = place(Some("/../a/./b/../c")).expect("a place");
        assert_eq!(place.below(Path::new("/cg/pids"), Version::V1), "a/c");
    }

    #[test]
    fn a_relative_path_is_below_the_callers_own_cgroup() {
        let place = place(Some("web")).expect("a place");
        assert_eq!(place.below(Path::new("/cg/pids"), Version::V1), "box/web");
        assert_eq!(place.below(Path::new("/cg/other"), Version::V1), "web");
        assert_eq!(place.below(Path::new("/sys/fs/cgroup"), Version::V2), "user/web");
    }

    #[test]
    fn without_a_path_the_run_names_it() {
        let run = RunNames { root: "/run/lifecycle".into(), id: "web".into() };
        let below = place(None).expect("a place").below(Path::new("/cg"), Version::V1);
        assert_eq!(below, format!("lifecycle/web.{}.cgroup", run.tag()));
        assert_eq!(own_name(&run, "server/cgroup"), format!("web.{}.server-cgroup", run.tag()));
        assert_ne!(own_name(&run, "a[\"b\"]"), own_name(&run, "a[\"c\"]"));
        let long = RunNames { id: "x".repeat(128), ..run };
        assert!(own_name(&long, &"deep/".repeat(60)).len() <= 255);
    }
}
