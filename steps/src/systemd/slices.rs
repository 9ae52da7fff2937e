//! Slices: units that hold others, and that stay active when these are gone (systemd.slice(5)).

use super::{Error, Job, MANAGER, Manager, Message, NAME, OBJECT, Value, find, invocation, refused, texts};
use lifecycle_engine::error::EffectError;

/// The properties that name who has a part in a unit: with none of these running, nobody misses it.
const USERS: [&str; 6] = ["SliceOf", "RequiredBy", "RequisiteOf", "BoundBy", "WantedBy", "UpheldBy"];

/// A slice that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// It is active, or a job is queued that may make it so.
    pub runs: bool,
    /// `InvocationID` in hexadecimal digits: unique for each time that it is started, and kept while it is loaded.
    pub invocation: String,
    /// The units that are in it or want it, whether they run or not.
    pub users: Vec<String>,
}

/// Whether a unit is there for more than its name's sake. One that has failed is not.
fn runs(all: &[(String, Value)]) -> bool {
    let state = find(all, "ActiveState").and_then(Value::as_str).unwrap_or_default();
    let queued = matches!(find(all, "Job"), Some(Value::Struct(job)) if job.first() != Some(&Value::U32(0)));
    queued || !matches!(state, "inactive" | "failed")
}

impl Manager {
    /// The slice of that name. `None`: systemd knows none.
    pub fn slice(&mut self, name: &str) -> Result<Option<Slice>, EffectError> {
        let Some((_, all)) = self.loaded(name).map_err(|e| refused("ask systemd about", name, e))? else {
            return Ok(None);
        };
        let mut users: Vec<String> = USERS.iter().flat_map(|user| texts(&all, user)).collect();
        users.sort_unstable();
        users.dedup();
        Ok(Some(Slice { runs: runs(&all), invocation: invocation(&all), users }))
    }

    /// Whether a unit is active, or has a job that may make it so.
    pub fn runs(&mut self, name: &str) -> Result<bool, EffectError> {
        let loaded = self.loaded(name).map_err(|e| refused("ask systemd about", name, e))?;
        Ok(loaded.is_some_and(|(_, all)| runs(&all)))
    }

    /// Sends the request to stop a slice, and nothing with it: in any other mode systemd stops whatever is in it by then.
    pub fn stop_slice(self, name: &str) -> Result<Job, EffectError> {
        self.job("stop", "StopUnit", name, "ignore-dependencies")
    }

    /// Sends the request to start a slice.
    pub fn start_slice(self, name: &str) -> Result<Job, EffectError> {
        self.job("start", "StartUnit", name, "replace")
    }

    fn job(mut self, verb: &'static str, method: &str, name: &str, mode: &str) -> Result<Job, EffectError> {
        let body = vec![Value::str(name), Value::str(mode)];
        let sent = self.connection.send(Message::call(NAME, OBJECT, MANAGER, method, body));
        let sent = sent.map_err(|e: Error| refused(&format!("have systemd {verb}"), name, e))?;
        Ok(Job { yields: true, ..Job::new(self, sent, name, verb) })
    }
}
