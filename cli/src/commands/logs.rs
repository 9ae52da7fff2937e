//! `lifecycle logs`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::ExitCode;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::journal::{self, OwnDir};
use lifecycle_engine::render::paint;
use lifecycle_engine::run::RunError;

use crate::args::{Global, Logs};
use crate::detach::{OUTPUT, PROBLEMS};
use crate::follow::Follow;
use crate::place;
use crate::print::{self, Failure, failed};
use crate::watch::{LOG, LogLine};

/// Executes the command.
pub fn run(global: &Global, args: &Logs) -> Result<ExitCode, Failure> {
    let names = place::run(global, &args.run)?;
    let state = journal::read(&names).map_err(RunError::from)?;
    if let Some(step) = &args.step
        && !state.begun().any(|(_, n)| &*n.step == step.as_str())
    {
        let known: Vec<&str> = state.begun().map(|(_, n)| &*n.step).collect();
        return Err(print::refused(
            format!("run `{}` has no step `{step}`", args.run),
            format!("its steps are {}", known.join(", ")),
        ));
    }
    let writers = state.begun().filter(|(_, n)| args.step.as_deref().is_none_or(|step| *n.step == *step));
    let mut logs = Sources::open(&names, writers.map(|(_, n)| n.step.to_string()).collect())?;
    // Watched before it is read: what comes in between is seen by one of the two.
    let follow = args.follow.then(|| Follow::new(&names)).transpose()?;
    logs.print(args)?;
    if let Some(mut follow) = follow {
        while follow.wait(None)? {
            logs.print(args)?;
        }
        logs.print(args)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The lines that the steps printed, and what a detached engine's main process wrote; apart from them, what the engine itself had to say.
struct Sources {
    dir: OwnDir,
    log: Option<BufReader<File>>,
    partial: String,
    output: Option<File>,
    problems: Option<File>,
    /// The steps that may have a process which outlives its engine, and what that has written since.
    kept: Vec<(String, Option<BufReader<File>>)>,
}

impl Sources {
    fn open(names: &RunNames, writers: Vec<String>) -> Result<Self, Failure> {
        let dir = OwnDir::of(names).map_err(RunError::from)?;
        let kept = writers.into_iter().map(|step| (step, None)).collect();
        Ok(Self { dir, log: None, partial: String::new(), output: None, problems: None, kept })
    }

    fn find(&self, name: &str) -> Result<Option<File>, Failure> {
        Ok(self.dir.find(name).map_err(RunError::from)?)
    }

    fn print(&mut self, args: &Logs) -> Result<(), Failure> {
        // They appear with their first line; once open they can be read to the end even when the run is gone.
        if self.log.is_none() {
            self.log = self.find(LOG)?.map(BufReader::new);
        }
        if self.output.is_none() && args.step.is_none() {
            self.output = self.find(OUTPUT)?;
        }
        if self.problems.is_none() {
            self.problems = self.find(PROBLEMS)?;
        }
        let (mut text, mut problems) = (Vec::new(), Vec::new());
        if let Some(log) = &mut self.log {
            while log.read_line(&mut self.partial).map_err(|e| failed("cannot read the log", &e))? > 0
                && self.partial.ends_with('\n')
            {
                let line: LogLine = serde_json::from_str(&self.partial)
                    .map_err(|e| failed("the log holds a line that is not ours", &e))?;
                self.partial.clear();
                let (step, said) = (paint::line(&line.step), paint::line(&line.line));
                match &args.step {
                    Some(wanted) if *wanted != line.step => {}
                    // The engine's own words go where no step can put its own.
                    _ if line.warning => problems.extend(format!("{step}: warning: {said}\n").bytes()),
                    None => text.extend(format!("{step} | {said}\n").bytes()),
                    Some(_) => text.extend(format!("{said}\n").bytes()),
                }
            }
        }
        self.print_kept(args, &mut text)?;
        if let Some(output) = &mut self.output {
            output.read_to_end(&mut text).map_err(|e| failed("cannot read the output", &e))?;
        }
        if let Some(file) = &mut self.problems {
            file.read_to_end(&mut problems).map_err(|e| failed("cannot read what the engine said", &e))?;
        }
        // Nobody is left to tell where stderr cannot be written to.
        let _ = std::io::stderr().write_all(&problems);
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(&text).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(failed("cannot write to stdout", &e)),
            _ => Ok(()),
        }
    }

    /// What processes have written that outlive their engine, by step.
    fn print_kept(&mut self, args: &Logs, text: &mut Vec<u8>) -> Result<(), Failure> {
        for n in 0..self.kept.len() {
            if self.kept[n].1.is_none() {
                self.kept[n].1 = self.find(&RunNames::output_of(&self.kept[n].0))?.map(BufReader::new);
            }
            let (step, file) = &mut self.kept[n];
            let Some(file) = file else { continue };
            let mut line = Vec::new();
            while file.read_until(b'\n', &mut line).map_err(|e| failed("cannot read the output", &e))? > 0 {
                let said = paint::line(String::from_utf8_lossy(&line).trim_end_matches('\n'));
                match args.step {
                    Some(_) => text.extend(format!("{said}\n").bytes()),
                    None => text.extend(format!("{} | {said}\n", paint::line(step)).bytes()),
                }
                line.clear();
            }
        }
        Ok(())
    }
}
