//! Limits above the engine's own, for a process in a user namespace.

use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::example_process;
use super::idmap::directory;
use crate::outcomes::Process;
use crate::spec::{Rlimit, RlimitType};
use crate::sys::rlimit::set_rlimit;

/// Sets limits of a process from the host, prlimit(2): to raise one takes CAP_SYS_RESOURCE in the initial user namespace, which nobody has in
/// another.
#[derive(Debug, Serialize, Deserialize)]
pub struct RaiseRlimits {
    /// The process.
    pub process: Handle<Process>,
    /// The limits.
    pub limits: Vec<Rlimit>,
}

impl EffectDef for RaiseRlimits {
    const KIND: &'static str = "raise_rlimits";

    fn examples(_: &Path) -> Vec<Self> {
        let limits = vec![Rlimit { kind: RlimitType::Nofile, soft: 256, hard: 512 }];
        vec![Self { process: example_process(), limits }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        let names: Vec<&str> = self.limits.iter().map(|limit| limit.kind.name()).collect();
        format!("raise {} of {}", names.join(", "), self.process)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = cx.resolve(&self.process)?;
        // It is that very process, and it is our child: its number is not another's until we have waited for it.
        let _proof = directory(&process)?;
        for Rlimit { kind, soft, hard } in &self.limits {
            set_rlimit(process.pid, kind.number(), *soft, *hard).map_err(|e| {
                EffectError::call(format!("prlimit({}, {}, {soft}, {hard})", process.pid, kind.name()), e)
                    .help("it needs CAP_SYS_RESOURCE, and RLIMIT_NOFILE stays below the sysctl fs.nr_open: lower process.rlimits")
            })?;
        }
        Ok(Applied::done())
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}
