//! When and where a process runs, where its memory lies, and as what machine it sees this one. All of it belongs to init alone, and exec passes
//! it on.

use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::prelude::dies_with_init;
use crate::spec::{
    IoPriority, IoPriorityClass, MemoryPolicy, MemoryPolicyFlag, MemoryPolicyMode, PersonalityDomain, Scheduler,
    SchedulerFlag, SchedulerPolicy, number_list,
};
use crate::sys::schedule::{
    SchedAttr, set_affinity, set_io_priority, set_memory_policy, set_personality, set_scheduler,
};

/// Sets the scheduling policy, sched_setattr(2).
#[derive(Debug, Serialize, Deserialize)]
pub struct SetScheduler {
    /// As in config.json.
    pub scheduler: Scheduler,
}

/// Sets the I/O priority, ioprio_set(2).
#[derive(Debug, Serialize, Deserialize)]
pub struct SetIoPriority {
    /// As in config.json.
    pub priority: IoPriority,
}

/// Sets the NUMA memory policy, set_mempolicy(2).
#[derive(Debug, Serialize, Deserialize)]
pub struct SetMemoryPolicy {
    /// As in config.json.
    pub policy: MemoryPolicy,
}

/// Sets the execution domain, personality(2).
#[derive(Debug, Serialize, Deserialize)]
pub struct SetPersonality {
    /// As in config.json.
    pub domain: PersonalityDomain,
}

/// Sets the CPUs to run on, sched_setaffinity(2).
#[derive(Debug, Serialize, Deserialize)]
pub struct SetAffinity {
    /// A list such as `0-3,7`.
    pub cpus: String,
}

/// Lets the process run on every CPU that its cpuset has, sched_setaffinity(2): until Linux 6.2 joining a cgroup did that, and since then the CPUs
/// that the engine was bound to would stay.
#[derive(Debug, Serialize, Deserialize)]
pub struct FreeAffinity {}

impl EffectDef for SetScheduler {
    const KIND: &'static str = "scheduler";

    fn examples(_: &Path) -> Vec<Self> {
        let batch = Scheduler {
            policy: SchedulerPolicy::Batch,
            nice: Some(5),
            priority: None,
            flags: vec![SchedulerFlag::ResetOnFork],
            runtime: None,
            deadline: None,
            period: None,
        };
        vec![Self { scheduler: batch }]
    }

    fn describe(&self) -> String {
        let Scheduler { policy, nice, priority, flags, runtime, deadline, period } = &self.scheduler;
        let numbers = [("nice", nice.map(i64::from), ""), ("priority", priority.map(i64::from), "")];
        let times = [("runtime", runtime), ("deadline", deadline), ("period", period)];
        let times = times.map(|(name, time)| (name, time.map(|time| time as i64), " ns"));
        let values = numbers
            .into_iter()
            .chain(times)
            .filter_map(|(name, value, unit)| value.map(|value| format!("{name} {value}{unit}")));
        let parts: Vec<String> = [format!("schedule by {}", written(policy))]
            .into_iter()
            .chain(values)
            .chain(flags.iter().map(written))
            .collect();
        parts.join(", ")
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        set_scheduler(self.attr()).map_err(|e| {
            let errno = e.raw_os_error().map(Errno::from_raw_os_error);
            let failed = EffectError::call(format!("sched_setattr({})", self.describe()), e);
            match errno {
                Some(Errno::PERM) => failed.help(
                    "real-time policies and a lower nice value need CAP_SYS_NICE or RLIMIT_RTPRIO and RLIMIT_NICE; with \
                     CONFIG_RT_GROUP_SCHED the container's v1 cgroup also needs resources.cpu.realtimeRuntime; and \
                     SCHED_DEADLINE needs all CPUs of its cpuset",
                ),
                Some(Errno::BUSY) => failed.help("the machine's CPUs have not that much time left for deadlines"),
                Some(Errno::INVAL) => failed.help("SCHED_DEADLINE needs runtime <= deadline <= period, and at least 1024 ns"),
                Some(Errno::OPNOTSUPP) => failed.help("this kernel lacks this flag (utilisation clamps: CONFIG_UCLAMP_TASK)"),
                _ => failed,
            }
        })?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl SetScheduler {
    fn attr(&self) -> SchedAttr {
        let Scheduler { policy, nice, priority, flags, runtime, deadline, period } = &self.scheduler;
        SchedAttr {
            policy: policy.number(),
            flags: flags.iter().fold(0, |all, flag| all | flag.bit()),
            nice: nice.unwrap_or_default(),
            // Validated: it lies between 1 and 99, or is absent.
            priority: priority.unwrap_or_default().unsigned_abs(),
            runtime: runtime.unwrap_or_default(),
            deadline: deadline.unwrap_or_default(),
            period: period.unwrap_or_default(),
            ..SchedAttr::default()
        }
    }
}

impl EffectDef for SetIoPriority {
    const KIND: &'static str = "io_priority";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { priority: IoPriority { class: IoPriorityClass::BestEffort, priority: 6 } }]
    }

    fn describe(&self) -> String {
        format!("I/O priority {} of {}", self.priority.priority, written(&self.priority.class))
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let IoPriority { class, priority } = self.priority;
        // linux/ioprio.h.
        let number = match class {
            IoPriorityClass::RealTime => 1,
            IoPriorityClass::BestEffort => 2,
            IoPriorityClass::Idle => 3,
        };
        set_io_priority(number, priority as u32).map_err(|e| {
            let errno = e.raw_os_error().map(Errno::from_raw_os_error);
            let failed = EffectError::call(format!("ioprio_set({}, {priority})", written(&class)), e);
            match errno {
                Some(Errno::PERM) => failed.help("IOPRIO_CLASS_RT needs CAP_SYS_ADMIN or CAP_SYS_NICE"),
                Some(Errno::INVAL) => failed.help("the level lies between 0 and 7"),
                _ => failed,
            }
        })?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for SetMemoryPolicy {
    const KIND: &'static str = "memory_policy";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { policy: MemoryPolicy { mode: MemoryPolicyMode::Local, nodes: None, flags: Vec::new() } }]
    }

    fn describe(&self) -> String {
        let MemoryPolicy { mode, nodes, flags } = &self.policy;
        let nodes = nodes.as_ref().map(|nodes| format!("nodes {nodes}"));
        let parts: Vec<String> = [format!("memory policy {}", written(mode))]
            .into_iter()
            .chain(nodes)
            .chain(flags.iter().map(written))
            .collect();
        parts.join(", ")
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let MemoryPolicy { mode, nodes, flags } = &self.policy;
        let mask = nodes.as_deref().map(number_list).transpose().map_err(EffectError::new)?.unwrap_or_default();
        let mode = flags.iter().fold(mode.number(), |all, flag| all | flag.bit());
        set_memory_policy(mode, &mask).map_err(|e| {
            let errno = e.raw_os_error().map(Errno::from_raw_os_error);
            let failed = EffectError::call(format!("set_mempolicy({})", self.describe()), e);
            match errno {
                Some(Errno::INVAL) => failed.help(
                    "no node of the list is online and in the container's cpuset.mems, or this kernel does not know the mode \
                     (MPOL_PREFERRED_MANY: 5.15, MPOL_WEIGHTED_INTERLEAVE: 6.9)",
                ),
                Some(Errno::NOSYS) => failed.help("this kernel has no NUMA (CONFIG_NUMA)"),
                _ => failed,
            }
        })?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for SetPersonality {
    const KIND: &'static str = "personality";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { domain: PersonalityDomain::Linux32 }]
    }

    fn describe(&self) -> String {
        format!("personality {}", written(&self.domain))
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        // PER_LINUX and PER_LINUX32 of linux/personality.h.
        let persona = match self.domain {
            PersonalityDomain::Linux => 0x0000,
            PersonalityDomain::Linux32 => 0x0008,
        };
        set_personality(persona)
            .map_err(|e| EffectError::call(format!("personality({})", written(&self.domain)), e))?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for SetAffinity {
    const KIND: &'static str = "cpu_affinity";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { cpus: "0".into() }]
    }

    fn describe(&self) -> String {
        format!("run on CPUs {}", self.cpus)
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let mask = number_list(&self.cpus).map_err(EffectError::new)?;
        set_affinity(&mask).map_err(|e| {
            let failed = EffectError::call(format!("sched_setaffinity({})", self.cpus), e);
            failed.help("at least one of the CPUs must be there, online, and in the cpuset of the process's cgroup")
        })?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

/// More CPUs than any kernel is built for, one bit each. The kernel takes those of them that there are.
const ALL_CPUS: [u64; 256] = [u64::MAX; 256];

impl EffectDef for FreeAffinity {
    const KIND: &'static str = "free_affinity";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self {}]
    }

    fn describe(&self) -> String {
        "run on every CPU of the cpuset".into()
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        set_affinity(&ALL_CPUS).map_err(|e| EffectError::call("sched_setaffinity(every CPU)", e))?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

/// As config.json writes it.
fn written<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

impl SchedulerPolicy {
    /// linux/sched.h.
    fn number(self) -> u32 {
        match self {
            Self::Other => 0,
            Self::Fifo => 1,
            Self::Rr => 2,
            Self::Batch => 3,
            // Reserved; refused while planning.
            Self::Iso => 4,
            Self::Idle => 5,
            Self::Deadline => 6,
        }
    }
}

impl SchedulerFlag {
    /// linux/sched.h.
    fn bit(self) -> u64 {
        match self {
            Self::ResetOnFork => 0x01,
            Self::Reclaim => 0x02,
            Self::DlOverrun => 0x04,
            Self::KeepPolicy => 0x08,
            Self::KeepParams => 0x10,
            Self::UtilClampMin => 0x20,
            Self::UtilClampMax => 0x40,
        }
    }
}

impl MemoryPolicyMode {
    /// linux/mempolicy.h.
    fn number(self) -> u32 {
        match self {
            Self::Default => 0,
            Self::Preferred => 1,
            Self::Bind => 2,
            Self::Interleave => 3,
            Self::Local => 4,
            Self::PreferredMany => 5,
            Self::WeightedInterleave => 6,
        }
    }
}

impl MemoryPolicyFlag {
    /// linux/mempolicy.h.
    fn bit(self) -> u32 {
        match self {
            Self::NumaBalancing => 1 << 13,
            Self::RelativeNodes => 1 << 14,
            Self::StaticNodes => 1 << 15,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_value_of_the_config_reaches_the_kernels_structure() {
        let scheduler: Scheduler = serde_json::from_value(json!({
            "policy": "SCHED_DEADLINE", "nice": 0, "priority": 0, "runtime": 1, "deadline": 2, "period": 3,
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"],
        }))
        .unwrap();
        let attr = SetScheduler { scheduler }.attr();
        let expected = SchedAttr { policy: 6, flags: 7, runtime: 1, deadline: 2, period: 3, ..SchedAttr::default() };
        assert_eq!(attr, expected);
        let scheduler: Scheduler = serde_json::from_value(
            json!({ "policy": "SCHED_FIFO", "priority": 42, "flags": ["SCHED_FLAG_KEEP_POLICY"] }),
        )
        .unwrap();
        assert_eq!(
            SetScheduler { scheduler }.attr(),
            SchedAttr { policy: 1, priority: 42, flags: 8, ..SchedAttr::default() }
        );
    }
}
