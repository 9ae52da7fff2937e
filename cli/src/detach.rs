//! `run --detach`: the engine goes on in a session of its own, with its output in the run's directory.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::events::{Event, Watch};

use lifecycle_steps::spawn::{Keeper, keep_output};

use crate::print::{self, Failure, failed};
use crate::watch::append;

/// What the processes write that inherit a detached engine's output, in the run's directory.
pub const OUTPUT: &str = "output";
/// What a detached engine itself has to say: what went wrong.
pub const PROBLEMS: &str = "problems";

/// Starts the engine in the background and prints the run's id once the run exists.
pub fn launch() -> Result<ExitCode, Failure> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    // The flag belongs to the command, so it comes right after it: behind a `--` everything is the container's.
    let flag = crate::args::command(args.iter().cloned()).map_or(0, |(before, _)| before + 1);
    let (command, rest) = args.split_at(flag);
    let mut engine = Command::new("/proc/self/exe");
    engine.args(command).arg("--detached").args(rest);
    let mut engine = engine
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed("cannot start the engine in the background", &e))?;
    let mut id = String::new();
    if let Some(stdout) = engine.stdout.take() {
        BufReader::new(stdout).read_line(&mut id).map_err(|e| failed("cannot hear from the engine", &e))?;
    }
    if !id.is_empty() {
        return print::text(&id);
    }
    // It has said on stderr why there is no run.
    let status = engine.wait().map_err(|e| failed("cannot wait for the engine", &e))?;
    Ok(ExitCode::from(status.code().map_or(print::ENGINE_FAILED, |code| code as u8)))
}

/// A view that moves the engine's output into the run's directory as soon as that exists, and tells the process that waits for it.
pub struct Move {
    names: RunNames,
    moved: bool,
    keeper: Option<Keeper>,
}

/// How long the engine waits at its end until what was printed is kept. Who follows the run reads until the engine ends.
const KEPT: Duration = Duration::from_secs(2);

impl Move {
    /// For the engine of this run; makes it the leader of a session of its own.
    pub fn new(names: RunNames) -> Self {
        // Fails only for a group's leader, which a process that was just spawned is not.
        let _ = rustix::process::setsid();
        Self { names, moved: false, keeper: None }
    }

    /// Gives the output away, and waits until it is kept.
    pub fn end(self) {
        let Some(keeper) = self.keeper else { return };
        let null = std::fs::OpenOptions::new().write(true).open("/dev/null");
        let closed = null.and_then(|null| {
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&null)?;
            Ok(())
        });
        if closed.is_ok() {
            keeper.wait(KEPT);
        }
    }
}

impl Watch for Move {
    fn event(&mut self, _: &Event) {
        if std::mem::replace(&mut self.moved, true) {
            return;
        }
        // The launcher reads the id; if it has gone nobody waits.
        let _ = print::text(&format!("{}\n", self.names.id));
        let moved = append(&self.names, OUTPUT).and_then(|output| {
            let problems = append(&self.names, PROBLEMS)?;
            // Not the file itself: a container that inherits it could change it, and fill it without end.
            let (output, keeper) = keep_output(output).map_err(std::io::Error::other)?;
            self.keeper = Some(keeper);
            rustix::stdio::dup2_stdout(&output)?;
            rustix::stdio::dup2_stderr(&output)?;
            print::speak_into(problems);
            Ok(())
        });
        if let Err(e) = moved {
            print::say(&format!("cannot write to {}: {e}\n", self.names.dir().display()));
        }
    }
}
