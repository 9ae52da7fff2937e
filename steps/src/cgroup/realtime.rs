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

/// The real time that a cgroup which is there has with these limits: what they do not say it has already. `None`: they say nothing of it.
pub(super) fn asked_of(limits: &[Limit], at: &Path, facts: &mut Facts) -> Option<Realtime> {
    let is_one = |limit: &Limit| limit.version == Version::V1 && limit.file.starts_with("cpu.rt_");
    if !limits.iter().any(is_one) {
        return None;
    }
    let mut number = |file: &str| {
        let asked = limits.iter().find(|limit| is_one(limit) && limit.file == file).map(|limit| limit.value.clone());
        let text = asked.or_else(|| facts.file(&at.join(file)).ok())?;
        text.trim().parse::<u64>().ok()
    };
    number("cpu.rt_runtime_us").map(|runtime| Realtime { runtime, period: number("cpu.rt_period_us") })
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

#[cfg(test)]
mod tests {
    use lifecycle_engine::effect::RunNames;
    use lifecycle_engine::facts::{FileFact, Recorded};
    use lifecycle_engine::step::{Planning, Step};
    use serde_json::{Value, json};

    use super::*;
    use crate::cgroup::Update;

    const AT: &str = "/cg/cpu/box/web";

    /// What an update does to a container that has 1000 µs of each 500000, below a parent that is ours.
    fn update(cpu: &Value, above: i64) -> Result<Vec<String>, PlanError> {
        let hierarchy = json!({ "controllers": ["cpu", "cpuacct"], "mount": "/cg/cpu", "writable": true });
        let mut given = Recorded::default();
        given.host.insert("cgroup.layout".into(), json!({ "mode": "v1", "v1": [hierarchy], "v2": null }));
        let above = json!({ "at": "/cg/cpu", "runtime": above, "period": 1_000_000 });
        given.host.insert(format!("{REALTIME}{AT}"), above);
        for (file, text) in [("cpu.rt_runtime_us", "1000\n"), ("cpu.rt_period_us", "500000\n")] {
            given.files.insert(Path::new(AT).join(file), FileFact::Text(text.to_owned()));
        }
        let mut facts = Facts::fixed(given);
        let run = RunNames { root: "/run/lifecycle".into(), id: "web".into() };
        let mut cx = Planning::new(&mut facts, &run, "limits".into(), None);
        let input = json!({ "cgroups": { "cpu": AT }, "resources": { "cpu": cpu } });
        Update::plan(serde_json::from_value(input).expect("an input"), &mut cx)?;
        Ok(cx.effects.iter().map(|e| e.effect.describe()).collect())
    }

    #[test]
    fn an_update_gives_parents_of_ours_first_and_takes_back_last() {
        let all = update(&json!({ "realtimeRuntime": 3000 }), 950_000).expect("a plan");
        let first = format!("give the parents of {AT} 3000 µs of real time for it");
        let last = format!("leave the parents of {AT} no more than 3000 µs of real time for it");
        assert_eq!(all, [first, format!("write 3000 to {AT}/cpu.rt_runtime_us"), last]);
        // A longer period alone is less of each.
        let all = update(&json!({ "realtimePeriod": 1_000_000 }), 950_000).expect("a plan");
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(all[0].ends_with(" 1000 µs of real time for it"), "{all:?}");
        assert_eq!(update(&json!({ "shares": 512 }), 0).expect("a plan").len(), 1);
    }

    #[test]
    fn an_update_to_what_is_above_of_others_has_not_is_refused() {
        // With the period that the container has already, twice as much of each second.
        assert!(update(&json!({ "realtimeRuntime": 3000 }), 6000).is_ok());
        let refused = update(&json!({ "realtimeRuntime": 3000 }), 5999).expect_err("refused");
        assert_eq!(refused.field, FIELD);
        assert!(refused.message.contains("/cg/cpu above has 5999"), "{refused}");
    }
}
