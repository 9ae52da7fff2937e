//! Enables controllers for the children of a cgroup of version 2.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, RunNames, Undone};
use lifecycle_engine::error::EffectError;
use rustix::fs::CWD;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{mark, open_directory, read, refused, write};

const FILE: &str = "cgroup.subtree_control";

/// Each run that needs a controller here leaves a mark with this prefix and its tag; the value names the controllers that runs of ours enabled.
const MARK: &str = "lifecycle.enabled.";

/// Gives the children of a cgroup some controllers.
///
/// The directory may be the machine's own (the top, a slice). What runs of ours enabled there is disabled again by the last of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnableControllers {
    /// The cgroup's directory.
    pub at: PathBuf,
    /// Which.
    pub controllers: Vec<String>,
}

/// What was enabled before, and is not ours to disable.
#[derive(Serialize, Deserialize)]
struct Before {
    /// Not enabled before, or enabled by another run of ours: to disable once no run needs them.
    ours: BTreeSet<String>,
}

fn key(run: &RunNames) -> String {
    format!("{MARK}{}", run.tag())
}

fn list(words: &str) -> BTreeSet<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

fn words(controllers: &BTreeSet<String>) -> String {
    controllers.iter().cloned().collect::<Vec<_>>().join(" ")
}

/// What the run's mark says.
fn own_mark(directory: impl AsFd + Copy, run: &RunNames) -> BTreeSet<String> {
    mark::get(directory, &key(run)).map(|value| list(&value)).unwrap_or_default()
}

fn signed(sign: char, controllers: &BTreeSet<String>) -> String {
    controllers.iter().map(|name| format!("{sign}{name}")).collect::<Vec<_>>().join(" ")
}

impl EnableControllers {
    fn wanted(&self) -> BTreeSet<String> {
        self.controllers.iter().cloned().collect()
    }

    fn failed(&self, what: &str, errno: impl Into<std::io::Error>) -> EffectError {
        EffectError::call(format!("{what} {}", self.at.join(FILE).display()), errno)
    }
}

impl EffectDef for EnableControllers {
    const KIND: &'static str = "cgroup.controllers";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { at: super::example_v2(scratch), controllers: vec!["pids".into()] }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("write {} to {}", signed('+', &self.wanted()), self.at.join(FILE).display())
    }

    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError> {
        let directory = open_directory(CWD, &self.at).map_err(|e| self.failed("open", e))?;
        let enabled = list(&read(&directory, FILE).map_err(|e| self.failed("read", e))?);
        let marks = mark::list(&directory, MARK);
        let by_runs: BTreeSet<String> = marks.iter().flat_map(|(_, controllers)| list(controllers)).collect();
        // What this run itself has enabled, at an earlier time, is for that effect to disable.
        let own = own_mark(&directory, cx.run);
        let free = |c: &String| !enabled.contains(c) || by_runs.contains(c);
        let ours = self.wanted().into_iter().filter(|c| free(c) && !own.contains(c)).collect();
        Ok(json!(Before { ours }))
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let ours = Before::deserialize(before).map(|before| before.ours).unwrap_or_default();
        if ours.is_empty() {
            return Ok(Applied::done());
        }
        let directory = open_directory(CWD, &self.at).map_err(|e| self.failed("open", e))?;
        let needed: BTreeSet<String> = own_mark(&directory, cx.run).union(&ours).cloned().collect();
        mark::set(&directory, &key(cx.run), &words(&needed)).map_err(|e| self.failed("mark", e))?;
        let line = signed('+', &ours);
        match write(&directory, FILE, &line) {
            Ok(()) => Ok(Applied::done()),
            Err(Errno::BUSY) => Err(refused(&self.at, FILE, &line, Errno::BUSY)
                .help("a cgroup that has processes of its own can give its children no controllers; choose a path below another")),
            Err(errno) => Err(refused(&self.at, FILE, &line, errno)),
        }
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        let ours = Before::deserialize(&record.before).map(|before| before.ours).unwrap_or_default();
        if ours.is_empty() {
            return Ok(Undone::Done);
        }
        let directory = match open_directory(CWD, &self.at) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(Undone::Done),
            Err(errno) => return Err(self.failed("open", errno)),
        };
        let rest: BTreeSet<String> = own_mark(&directory, cx.run).difference(&ours).cloned().collect();
        let unmarked = if rest.is_empty() {
            mark::clear(&directory, &key(cx.run))
        } else {
            mark::set(&directory, &key(cx.run), &words(&rest)).map(drop)
        };
        unmarked.map_err(|e| self.failed("unmark", e))?;
        let needed: BTreeSet<String> =
            mark::list(&directory, MARK).iter().flat_map(|(_, controllers)| list(controllers)).collect();
        let enabled = list(&read(&directory, FILE).map_err(|e| self.failed("read", e))?);
        // One at a time: what somebody else's cgroup below has come to use is busy, and his.
        for controller in ours.iter().filter(|c| enabled.contains(*c) && !needed.contains(*c)) {
            match write(&directory, FILE, &format!("-{controller}")) {
                Ok(()) | Err(Errno::BUSY) => {}
                Err(errno) => return Err(refused(&self.at, FILE, &format!("-{controller}"), errno)),
            }
        }
        Ok(Undone::Done)
    }
}
