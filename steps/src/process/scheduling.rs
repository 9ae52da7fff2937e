//! `process.scheduling`: when the container's program runs, where its memory lies, and what machine it believes to be on.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::schedule::{SetIoPriority, SetMemoryPolicy, SetPersonality, SetScheduler};
use crate::spec::{
    IoPriority, MemoryPolicy, Personality, Scheduler, check_io_priority, check_memory_policy, check_scheduler,
};

/// Gives the process of the site its scheduling policy, its I/O priority, its execution domain and its NUMA memory policy, as config.json has
/// them. What is left out stays as it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The scheduling policy: process.scheduler, sched_setattr(2).
    #[serde(default)]
    pub scheduler: Option<Scheduler>,
    /// The I/O priority: process.ioPriority, ioprio_set(2).
    #[serde(default)]
    pub io_priority: Option<IoPriority>,
    /// The execution domain: linux.personality, personality(2).
    #[serde(default)]
    pub personality: Option<Personality>,
    /// The NUMA memory policy: linux.memoryPolicy, set_mempolicy(2).
    #[serde(default)]
    pub memory_policy: Option<MemoryPolicy>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Scheduling;

impl Step for Scheduling {
    const KIND: &'static str = "process.scheduling";
    const CHANGES: &'static str = "Scheduling, I/O priority, execution domain and memory policy of the site's process.";
    const REVERSED_BY: &'static str = "Goes with the process.";
    const PLACE: Place = Place::Inside;
    // What is set up before should not have to wait for a container that yields to everybody.
    const AFTER: After =
        &["rootfs.mount", "rootfs.overlay", "rootfs.pivot", "rootfs.protect", "sysctl.write", "uts.set"];
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A program that leaves the CPU and the disk to others, and believes to be on a machine of 32 bits.",
        plan: "plan: example/scheduling
steps:
  init: { uses: process.clone, with: { new: [pid], stdio: log } }
  scheduling:
    uses: process.scheduling
    site: \"${init}\"
    with:
      scheduler: { policy: SCHED_BATCH, nice: 10 }
      io_priority: { class: IOPRIO_CLASS_BE, priority: 7 }
      personality: { domain: LINUX32 }
      memory_policy: { mode: MPOL_LOCAL }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/uname, -m] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let Input { scheduler, io_priority, personality, memory_policy } = input;
        if let Some(scheduler) = scheduler {
            refuse("scheduler", check_scheduler(&scheduler))?;
            cx.effect(SetScheduler { scheduler });
        }
        if let Some(priority) = io_priority {
            refuse("io_priority", check_io_priority(priority))?;
            cx.effect(SetIoPriority { priority });
        }
        if let Some(Personality { domain, flags }) = personality {
            if let Some(flag) = flags.first() {
                return Err(PlanError::new("personality.flags", format!("{flag}: the runtime-spec defines none")));
            }
            cx.effect(SetPersonality { domain });
        }
        if let Some(policy) = memory_policy {
            refuse("memory_policy", check_memory_policy(&policy))?;
            cx.effect(SetMemoryPolicy { policy });
        }
        Ok(Output {})
    }
}

/// The first of what is wrong, with its place.
fn refuse(field: &str, problems: Vec<crate::spec::Problem>) -> Result<(), PlanError> {
    match problems.into_iter().next() {
        Some(problem) => Err(PlanError::new(format!("{field}.{}", problem.path), problem.message)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan_inside, refused_inside};
    use serde_json::json;

    #[test]
    fn each_field_is_one_effect_in_this_order() {
        let planned = plan_inside::<Scheduling>(json!({
            "scheduler": { "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 10_000_000, "period": 20_000_000,
                           "flags": ["SCHED_FLAG_RESET_ON_FORK"] },
            "io_priority": { "class": "IOPRIO_CLASS_IDLE" },
            "personality": { "domain": "LINUX32" },
            "memory_policy": { "mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"] },
        }));
        assert_eq!(
            planned.effects,
            [
                "schedule by SCHED_DEADLINE, runtime 1000000 ns, deadline 10000000 ns, period 20000000 ns, \
                 SCHED_FLAG_RESET_ON_FORK",
                "I/O priority 0 of IOPRIO_CLASS_IDLE",
                "personality LINUX32",
                "memory policy MPOL_BIND, nodes 0-1, MPOL_F_STATIC_NODES",
            ]
        );
        assert!(plan_inside::<Scheduling>(json!({})).effects.is_empty());
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_with_its_field() {
        for (input, field) in [
            (json!({ "scheduler": { "policy": "SCHED_ISO" } }), "scheduler.policy"),
            (json!({ "scheduler": { "policy": "SCHED_FIFO", "priority": 0 } }), "scheduler.priority"),
            (
                json!({ "scheduler": { "policy": "SCHED_DEADLINE", "runtime": 9, "deadline": 8, "period": 8 } }),
                "scheduler.runtime",
            ),
            (json!({ "io_priority": { "class": "IOPRIO_CLASS_BE", "priority": 8 } }), "io_priority.priority"),
            (json!({ "personality": { "domain": "LINUX", "flags": ["X"] } }), "personality.flags"),
            (json!({ "memory_policy": { "mode": "MPOL_BIND" } }), "memory_policy.nodes"),
            (json!({ "memory_policy": { "mode": "MPOL_BIND", "nodes": "0 1" } }), "memory_policy.nodes"),
        ] {
            assert_eq!(refused_inside::<Scheduling>(input).field, field);
        }
    }
}
