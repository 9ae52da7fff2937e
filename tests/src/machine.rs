//! What the machine looks like: a snapshot, and the readable difference of two snapshots.
//!
//! A snapshot holds what a run must put back: mounts, cgroups, namespaces, links, addresses, routes, processes, files, open descriptors
//! and host-wide settings. Time stamps, inode numbers, interface indexes and kernel counters are left out, because undo cannot and need not
//! restore them. A [`Scope`] says where to look, so that tests can run side by side.

mod cgroups;
mod descriptors;
mod files;
mod mounts;
mod namespaces;
mod network;
mod processes;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Result;

pub use cgroups::{Hierarchy, directories as cgroup_directories, hierarchies, remove as remove_cgroup};
pub use processes::Processes;

/// What is looked at.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Trees of files, compared whole: type, mode, owner, size, content, extended attributes. Other file systems mounted below are not
    /// entered.
    pub trees: Vec<PathBuf>,
    /// Directories of which only the entries' names and types are compared, such as `/`.
    pub listings: Vec<PathBuf>,
    /// Parts of cgroup names: a cgroup directory counts when its path below the hierarchy's mount contains one of them.
    pub cgroups: Vec<String>,
    /// Which processes, and with them which namespaces.
    pub processes: Processes,
    /// Processes whose mount namespaces are looked at as well as our own: a mount that propagated there is residue too.
    pub witnesses: Vec<i32>,
    /// Processes whose open descriptors are compared.
    pub descriptors_of: Vec<i32>,
}

/// One part of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Mounts of our own mount namespace and of the witnesses'.
    Mounts,
    /// Cgroup directories of every hierarchy, and what is set in them.
    Cgroups,
    /// Namespaces held by a process or by a bind mount.
    Namespaces,
    /// Network interfaces.
    Links,
    /// Addresses of interfaces.
    Addresses,
    /// Routes of every table.
    Routes,
    /// Processes that are alive.
    Processes,
    /// Files and directories.
    Files,
    /// Open descriptors.
    Descriptors,
    /// Host-wide settings: host name, domain name, sysctls.
    Settings,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mounts => "mounts",
            Self::Cgroups => "cgroups",
            Self::Namespaces => "namespaces",
            Self::Links => "links",
            Self::Addresses => "addresses",
            Self::Routes => "routes",
            Self::Processes => "processes",
            Self::Files => "files",
            Self::Descriptors => "descriptors",
            Self::Settings => "settings",
        })
    }
}

/// What there is, by name: a path, a pid, an address; and what it is like.
pub type Things = BTreeMap<String, String>;

/// The machine at one moment, within a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    parts: BTreeMap<Part, Things>,
}

impl Snapshot {
    /// Looks at the machine.
    pub fn take(scope: &Scope) -> Result<Self> {
        let pids = scope.processes.list()?;
        let network = network::look()?;
        let parts = BTreeMap::from([
            (Part::Mounts, mounts::look(&scope.witnesses)?),
            (Part::Cgroups, cgroups::look(&scope.cgroups)?),
            (Part::Namespaces, namespaces::look(&pids)?),
            (Part::Links, network.links),
            (Part::Addresses, network.addresses),
            (Part::Routes, network.routes),
            (Part::Processes, processes::look(&pids)),
            (Part::Files, files::look(&scope.trees, &scope.listings)?),
            (Part::Descriptors, descriptors::look(&scope.descriptors_of)?),
            (Part::Settings, settings::look()?),
        ]);
        Ok(Self { parts })
    }

    /// What one part holds.
    pub fn part(&self, part: Part) -> &Things {
        &self.parts[&part]
    }

    /// What `after` has, lacks or shows otherwise than `self`. Empty when the machine is as it was.
    pub fn difference(&self, after: &Self) -> Difference {
        let mut changes = Vec::new();
        for (part, before) in &self.parts {
            let after = &after.parts[part];
            for (name, was) in before {
                match after.get(name) {
                    None => changes.push(Change { part: *part, name: name.clone(), was: Some(was.clone()), is: None }),
                    Some(is) if is != was => changes.push(Change {
                        part: *part,
                        name: name.clone(),
                        was: Some(was.clone()),
                        is: Some(is.clone()),
                    }),
                    Some(_) => {}
                }
            }
            let new = after.iter().filter(|(name, _)| !before.contains_key(*name));
            changes.extend(new.map(|(name, is)| Change {
                part: *part,
                name: name.clone(),
                was: None,
                is: Some(is.clone()),
            }));
        }
        Difference { changes }
    }

    /// Looks again until the machine is as `self` was, at most for `patience`.
    ///
    /// Some of what a namespace takes with it goes a moment later: the kernel frees a network namespace, and a veth with it, from a work
    /// queue, and a killed process is gone only when it has been scheduled once more.
    /// What is still different at the end is residue. Changes that are `kept` on purpose are not waited for, and not returned.
    pub fn returns_within(
        &self,
        scope: &Scope,
        patience: Duration,
        kept: impl Fn(&Change) -> bool,
    ) -> Result<Difference> {
        let deadline = Instant::now() + patience;
        loop {
            processes::reap();
            let mut difference = self.difference(&Self::take(scope)?);
            difference.changes.retain(|change| !kept(change));
            if difference.is_empty() || Instant::now() >= deadline {
                return Ok(difference);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// One thing that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The part of the machine that it belongs to.
    pub part: Part,
    /// Its name there.
    pub name: String,
    /// What it was like; none when it is new.
    pub was: Option<String>,
    /// What it is like; none when it is gone.
    pub is: Option<String>,
}

/// Everything that is not as it was, part by part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// In the order of the parts, gone and changed before new.
    pub changes: Vec<Change>,
}

impl Difference {
    /// Whether the machine is as it was.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("the machine is as it was\n");
        }
        let mut heading = None;
        for Change { part, name, was, is } in &self.changes {
            if heading != Some(*part) {
                writeln!(f, "{part}:")?;
                heading = Some(*part);
            }
            match (was, is) {
                (None, Some(is)) => writeln!(f, "  + {name}  {is}")?,
                (Some(was), None) => writeln!(f, "  - {name}  {was}")?,
                (Some(was), Some(is)) => writeln!(f, "  ~ {name}\n      was {was}\n      is  {is}")?,
                (None, None) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(part: Part, things: &[(&str, &str)]) -> Snapshot {
        let things = things.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Snapshot { parts: BTreeMap::from([(part, things)]) }
    }

    #[test]
    fn a_difference_names_what_is_new_gone_and_changed() {
        let before = snapshot(Part::Files, &[("/a", "dir"), ("/b", "file 1"), ("/c", "file 2")]);
        let after = snapshot(Part::Files, &[("/b", "file 1"), ("/c", "file 3"), ("/d", "fifo")]);
        assert_eq!(
            before.difference(&after).to_string(),
            "files:\n  - /a  dir\n  ~ /c\n      was file 2\n      is  file 3\n  + /d  fifo\n"
        );
    }

    #[test]
    fn the_same_machine_has_no_difference() {
        let before = snapshot(Part::Links, &[("lo", "up")]);
        assert!(before.difference(&before.clone()).is_empty());
    }
}
