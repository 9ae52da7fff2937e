//! What is known of containers without working on them: their state.json, and what the machine says.

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::journal::{JournalError, OwnDir, RunDir};
use lifecycle_engine::run::RunError;
use lifecycle_steps::cgroup::follow;
use lifecycle_steps::effects::{Status, status_of};
use lifecycle_steps::facts::caller::user_name;
use lifecycle_steps::state::Stored;
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::perform::Call;

/// A container that has been created.
#[derive(Debug)]
pub struct Container {
    /// Its run's names.
    pub names: RunNames,
    /// Where it is in its life, just now.
    pub status: Status,
    /// Its state as `state.publish` wrote it.
    pub state: Stored,
    /// Who owns its directory.
    pub owner: u32,
}

impl Container {
    /// Looks it up.
    pub fn load(call: &Call, id: &str) -> Result<Self, Fault> {
        let names = call.container(id)?;
        Self::find(names)?.ok_or_else(|| Fault::absent(id))
    }

    /// `None`: there is no container of that name, or it is still being made.
    pub fn find(names: RunNames) -> Result<Option<Self>, Fault> {
        let dir = match OwnDir::of(&names) {
            Err(JournalError::Absent { .. }) => return Ok(None),
            other => other.map_err(RunError::from)?,
        };
        let Some(text) = dir.read("state.json").map_err(RunError::from)? else { return Ok(None) };
        let damaged = |e| Fault::failed(format!("{} is damaged", names.dir().join("state.json").display()), &e);
        let mut state: Stored = Stored::read(&text).map_err(damaged)?;
        follow(&mut state.lifecycle.cgroups, &state.lifecycle.process);
        let owner = dir.owner();
        let status = status_of(&names.dir(), &state.lifecycle.process, &state.lifecycle.cgroups)
            .map_err(|e| Fault::failed(format!("cannot look at container {}", names.id), &e))?;
        Ok(Some(Self { names, status, state, owner }))
    }

    /// All of them, sorted by id. One that cannot be looked at is told of, and hides no other.
    pub fn all(call: &Call) -> Result<Vec<Self>, Fault> {
        let ids = RunDir::list(&call.root).map_err(RunError::from)?;
        let find = |id: String| {
            let found = Self::find(RunNames { root: call.root.clone(), id: id.clone() });
            found.unwrap_or_else(|fault| {
                call.log.warn(&format!("load container {id}: {}", fault.message));
                None
            })
        };
        Ok(ids.into_iter().filter_map(find).collect())
    }

    /// Its first process's id; 0 when that has ended.
    pub fn pid(&self) -> i32 {
        if self.status == Status::Stopped { 0 } else { self.state.lifecycle.process.pid }
    }

    /// The document of runtime.md, "State", with what callers of runc find there as well.
    pub fn document(&self) -> Value {
        json!({
            "ociVersion": self.state.oci_version,
            "id": self.names.id,
            "pid": self.pid(),
            "status": self.status,
            "bundle": self.state.bundle,
            "rootfs": self.state.rootfs,
            "created": self.state.created,
            "annotations": self.state.annotations,
            "owner": self.owner_name(),
        })
    }

    /// The name of whoever made it; his id where he has none.
    pub fn owner_name(&self) -> String {
        user_name(self.owner).unwrap_or_else(|| format!("#{}", self.owner))
    }
}
