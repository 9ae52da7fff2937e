//! Real time in cgroups of version 1: what a container asks for has to come from the cgroups above its own.

use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::Facts;
use serde::{Deserialize, Serialize};

use super::limits::Limit;
use crate::effects::cgroup::{Realtime, Version};
use crate::facts::REALTIME;

const FIELD: &str = "resources.cpu.realtimeRuntime";

/// What is above a cgroup, and has real time to give or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Above {
    /// The directory.
    pub(crate) at: PathBuf,
    /// Microseconds; -1: no limit.
    pub(crate) runtime: i64,
    /// Microseconds.
    pub(crate) period: u64,
}

/// The real time that the limits ask for.
pub(super) fn asked(limits: &[Limit]) -> Option<Realtime> {
    let number = |file: &str| {
        let limit = limits.iter().find(|limit| limit.version == Version::V1 && limit.file == file)?;
        limit.value.parse::<u64>().ok()
    };
    number("cpu.rt_runtime_us").map(|runtime| Realtime { runtime, period: number("cpu.rt_period_us") })
}

/// Refuses what the cgroups above have not. Those that runs of ours made are given it, so they do not count.
pub(super) fn check(realtime: Realtime, at: &Path, facts: &mut Facts) -> Result<(), PlanError> {
    let Some(above) = facts.get::<Above>(&format!("{REALTIME}{}", at.display())) else { return Ok(()) };
    above.has(realtime)
}

/// The same for a cgroup that is there, whose parent nobody gives any more.
pub(super) fn check_parent(realtime: Realtime, at: &Path, facts: &mut Facts) -> Result<(), PlanError> {
    let Some(parent) = at.parent() else { return Ok(()) };
    let mut number = |file: &str| facts.file(&parent.join(file)).ok().and_then(|text| text.trim().parse::<i64>().ok());
    let (Some(runtime), Some(period)) = (number("cpu.rt_runtime_us"), number("cpu.rt_period_us")) else {
        return Ok(());
    };
    Above { at: parent.to_owned(), runtime, period: u64::try_from(period).unwrap_or(1) }.has(realtime)
}

impl Above {
    fn has(&self, asked: Realtime) -> Result<(), PlanError> {
        let needed = asked.of_each(self.period);
        if u64::try_from(self.runtime).map_or(true, |has| has >= needed) {
            return Ok(());
        }
        let Self { at, runtime, period } = self;
        let message = format!(
            "asks for {} µs of real time, and the cgroup {} above has {runtime} of each {period} to give",
            asked.runtime,
            at.display()
        );
        Err(PlanError::new(FIELD, message).help(format!(
            "write {needed} or more to {}/cpu.rt_runtime_us, ask for less, or choose a linux.cgroupsPath below a cgroup that has it",
            at.display()
        )))
    }
}
