//! The container's `state.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, UndoTurn, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::journal::OwnDir;
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::wait::resolve;
use crate::outcomes::{Process, RdtGroups};

/// Where a container is in its life: runtime.md, "State".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Creating,
    /// It waits for `start`.
    Created,
    /// Its program has been started. Whether it still runs is to be read from its process.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its program has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// Writes the state, in place of an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The file, in the run's directory.
    pub path: PathBuf,
    /// Where the container is in its life.
    pub status: Status,
    /// Its first process.
    pub process: Later<Process>,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<PathBuf>,
    /// The config's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The runtime-spec's version.
    pub oci_version: String,
    /// Its cgroups by controller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cgroups: BTreeMap<String, PathBuf>,
    /// Its groups of the resctrl file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<RdtGroups>,
}

impl State {
    fn failed(&self, what: &str, e: std::io::Error) -> EffectError {
        EffectError::call(format!("{what} {}", self.path.display()), e)
    }

    /// The document of runtime.md, "State"; what is ours is under a name of our own.
    fn document(&self, id: &str, process: &Process, before: &Value) -> Value {
        let mut state = json!({ "ociVersion": self.oci_version, "id": id, "status": self.status });
        if self.status != Status::Stopped {
            state["pid"] = json!(process.pid);
        }
        state["bundle"] = json!(self.bundle);
        if let Some(rootfs) = &self.rootfs {
            state["rootfs"] = json!(rootfs);
        }
        // The time is that of the first state; later ones keep it.
        let earlier: Option<Value> = before.as_str().and_then(|text| serde_json::from_str(text).ok());
        let created = earlier.and_then(|state| state.get("created").cloned());
        state["created"] = created.unwrap_or_else(|| json!(timestamp(lifecycle_engine::site::now())));
        if !self.annotations.is_empty() {
            state["annotations"] = json!(self.annotations);
        }
        state["lifecycle"] = json!({ "process": process, "cgroups": self.cgroups });
        if let Some(rdt) = &self.rdt {
            state["lifecycle"]["rdt"] = json!(rdt);
        }
        state
    }

    /// Under a name of our own first, then in place of the earlier file: a reader takes no lock and sees a whole state.
    fn write(&self, text: &str) -> Result<(), EffectError> {
        use std::os::unix::fs::OpenOptionsExt;
        let draft = self.draft();
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let mut file = options.open(&draft).map_err(|e| self.failed("write", e))?;
        file.write_all(text.as_bytes()).map_err(|e| self.failed("write", e))?;
        std::fs::rename(&draft, &self.path).map_err(|e| self.failed("rename the new state to", e))
    }

    fn draft(&self) -> PathBuf {
        self.path.with_extension("json.tmp")
    }

    fn remove(&self, path: &Path) -> Result<(), EffectError> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(self.failed("remove", e)),
            _ => Ok(()),
        }
    }
}

/// Microseconds since the epoch as RFC 3339 in UTC, which is what callers of runtimes parse.
fn timestamp(micros: u64) -> String {
    humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(micros)).to_string()
}

impl EffectDef for State {
    const KIND: &'static str = "state";

    /// A container is listed until nothing of it is left.
    const TURN: UndoTurn = UndoTurn::Last;

    fn examples(scratch: &Path) -> Vec<Self> {
        let process = Process { pid: i32::MAX, start: 1, boot: "00000000-0000-0000-0000-000000000000".into() };
        vec![Self {
            path: scratch.join("state.json"),
            status: Status::Created,
            process: Later::Now(process),
            bundle: scratch.to_owned(),
            rootfs: Some(scratch.join("rootfs")),
            annotations: BTreeMap::from([("org.example.team".into(), "web".into())]),
            oci_version: "1.3.0".into(),
            cgroups: BTreeMap::new(),
            rdt: None,
        }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("write the state `{}` of {} to {}", self.status, self.process, self.path.display())
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        let (Some(dir), Some(name)) = (self.path.parent(), self.path.file_name().and_then(|name| name.to_str())) else {
            return Err(EffectError::new(format!("{} does not end in a name", self.path.display())));
        };
        let text = OwnDir::at(dir).and_then(|dir| dir.read(name)).map_err(|e| EffectError::new(e.to_string()))?;
        text.map_or(Ok(Value::Null), |text| {
            String::from_utf8(text).map(Value::String).map_err(|e| self.failed("read", std::io::Error::other(e)))
        })
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = resolve(&self.process, cx)?;
        self.write(&self.document(&cx.run.id, &process, before).to_string())?;
        Ok(Applied::done())
    }

    fn undo(&self, record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        self.remove(&self.draft())?;
        match record.before.as_str() {
            // A run's directory that is gone had its state taken back with it.
            Some(text) if self.path.parent().is_some_and(Path::exists) => self.write(text)?,
            Some(_) => {}
            None => self.remove(&self.path)?,
        }
        Ok(Undone::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::testing::Bench;

    fn on_disk(state: &State) -> Value {
        serde_json::from_str(&std::fs::read_to_string(&state.path).unwrap()).unwrap()
    }

    #[test]
    fn a_later_state_takes_the_place_of_an_earlier_one_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(dir.path());
        let created = State::examples(dir.path()).remove(0);
        let running = State { status: Status::Running, ..created.clone() };
        let (first, answer) = bench.apply(&created);
        answer.unwrap();
        assert_eq!(on_disk(&created)["status"], "created");
        assert_eq!(on_disk(&created)["annotations"]["org.example.team"], "web");
        let (second, answer) = bench.apply(&running);
        answer.unwrap();
        assert_eq!(on_disk(&running)["status"], "running");
        assert_eq!(on_disk(&running)["pid"], i32::MAX);
        for _ in 0..2 {
            bench.undo(&running, &second).unwrap();
            assert_eq!(on_disk(&created)["status"], "created");
        }
        for _ in 0..2 {
            bench.undo(&created, &first).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_draft_that_a_crash_left_goes_too() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::examples(dir.path()).remove(0);
        std::fs::write(state.draft(), "{").unwrap();
        Bench::new(dir.path()).undo(&state, &Record::default()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
