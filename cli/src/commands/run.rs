//! `lifecycle run`.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use lifecycle_cli::mask::{self, Callers};
use lifecycle_cli::signals;
use lifecycle_engine::effect::RunNames;
use lifecycle_engine::events::{Failure as StepFailure, Watch};
use lifecycle_engine::journal::Identity;
use lifecycle_engine::program::{NodeId, Program};
use lifecycle_engine::render::paint;
use lifecycle_engine::run::{Finished, RunOptions, run as run_program};
use lifecycle_steps::process::sealed;
use lifecycle_steps::spawn::identity;
use lifecycle_steps::sys::limits;

use crate::args::{Global, Run};
use crate::detach::{self, Move};
use crate::load::{self, Wanted};
use crate::pause::{self, Pause};
use crate::place;
use crate::print::{self, Failure, failed, refused};
use crate::watch::{All, EventFile, Lines, Live, LogFile, NOTICEABLE, Record};

/// Executes the command.
pub fn run(global: &Global, args: &Run) -> Result<ExitCode, Failure> {
    // Before anything else: from here on no container can reach the file that this program was started from.
    sealed::run_from_sealed().map_err(|e| failed("cannot run a container safely", &e))?;
    let registry = lifecycle_steps::registry();
    let wanted =
        Wanted { source: &args.plan, params: &args.params, command: &args.command, mask: &args.mask, facts: None };
    let program = load::program(global, &registry, &wanted)?;
    let fault = args.fail_at.as_ref().map(|f| step(&program, &f.step).map(|n| (n, f.inject))).transpose()?;
    let breakpoint = args.pause_at.as_ref().map(|address| step(&program, address)).transpose()?;
    if args.detach && !args.detached {
        return detach::launch();
    }
    let callers = mask::own();
    let cancel = signals::cancel().map_err(|e| failed("cannot take signals", &e))?;
    let options = RunOptions {
        engine: myself()?,
        keep: args.keep,
        only_nested: false,
        fail_at: fault,
        pause_at: breakpoint,
        cancel: Some(pause::raw(&cancel)),
        jobs: Some(jobs(args)?),
    };
    let program = Rc::new(program);
    let names = names(&program)?;
    let mut views = Views::open(args, &program, &names, callers)?;
    let mut pause = Pause { cancel: cancel.as_fd(), id: names.id.clone() };
    let finished = run_program(program.clone(), &registry, options, &mut views.all(&mut pause))?;
    views.close(args, &program)?;
    tell(args, &names, &finished)
}

/// The most descriptors that a step at work needs in the engine: of a command its pidfd, the ends of its pipes and of its gate.
const FILES_OF_A_STEP: u64 = 8;
/// What the engine needs besides.
const FILES_OF_THE_ENGINE: u64 = 128;

/// How many steps may be at work at once.
fn jobs(args: &Run) -> Result<NonZeroUsize, Failure> {
    let files = limits::raise_open_files().map_err(|e| failed("cannot raise the limit of open files", &e))?;
    let fit = files.saturating_sub(FILES_OF_THE_ENGINE) / FILES_OF_A_STEP;
    Ok(args.jobs.or_else(|| NonZeroUsize::new(fit as usize)).unwrap_or(NonZeroUsize::MIN))
}

fn names(program: &Program) -> Result<RunNames, Failure> {
    program.runs.first().cloned().ok_or_else(|| refused("the plan has no run", "give it an id"))
}

fn myself() -> Result<Identity, Failure> {
    let own = identity::identify(rustix::process::getpid()).map_err(|e| failed("cannot read /proc/self/stat", &e))?;
    Ok(Identity { pid: own.pid, start: own.start, boot: own.boot })
}

fn step(program: &Program, address: &str) -> Result<NodeId, Failure> {
    let found = program.node(address);
    // Another run does what is armed, unless this one goes on to release it.
    let armed = found.is_some_and(|n| program.nodes[n as usize].armed);
    if armed && !program.nodes.iter().any(|node| node.kind == "fifo.release") {
        let help = "name it in a plan that starts the container too, such as oci/run";
        return Err(refused(format!("step `{address}` happens when the container is started, not in this run"), help));
    }
    found.ok_or_else(|| {
        let known: Vec<&str> = program.nodes.iter().map(|n| &*n.address).collect();
        let near = lifecycle_engine::diag::did_you_mean(address, known.iter().copied());
        let help = near
            .map_or_else(|| format!("its steps are {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
        refused(format!("plan {} has no step `{address}`", program.plan), help)
    })
}

/// Everything that watches the run.
struct Views {
    moved: Option<Move>,
    shown: Box<dyn Watch>,
    log: LogFile,
    events: Option<EventFile>,
    record: Option<Record>,
    callers: Callers,
}

impl Views {
    fn open(args: &Run, program: &Program, names: &RunNames, callers: Callers) -> Result<Self, Failure> {
        let events = args.events.as_deref().map(|path| callers.make(|| EventFile::open(path))).transpose()?;
        let live = std::io::stderr().is_terminal() && !args.detached;
        let shown: Box<dyn Watch> = if live {
            Box::new(Live::new(hand_over(program)))
        } else {
            // What a detached run's steps print is in its log; that they went well is what `show` tells.
            Box::new(Lines { slow: if args.detached { u64::MAX } else { NOTICEABLE }, output: !args.detached })
        };
        Ok(Self {
            moved: args.detached.then(|| Move::new(names.clone())),
            shown,
            log: LogFile::new(names.clone()),
            events,
            record: args.trace.is_some().then(Record::default),
            callers,
        })
    }

    /// The breakpoint's view comes first: it is the one that pauses.
    fn all<'a>(&'a mut self, pause: &'a mut Pause) -> All<'a> {
        let mut all: Vec<&mut dyn Watch> = vec![pause];
        all.extend(self.moved.as_mut().map(|m| m as &mut dyn Watch));
        all.push(self.shown.as_mut());
        all.push(&mut self.log);
        all.extend(self.events.as_mut().map(|e| e as &mut dyn Watch));
        all.extend(self.record.as_mut().map(|r| r as &mut dyn Watch));
        All(all)
    }

    fn close(self, args: &Run, program: &Program) -> Result<(), Failure> {
        if let Some(events) = self.events {
            events.finish()?;
        }
        if let (Some(path), Some(record)) = (&args.trace, self.record) {
            let text = lifecycle_engine::render::trace::print(program, &record.0);
            self.callers
                .make(|| std::fs::write(path, text))
                .map_err(|e| failed(format!("cannot write the trace to {}", path.display()), &e))?;
        }
        Ok(())
    }
}

/// The steps after which the terminal belongs to a container's process.
fn hand_over(program: &Program) -> Vec<Arc<str>> {
    let hands_over = |kind: &str| matches!(kind, "process.exec" | "console.relay" | "fifo.release");
    program.nodes.iter().filter(|n| hands_over(n.kind)).map(|n| n.address.clone()).collect()
}

/// The last word, and the exit code: the container's, 125 for a failure of the engine, 128 + n for a signal.
fn tell(args: &Run, names: &RunNames, finished: &Finished) -> Result<ExitCode, Failure> {
    if let Some(failure) = &finished.failure {
        return Err(report(failure, finished));
    }
    if !finished.stuck.is_empty() {
        return Err(Failure { code: print::ENGINE_FAILED, ..place::stuck(&names.id, &finished.stuck) });
    }
    if let Some(signal) = finished.cancelled {
        print::say(&format!("cancelled by signal {signal}; {}\n", taken_back(finished)));
        return Ok(ExitCode::from((128 + signal) as u8));
    }
    if finished.kept && !args.detached {
        let id = &names.id;
        print::say(&format!("kept as `{id}`: `lifecycle show {id}` shows it, `lifecycle undo {id}` takes it back\n"));
    }
    if let Some(outputs) =
        finished.outputs.as_object().filter(|o| !o.is_empty() && args.events.is_none() && finished.exit.is_none())
    {
        let shown = outputs.iter().map(|(name, value)| format!("{name} = {value}\n"));
        print::say(&paint::lines(&shown.collect::<String>()));
    }
    Ok(ExitCode::from(finished.exit.unwrap_or(0) as u8))
}

/// What has become of what the plan did, where nothing is stuck.
fn taken_back(finished: &Finished) -> &'static str {
    if finished.committed { "all but what is one-way was taken back" } else { "everything was taken back" }
}

/// A failure names the file and line, the step, the effect, the cause, what to do, and what became of the rest.
fn report(failure: &StepFailure, finished: &Finished) -> Failure {
    use std::fmt::Write;
    let at = if failure.origin.is_empty() { String::new() } else { format!("{}: ", failure.origin) };
    let mut text = format!("{at}step `{}` ({}) failed", failure.step, failure.kind);
    if !failure.effect.is_empty() {
        let _ = write!(text, "\n  doing  {}", failure.effect.replace('\n', "\n         "));
    }
    let _ = write!(text, "\n  cause  {}", failure.error);
    for line in &failure.error.output {
        let _ = write!(text, "\n       | {line}");
    }
    if finished.stuck.is_empty() {
        let _ = write!(text, "\n  state  {}", taken_back(finished));
    }
    for stuck in &finished.stuck {
        let _ = write!(text, "\n  stuck  {}: {}: {}", stuck.step, stuck.effect, stuck.error);
    }
    let text = paint::lines(&text);
    let report = match &failure.error.help {
        Some(help) => miette::miette!(help = paint::lines(help), "{text}"),
        None => miette::miette!("{text}"),
    };
    Failure { report, code: failure.error.exit.map_or(print::ENGINE_FAILED, |code| code as u8) }
}
