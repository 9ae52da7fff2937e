//! The ptrace loop.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Ending, Outcome, SyscallPoint, Victim, When, calls};
use crate::sys::{self, At};
use crate::{Error, Result, While};

/// Where to kill whom.
pub(super) struct Kill {
    pub point: SyscallPoint,
    pub victim: Victim,
    pub when: When,
}

/// What to do at which calls.
pub(super) struct Meddle<'a> {
    pub call: &'static str,
    pub when: When,
    pub act: &'a mut dyn FnMut(),
}

/// What the calls are watched for.
pub(super) enum Goal<'a> {
    Count,
    /// Each thread before and after each of its calls, while it stands still.
    Look(&'a mut dyn FnMut(Pid)),
    Kill(Kill),
    Meddle(Meddle<'a>),
}

impl Goal<'_> {
    /// On which side of this call there is something to do.
    fn side(&self, process: usize, index: usize, call: &str) -> Option<When> {
        match self {
            Self::Kill(Kill { point, when, .. }) if (point.process, point.index) == (process, index) => Some(*when),
            Self::Meddle(meddle) if meddle.call == call => Some(meddle.when),
            Self::Count | Self::Look(_) | Self::Kill(_) | Self::Meddle(_) => None,
        }
    }
}

/// Runs `command` under trace.
pub(super) fn run(command: &mut Command, goal: Goal, limit: Duration) -> Result<Outcome> {
    let mut stdout = tempfile::tempfile().when(|| "making a file for the output".into())?;
    let mut stderr = tempfile::tempfile().when(|| "making a file for the errors".into())?;
    let share = |file: &File| file.try_clone().map(Stdio::from).when(|| "sharing the output file".into());
    command.stdin(Stdio::null()).stdout(share(&stdout)?).stderr(share(&stderr)?);
    let mut tracer = Tracer::start(command, goal)?;
    let watch = Watch::over(tracer.engine, limit);
    let traced = tracer.follow();
    let timed_out = watch.stop();
    let ending = traced?;
    Ok(Outcome {
        ending: if timed_out { Ending::TimedOut } else { ending },
        killed: tracer.killed,
        points: tracer.points,
        stdout: text_of(&mut stdout)?,
        stderr: text_of(&mut stderr)?,
    })
}

fn text_of(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).when(|| "reading the output back".into())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Kills the command when its time is up: waitpid(2) has no time limit of its own.
struct Watch {
    done: mpsc::Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Watch {
    fn over(pid: Pid, limit: Duration) -> Self {
        let (done, ended) = mpsc::channel();
        let thread = thread::spawn(move || {
            let late = ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            // The command is not reaped before `stop`, or is about to be: an error says that it is gone.
            late && kill(pid, Signal::SIGKILL).is_ok()
        });
        Self { done, thread }
    }

    fn stop(self) -> bool {
        drop(self.done);
        self.thread.join().unwrap_or(false)
    }
}

/// One traced thread.
#[derive(Debug, Clone, Copy)]
struct Tracee {
    /// The process that it belongs to, in the order of their making.
    process: usize,
    /// Whether it stands still until we say otherwise.
    stopped: bool,
    /// Whether it is inside a call after which there is something to do.
    at_point: bool,
}

/// What the loop is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Counting calls, until the point.
    Watching,
    /// The engine is being killed while the caller of the point stands still.
    AwaitingDeath { held: Pid },
    /// Letting everything go.
    Releasing,
}

struct Tracer<'a> {
    engine: Pid,
    /// The program under test: a process that runs it, or an unnamed copy of it, is ours.
    program: PathBuf,
    goal: Goal<'a>,
    phase: Phase,
    tracees: HashMap<Pid, Tracee>,
    /// Every thread that was ever a tracee: a parent's report of a birth may come after the child's end.
    met: HashSet<Pid>,
    /// Thread groups that have a number already.
    processes: HashMap<Pid, usize>,
    /// How many calls each process has made so far.
    calls: Vec<usize>,
    points: Vec<SyscallPoint>,
    killed: bool,
    ending: Option<Ending>,
}

const OPTIONS: Options = Options::PTRACE_O_TRACESYSGOOD
    .union(Options::PTRACE_O_TRACEFORK)
    .union(Options::PTRACE_O_TRACEVFORK)
    .union(Options::PTRACE_O_TRACECLONE)
    .union(Options::PTRACE_O_TRACEEXEC);

/// All kinds of children, and only this thread's own: tests run side by side.
fn flags() -> WaitPidFlag {
    WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD
}

impl<'a> Tracer<'a> {
    /// Starts the command and holds it at its first instruction.
    fn start(command: &mut Command, goal: Goal<'a>) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        sys::trace_from_exec(command);
        let child = command.spawn().when(|| format!("starting {program}"))?;
        let engine = Pid::from_raw(child.id().cast_signed());
        let doing = || format!("taking hold of {program}");
        waitpid(engine, Some(flags())).when(doing)?;
        // PTRACE_TRACEME stops it at its exec; PTRACE_SEIZE is what tells later stops apart. So let go into a stop, and seize.
        ptrace::detach(engine, Signal::SIGSTOP).when(doing)?;
        // A SIGCONT that came before it stands still would cancel the stop, and it would run away unwatched.
        waitpid(engine, Some(flags() | WaitPidFlag::WUNTRACED)).when(doing)?;
        ptrace::seize(engine, OPTIONS).when(doing)?;
        kill(engine, Signal::SIGCONT).when(doing)?;
        let program = fs::read_link(format!("/proc/{engine}/exe")).when(doing)?;
        let first = Tracee { process: 0, stopped: false, at_point: false };
        Ok(Self {
            engine,
            program,
            goal,
            phase: Phase::Watching,
            tracees: HashMap::from([(engine, first)]),
            met: HashSet::from([engine]),
            processes: HashMap::from([(engine, 0)]),
            calls: vec![0],
            points: Vec::new(),
            killed: false,
            ending: None,
        })
    }

    /// Until the engine has ended and every other process is let go.
    fn follow(&mut self) -> Result<Ending> {
        loop {
            if let Some(ending) = self.ending
                && self.tracees.is_empty()
            {
                return Ok(ending);
            }
            match waitpid(None, Some(flags())) {
                Ok(status) => self.handle(status)?,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(Error::new("waiting for a traced process", error)),
            }
        }
    }

    fn handle(&mut self, status: WaitStatus) -> Result<()> {
        match status {
            WaitStatus::Exited(pid, code) => self.ended(pid, Ending::Exited(code)),
            WaitStatus::Signaled(pid, signal, _) => self.ended(pid, Ending::Signaled(signal as i32)),
            WaitStatus::PtraceSyscall(pid) => {
                self.stopped(pid);
                self.at_syscall(pid)
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                self.stopped(pid);
                if self.at_event(pid, event) { self.release(pid, None) } else { self.go_on(pid, None) }
            }
            WaitStatus::Stopped(pid, signal) => {
                self.stopped(pid);
                self.go_on(pid, Some(signal))
            }
            WaitStatus::Continued(_) | WaitStatus::StillAlive => Ok(()),
        }
    }

    /// Notes that a thread stands still.
    fn stopped(&mut self, thread: Pid) {
        self.meet(thread);
        self.tracees.entry(thread).and_modify(|tracee| tracee.stopped = true);
    }

    /// Takes note of a thread that we have not met, and gives its process a number.
    fn meet(&mut self, thread: Pid) {
        if !self.met.insert(thread) {
            return;
        }
        let group = thread_group(thread).unwrap_or(thread);
        let next = self.calls.len();
        let process = *self.processes.entry(group).or_insert(next);
        if process == next {
            self.calls.push(0);
        }
        self.tracees.insert(thread, Tracee { process, stopped: false, at_point: false });
    }

    /// Looks at what a ptrace event says about a thread. Whether it is not ours any more.
    fn at_event(&mut self, thread: Pid, event: i32) -> bool {
        const BIRTHS: [ptrace::Event; 3] =
            [ptrace::Event::PTRACE_EVENT_FORK, ptrace::Event::PTRACE_EVENT_VFORK, ptrace::Event::PTRACE_EVENT_CLONE];
        if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 {
            return self.has_become_foreign(thread);
        }
        // The child is traced from birth, but its first stop may be reported much later: it must not be forgotten until then.
        if BIRTHS.iter().any(|birth| event == *birth as i32)
            && let Ok(child) = ptrace::getevent(thread)
        {
            self.meet(Pid::from_raw(child as i32));
        }
        false
    }

    /// Whether the process now runs a program other than the one under test.
    fn has_become_foreign(&self, thread: Pid) -> bool {
        if thread == self.engine {
            return false;
        }
        let exe = fs::read_link(format!("/proc/{thread}/exe")).unwrap_or_default();
        // A runtime may run itself from an unnamed copy, so that a container cannot write to its file (CVE-2019-5736).
        exe != self.program && !exe.starts_with("/memfd:lifecycle")
    }

    fn ended(&mut self, pid: Pid, ending: Ending) -> Result<()> {
        self.tracees.remove(&pid);
        if pid == self.engine {
            self.ending = Some(ending);
            self.release_all()?;
        }
        Ok(())
    }

    fn at_syscall(&mut self, thread: Pid) -> Result<()> {
        if let Goal::Look(look) = &mut self.goal {
            look(thread);
        }
        let at = match sys::syscall_at(thread) {
            Ok(at) => at,
            // Killed in the meantime; its end will be reported.
            Err(Errno::ESRCH) => return Ok(()),
            Err(error) => return Err(Error::new("asking what a traced process calls", error)),
        };
        if self.phase == Phase::Watching {
            let reached = match at {
                At::Entry { number, arguments } => self.entering(thread, number, &arguments),
                At::Exit => self.tracees.get_mut(&thread).is_some_and(|tracee| std::mem::take(&mut tracee.at_point)),
                At::Neither => false,
            };
            if reached {
                match &mut self.goal {
                    Goal::Meddle(meddle) => (meddle.act)(),
                    Goal::Count | Goal::Look(_) | Goal::Kill(_) => return self.strike(thread),
                }
            }
        }
        self.go_on(thread, None)
    }

    /// Counts the call. Whether there is something to do before it.
    fn entering(&mut self, thread: Pid, number: u64, arguments: &[u64; 6]) -> bool {
        let Some(call) = calls::changes_machine(number, arguments) else { return false };
        let Some(tracee) = self.tracees.get_mut(&thread) else { return false };
        let index = self.calls[tracee.process];
        self.calls[tracee.process] += 1;
        self.points.push(SyscallPoint { process: tracee.process, index, call });
        let side = self.goal.side(tracee.process, index, call);
        tracee.at_point = side == Some(When::After);
        side == Some(When::Before)
    }

    /// Kills the victim, while the caller stands at the point.
    fn strike(&mut self, caller: Pid) -> Result<()> {
        let victim = match &self.goal {
            Goal::Kill(Kill { victim: Victim::Caller, .. }) => thread_group(caller).unwrap_or(caller),
            _ => self.engine,
        };
        self.killed = true;
        kill(victim, Signal::SIGKILL).when(|| format!("killing process {victim}"))?;
        if victim == self.engine && caller != self.engine {
            // Its call must come after the engine's death.
            self.phase = Phase::AwaitingDeath { held: caller };
            return Ok(());
        }
        self.release_all()
    }

    /// Continues a stopped thread, or lets it go, as the phase asks.
    fn go_on(&mut self, thread: Pid, signal: Option<Signal>) -> Result<()> {
        match self.phase {
            Phase::AwaitingDeath { held } if held == thread => Ok(()),
            Phase::Releasing => self.release(thread, signal),
            Phase::Watching | Phase::AwaitingDeath { .. } => {
                if let Some(tracee) = self.tracees.get_mut(&thread) {
                    tracee.stopped = false;
                }
                gone_is_fine(ptrace::syscall(thread, signal)).when(|| format!("continuing process {thread}"))
            }
        }
    }

    /// Lets a stopped thread go. The engine, too, when only a process that it made was the victim: then it runs on as it would untraced.
    fn release(&mut self, thread: Pid, signal: Option<Signal>) -> Result<()> {
        match ptrace::detach(thread, signal) {
            Ok(()) => {
                self.tracees.remove(&thread);
                Ok(())
            }
            // Killed a moment ago. Its end is still reported to us, and to its parent only after that.
            Err(Errno::ESRCH) => {
                self.tracees.entry(thread).and_modify(|tracee| tracee.stopped = false);
                Ok(())
            }
            Err(error) => Err(Error::new(format!("letting process {thread} go"), error)),
        }
    }

    /// Lets every thread go: those that stand still now, the others at the stop that they are asked for here.
    fn release_all(&mut self) -> Result<()> {
        self.phase = Phase::Releasing;
        let threads: Vec<(Pid, bool)> = self.tracees.iter().map(|(pid, tracee)| (*pid, tracee.stopped)).collect();
        for (thread, stopped) in threads {
            if stopped {
                self.release(thread, None)?;
            } else {
                gone_is_fine(ptrace::interrupt(thread)).when(|| format!("stopping process {thread}"))?;
            }
        }
        Ok(())
    }
}

/// The process of a thread.
fn thread_group(thread: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}

/// A process that was killed a moment ago cannot be continued or released: that is no error.
fn gone_is_fine(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    }
}
