//! `process`.

use super::{Problem, Problems};
use crate::spec::{IoPriority, Process, Scheduler, SchedulerPolicy, number_list};

pub(super) fn check(process: &Process, problems: &mut Problems) {
    problems.absolute("process.cwd", &process.cwd);
    if process.args.is_empty() {
        problems.add("process.args", "must have at least one entry, the program");
    }
    for (index, arg) in process.args.iter().enumerate() {
        problems.without_nul(format!("process.args[{index}]"), arg.as_bytes());
    }
    environment("process.env", process.env.iter().map(|entry| entry.0.as_str()), problems);
    rlimits(process, problems);
    if process.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        problems.add("process.oomScoreAdj", "must lie between -1000 and 1000");
    }
    if process.user.umask.is_some_and(|mask| mask > 0o777) {
        problems.add("process.user.umask", "must lie between 0 and 0777 (511)");
    }
    // To setresuid(2) it is not an id: it leaves the caller's as it is, which is root's.
    let user = &process.user;
    let ids = [("uid", user.uid), ("gid", user.gid)].into_iter().map(|(name, id)| (name.to_owned(), id));
    let more = user.additional_gids.iter().enumerate().map(|(at, id)| (format!("additionalGids[{at}]"), *id));
    for (name, _) in ids.chain(more).filter(|(_, id)| *id == u32::MAX) {
        problems.add(format!("process.user.{name}"), "must lie below 4294967295, which stands for no id");
    }
    if let Some(priority) = process.io_priority {
        problems.within("process.ioPriority", check_io_priority(priority));
    }
    if let Some(scheduler) = &process.scheduler {
        problems.within("process.scheduler", check_scheduler(scheduler));
    }
    if let Some(affinity) = &process.exec_cpu_affinity {
        for (name, list) in [("initial", &affinity.initial), ("final", &affinity.last)] {
            if let Some(Err(message)) = list.as_deref().map(number_list) {
                problems.add(format!("process.execCPUAffinity.{name}"), message);
            }
        }
    }
    for (name, label) in [("apparmorProfile", &process.apparmor_profile), ("selinuxLabel", &process.selinux_label)] {
        if label.as_deref().is_some_and(|label| label.chars().any(char::is_control)) {
            problems.add(format!("process.{name}"), "cannot contain a control character");
        }
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

/// What is wrong with a scheduling policy, by its fields.
pub fn check_scheduler(scheduler: &Scheduler) -> Vec<Problem> {
    use SchedulerPolicy::{Batch, Deadline, Fifo, Iso, Other, Rr};
    let mut problems = Problems::default();
    let policy = scheduler.policy;
    if policy == Iso {
        problems.add("policy", "SCHED_ISO is reserved and not part of any Linux kernel");
    }
    if scheduler.nice.is_some_and(|nice| !(-20..=19).contains(&nice)) {
        problems.add("nice", "must lie between -20 and 19");
    }
    if scheduler.nice.is_some_and(|nice| nice != 0) && !matches!(policy, Other | Batch) {
        problems.add("nice", "applies to SCHED_OTHER and SCHED_BATCH alone");
    }
    let priority = scheduler.priority.unwrap_or(0);
    if priority != 0 && !matches!(policy, Fifo | Rr) {
        problems.add("priority", "applies to SCHED_FIFO and SCHED_RR alone");
    } else if matches!(policy, Fifo | Rr) && !(1..=99).contains(&priority) {
        problems.add("priority", "must lie between 1 and 99 for SCHED_FIFO and SCHED_RR");
    }
    if policy == Deadline {
        check_deadline(scheduler, &mut problems);
        return problems.found;
    }
    let times = [("runtime", scheduler.runtime), ("deadline", scheduler.deadline), ("period", scheduler.period)];
    for (name, _) in times.iter().filter(|(_, time)| time.is_some_and(|time| time != 0)) {
        problems.add(*name, "applies to SCHED_DEADLINE alone");
    }
    problems.found
}

/// The kernel's rules, sched(7), "SCHED_DEADLINE": a period of 0 is as long as the deadline.
fn check_deadline(scheduler: &Scheduler, problems: &mut Problems) {
    let time = |time: Option<u64>| time.unwrap_or_default();
    let (runtime, deadline, period) = (time(scheduler.runtime), time(scheduler.deadline), time(scheduler.period));
    if runtime < 1024 {
        problems.add("runtime", "must be at least 1024 (nanoseconds) for SCHED_DEADLINE");
    } else if runtime > deadline {
        problems.add("runtime", format!("{runtime} is longer than the deadline, {deadline}"));
    }
    if period != 0 && deadline > period {
        problems.add("deadline", format!("{deadline} is longer than the period, {period}"));
    }
}

/// What is wrong with an I/O priority, by its fields.
pub fn check_io_priority(priority: IoPriority) -> Vec<Problem> {
    let mut problems = Problems::default();
    if !(0..=7).contains(&priority.priority) {
        problems.add("priority", "must lie between 0 and 7");
    }
    problems.found
}
