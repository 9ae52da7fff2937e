//! `process`.

use super::Problems;
use crate::spec::{Process, Scheduler, SchedulerPolicy};

pub(super) fn check(process: &Process, problems: &mut Problems) {
    problems.absolute("process.cwd", &process.cwd);
    if process.args.is_empty() {
        problems.add("process.args", "must have at least one entry, the program");
    }
    for (index, arg) in process.args.iter().enumerate() {
        if arg.contains('\0') {
            problems.add(format!("process.args[{index}]"), "an argument cannot contain a NUL byte");
        }
    }
    environment("process.env", process.env.iter().map(|entry| entry.0.as_str()), problems);
    rlimits(process, problems);
    if process.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        problems.add("process.oomScoreAdj", "must lie between -1000 and 1000");
    }
    if process.user.umask.is_some_and(|mask| mask > 0o777) {
        problems.add("process.user.umask", "must lie between 0 and 0777 (511)");
    }
    if process.io_priority.is_some_and(|io| !(0..=7).contains(&io.priority)) {
        problems.add("process.ioPriority.priority", "must lie between 0 and 7");
    }
    if let Some(scheduler) = &process.scheduler {
        schedule(scheduler, problems);
    }
}

/// "Elements MUST be NAME=value", IEEE Std 1003.1-2008's `environ`. The value is never part of the message: it may be a secret.
pub(super) fn environment<'a>(field: &str, entries: impl Iterator<Item = &'a str>, problems: &mut Problems) {
    for (index, entry) in entries.enumerate() {
        if entry.find('=').is_none_or(|at| at == 0) {
            problems.add(format!("{field}[{index}]"), "must have the form NAME=value");
        } else if entry.contains('\0') {
            problems.add(format!("{field}[{index}]"), "cannot contain a NUL byte");
        }
    }
}

fn rlimits(process: &Process, problems: &mut Problems) {
    for (index, limit) in process.rlimits.iter().enumerate() {
        if process.rlimits[..index].iter().any(|earlier| earlier.kind == limit.kind) {
            problems.add(format!("process.rlimits[{index}].type"), "is listed twice; each limit may be set once");
        }
        if limit.soft > limit.hard {
            problems.add(
                format!("process.rlimits[{index}].soft"),
                format!("{} is above the hard limit {}", limit.soft, limit.hard),
            );
        }
    }
}

fn schedule(scheduler: &Scheduler, problems: &mut Problems) {
    use SchedulerPolicy::{Batch, Deadline, Fifo, Iso, Other, Rr};
    let policy = scheduler.policy;
    if policy == Iso {
        problems.add("process.scheduler.policy", "SCHED_ISO is reserved and not part of any Linux kernel");
    }
    if scheduler.nice.is_some_and(|nice| !(-20..=19).contains(&nice)) {
        problems.add("process.scheduler.nice", "must lie between -20 and 19");
    }
    if scheduler.nice.is_some_and(|nice| nice != 0) && !matches!(policy, Other | Batch) {
        problems.add("process.scheduler.nice", "applies to SCHED_OTHER and SCHED_BATCH alone");
    }
    let priority = scheduler.priority.unwrap_or(0);
    if priority != 0 && !matches!(policy, Fifo | Rr) {
        problems.add("process.scheduler.priority", "applies to SCHED_FIFO and SCHED_RR alone");
    } else if matches!(policy, Fifo | Rr) && !(1..=99).contains(&priority) {
        problems.add("process.scheduler.priority", "must lie between 1 and 99 for SCHED_FIFO and SCHED_RR");
    }
    let times = [("runtime", scheduler.runtime), ("deadline", scheduler.deadline), ("period", scheduler.period)];
    for (name, time) in times {
        if policy != Deadline && time.is_some_and(|time| time != 0) {
            problems.add(format!("process.scheduler.{name}"), "applies to SCHED_DEADLINE alone");
        }
    }
}
