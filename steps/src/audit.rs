//! What on this machine carries our names, and whose it is.
//!
//! Names that we choose derive from the state root and the run's id, so even what has lost its journal can be found: cgroups below `/lifecycle`,
//! links with an alias of ours, mounts and directories in the state root, and the processes that journals and cgroups know of.

use lifecycle_engine::proc;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::facts::Host;
use lifecycle_engine::journal::{self, Identity, JournalError, RunDir, RunState};
use lifecycle_engine::run::is_alive;
use serde::Serialize;

use crate::cgroup::beginning;
use crate::effects::cgroup::TOP;
use crate::facts::{CgroupLayout, Machine};
use crate::net::name::LinkName;

/// Something of ours on the machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Its path, name or pid.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
}

/// What a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A cgroup directory.
    Cgroup,
    /// A network link in the caller's network namespace.
    Link,
    /// A mount in the caller's mount namespace.
    Mount,
    /// A process.
    Process,
    /// A directory in the state root.
    Directory,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cgroup => "cgroup",
            Self::Link => "link",
            Self::Mount => "mount",
            Self::Process => "process",
            Self::Directory => "directory",
        })
    }
}

/// Whose something is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The run of that id in the audited state root.
    Run(String),
    /// No run of this state root, and either processes live in it or its name is none that this state root gives: it belongs to another one.
    Elsewhere,
    /// Nobody: residue.
    Nobody,
}

/// Looks at the whole machine, as far as the caller may see it. Changes nothing.
pub fn audit(root: &Path) -> Result<Vec<Finding>, JournalError> {
    let runs = Runs::read(root)?;
    let mut found = runs.directories(root)?;
    found.extend(runs.processes());
    found.extend(cgroups(root, &runs));
    found.extend(links(root, &runs)?);
    found.extend(mounts(root, &runs)?);
    found.sort();
    found.dedup();
    Ok(found)
}

/// The runs of the state root that can be read.
struct Runs(Vec<(RunNames, Option<RunState>)>);

impl Runs {
    fn read(root: &Path) -> Result<Self, JournalError> {
        let ids = RunDir::list(root)?;
        let names = ids.into_iter().map(|id| RunNames { root: root.to_owned(), id });
        Ok(Self(names.map(|names| (names.clone(), journal::read(&names).ok())).collect()))
    }

    fn owner(&self, id: &str) -> Owner {
        let known = self.0.iter().any(|(names, _)| names.id == id);
        if known { Owner::Run(id.to_owned()) } else { Owner::Nobody }
    }

    fn directories(&self, root: &Path) -> Result<Vec<Finding>, JournalError> {
        let Some(entries) = entries(root)? else { return Ok(Vec::new()) };
        let finding = |path: PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // A directory that is being made or removed, or was when its engine died; `recover` sweeps those.
            let owner = if name.starts_with('.') { Owner::Nobody } else { self.owner(&name) };
            Finding { kind: Kind::Directory, name: path.display().to_string(), owner }
        };
        Ok(entries.into_iter().map(finding).collect())
    }

    /// Engines, and every process whose identity a journal holds, that still run.
    fn processes(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (names, state) in self.0.iter().filter_map(|(names, state)| Some((names, state.as_ref()?))) {
            let engines = state.segments.iter().map(|s| s.engine.clone());
            let effects = state.begun().flat_map(|(_, node)| &node.effects);
            let made = effects.filter_map(|e| e.record.outcome::<Identity>());
            for process in engines.chain(made).filter(is_alive) {
                found.push(Finding {
                    kind: Kind::Process,
                    name: process.pid.to_string(),
                    owner: Owner::Run(names.id.clone()),
                });
            }
        }
        found
    }
}

/// Whether a run of this state root, whose directory is gone, has chosen that name: `ID.TAG.…`, the tag being a hash of both. Otherwise it is of
/// another state root, whose runs nobody here knows.
fn was_ours(root: &Path, name: &str) -> bool {
    name.match_indices('.').any(|(at, _)| {
        let run = RunNames { root: root.to_owned(), id: name[..at].to_owned() };
        name[at + 1..].split('.').next() == Some(&*run.tag())
    })
}

/// Every cgroup of a name that we choose, in every hierarchy.
fn cgroups(root: &Path, runs: &Runs) -> Vec<Finding> {
    let layout: CgroupLayout = serde_json::from_value(Machine.read("cgroup.layout")).unwrap_or_default();
    let tops =
        layout.v1.iter().map(|h| &h.mount).chain(layout.v2.iter().map(|u| &u.mount)).map(|mount| mount.join(TOP));
    let mut found = Vec::new();
    for cgroup in tops.filter_map(|top| entries(&top).ok().flatten()).flatten().filter(|path| path.is_dir()) {
        let name = cgroup.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ours = runs.0.iter().find(|(names, _)| name.starts_with(&beginning(names)));
        let owner = match ours {
            Some((names, _)) => Owner::Run(names.id.clone()),
            None if populated(&cgroup) || !was_ours(root, &name) => Owner::Elsewhere,
            None => Owner::Nobody,
        };
        found.push(Finding { kind: Kind::Cgroup, name: cgroup.display().to_string(), owner });
    }
    found
}

fn populated(cgroup: &Path) -> bool {
    fs::read_to_string(cgroup.join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty())
}

/// Links whose alias says that they are ours. The alias names the run, not its state root: only a name that we chose tells that.
fn links(root: &Path, runs: &Runs) -> Result<Vec<Finding>, JournalError> {
    let links = entries(Path::new("/sys/class/net"))?.unwrap_or_default();
    let ours = links.into_iter().filter_map(|link| {
        let alias = fs::read_to_string(link.join("ifalias")).ok()?;
        let (id, step) = alias.trim_end().strip_prefix("lifecycle:")?.split_once(':')?;
        let name = link.file_name()?.to_string_lossy().into_owned();
        let run = RunNames { root: root.to_owned(), id: id.to_owned() };
        let owner = match runs.owner(id) {
            Owner::Nobody if !['b', 'h'].iter().any(|end| LinkName::of(&run, step, *end).as_str() == name) => {
                Owner::Elsewhere
            }
            owner => owner,
        };
        Some(Finding { kind: Kind::Link, name, owner })
    });
    Ok(ours.collect())
}

/// Mounts below the state root.
fn mounts(root: &Path, runs: &Runs) -> Result<Vec<Finding>, JournalError> {
    let path = Path::new("/proc/self/mountinfo");
    let table = proc::text(path).map_err(|e| unreadable(path, e))?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let ours = points.filter_map(|point| {
        let id = point.strip_prefix(root).ok()?.components().next()?.as_os_str().to_string_lossy().into_owned();
        Some(Finding { kind: Kind::Mount, name: point.display().to_string(), owner: runs.owner(&id) })
    });
    Ok(ours.collect())
}

/// The entries of a directory; `None` if there is no such directory.
fn entries(dir: &Path) -> Result<Option<Vec<PathBuf>>, JournalError> {
    let read = |entries: fs::ReadDir| entries.map(|e| e.map(|e| e.path())).collect();
    match fs::read_dir(dir).and_then(read) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(|e| unreadable(dir, e)),
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> JournalError {
    JournalError::Io { what: "read", path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_in_the_state_root_are_told_apart() {
        let root = tempfile::tempdir().expect("root");
        let names = RunNames { root: root.path().to_owned(), id: "web".into() };
        let _journal = RunDir::create(&names, None).expect("a run");
        fs::create_dir(root.path().join(".gone-1-old")).expect("residue");
        let found = audit(root.path()).expect("audit");
        let dirs: Vec<_> = found.iter().filter(|f| f.kind == Kind::Directory).map(|f| &f.owner).collect();
        assert_eq!(dirs, [&Owner::Nobody, &Owner::Run("web".into())]);
    }

    #[test]
    fn a_name_that_another_state_root_gives_is_not_ours_to_judge() {
        let run = |root: &str| RunNames { root: root.into(), id: "web.1".into() };
        let name = |run: &RunNames| format!("{}.{}.server-cgroup", run.id, run.tag());
        let root = Path::new("/run/one");
        assert!(was_ours(root, &name(&run("/run/one"))));
        assert!(!was_ours(root, &name(&run("/run/other"))));
        assert!(!was_ours(root, "web") && !was_ours(root, "web.1"));
    }

    #[test]
    fn a_root_that_does_not_exist_holds_nothing() {
        let found = audit(Path::new("/nonexistent/lifecycle")).expect("audit");
        assert!(found.iter().all(|f| matches!(f.kind, Kind::Cgroup | Kind::Link)));
    }
}
