//! SIGKILL at an exact place: before or after one system call of the engine or of a process that it made.
//!
//! The command runs under ptrace(2). Every system call that can change the machine is a [`SyscallPoint`], named by the process that makes it
//! (in the order of their making: the engine is 0) and by its number among that process's calls, so that a point means the same in the
//! next run even when the processes interleave otherwise. A process that has executed another program (a hook, the container's command) is
//! not ours any more: its calls do not count and it is let go.
//!
//! PTRACE_O_EXITKILL stays off: what the dead engine leaves behind must run on, as it does when the machine's OOM killer strikes.

mod calls;
mod tracer;

use std::fmt;
use std::process::Command;
use std::time::Duration;

use crate::Result;

/// A system call at which to kill.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SyscallPoint {
    /// The process that makes it: 0 is the command itself, 1 the first process that was made, and so on.
    pub process: usize,
    /// Its number among the counted calls of that process, from 0.
    pub index: usize,
    /// The call's name.
    pub call: &'static str,
}

impl fmt::Display for SyscallPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            0 => write!(f, "engine call {} ({})", self.index, self.call),
            process => write!(f, "process {process} call {} ({})", self.index, self.call),
        }
    }
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Victim {
    /// The command itself.
    Engine,
    /// The process that makes the call.
    Caller,
}

/// On which side of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum When {
    /// Before the kernel has done anything.
    Before,
    /// When the kernel has done it and the caller does not know yet.
    After,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Engine => "engine",
            Self::Caller => "caller",
        })
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an exit code.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
    /// It was still running at the time limit, and was killed for that.
    TimedOut,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// How the command ended.
    pub ending: Ending,
    /// Whether the point was reached and the victim killed there.
    pub killed: bool,
    /// Every counted call up to the kill, or to the end.
    pub points: Vec<SyscallPoint>,
    /// What the command wrote to standard output.
    pub stdout: String,
    /// What the command wrote to standard error.
    pub stderr: String,
}

/// How long a traced command may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Runs the command to its end and names every call at which it could be killed.
pub fn count(command: &mut Command) -> Result<Outcome> {
    tracer::run(command, tracer::Goal::Count, TIME_LIMIT)
}

/// As [`count`], with another time limit.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<Outcome> {
    tracer::run(command, tracer::Goal::Count, limit)
}

/// As [`count`], and shows every process, before and after each of its system calls, while it stands still there.
pub fn watch(command: &mut Command, mut look: impl FnMut(i32)) -> Result<Outcome> {
    tracer::run(command, tracer::Goal::Look(&mut |pid| look(pid.as_raw())), TIME_LIMIT)
}

/// Runs the command to its end, and does something each time that a process of it is about to make this call, or has made it: whatever races with
/// the command wins. Only calls that count have a name here.
pub fn run_meddling(
    command: &mut Command,
    call: &'static str,
    when: When,
    meddle: &mut dyn FnMut(),
) -> Result<Outcome> {
    tracer::run(command, tracer::Goal::Meddle(tracer::Meddle { call, when, act: meddle }), TIME_LIMIT)
}

/// Runs the command and kills the victim at the point; everything else is let go and runs on untraced.
///
/// Returns when the command has ended. What it leaves running is not waited for.
pub fn run_killed_at(command: &mut Command, point: &SyscallPoint, victim: Victim, when: When) -> Result<Outcome> {
    tracer::run(command, tracer::Goal::Kill(tracer::Kill { point: point.clone(), victim, when }), TIME_LIMIT)
}
