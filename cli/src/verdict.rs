//! A run's last word: what failed and why, then one line that says how it ended.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::events::Failure as StepFailure;
use lifecycle_engine::program::{NodeId, Program};
use lifecycle_engine::render::paint;
use lifecycle_engine::run::Finished;

use crate::args::Run;
use crate::place;
use crate::print::{self, ENGINE_FAILED};

/// The exit code of a step that failed.
const STEP_FAILED: u8 = 1;

/// How a run has ended.
pub struct Verdict<'a> {
    /// What was run.
    pub program: &'a Program,
    /// Its names.
    pub names: &'a RunNames,
    /// How it ended.
    pub finished: &'a Finished,
    /// How long it took.
    pub took: Duration,
}

impl Verdict<'_> {
    /// Says it, the verdict last.
    pub fn tell(&self, args: &Run) -> ExitCode {
        let Self { finished, names, .. } = self;
        if let Some(failure) = &finished.failure {
            print::failure(&report(failure, finished));
        } else if !finished.stuck.is_empty() {
            print::failure(&place::stuck(&names.id, &finished.stuck).report);
        }
        if finished.kept && !args.detached {
            let id = &names.id;
            let shows = "shows it";
            print::say(&format!(
                "kept as `{id}`: `lifecycle show {id}` {shows}, `lifecycle undo {id}` takes it back\n"
            ));
        }
        let outputs = finished.outputs.as_object().filter(|o| !o.is_empty() && args.events.is_none());
        if let Some(outputs) = outputs.filter(|_| finished.exit.is_none() && finished.failure.is_none()) {
            let shown = outputs.iter().map(|(name, value)| format!("{name} = {value}\n"));
            print::say(&paint::lines(&shown.collect::<String>()));
        }
        let code = self.code();
        print::say(&format!("{}\n", paint::line(&self.line(code))));
        ExitCode::from(code)
    }

    /// The main program's; 1 for a step that failed, 125 where the engine itself did or could not take back what it made, 128 + n for a signal.
    fn code(&self) -> u8 {
        let finished = self.finished;
        if let Some(failure) = &finished.failure {
            let Some(n) = self.program.node(&failure.step) else { return ENGINE_FAILED };
            return failure.error.exit.filter(|_| decides(self.program, n)).map_or(STEP_FAILED, |code| code as u8);
        }
        if !finished.stuck.is_empty() {
            return ENGINE_FAILED;
        }
        match finished.cancelled {
            Some(signal) => (128 + signal) as u8,
            None => finished.exit.unwrap_or(0) as u8,
        }
    }

    /// `web (web-1): failed, exit code 3, after 1.2 s`
    fn line(&self, code: u8) -> String {
        let (finished, plan, id) = (self.finished, &self.program.plan, &self.names.id);
        let how = match (&finished.failure, finished.cancelled) {
            (Some(failure), _) if failure.step.is_empty() => "the engine failed".to_owned(),
            (Some(failure), _) => format!("failed in `{}`", failure.step),
            (None, Some(signal)) => format!("cancelled by signal {signal}"),
            (None, None) if !finished.stuck.is_empty() => "done, and not taken back whole".to_owned(),
            (None, None) => "succeeded".to_owned(),
        };
        let took = paint::span(u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX));
        let mut line = format!("{plan} ({id}): {how}, exit code {code}, after {took}");
        if !finished.stuck.is_empty() {
            let mut steps: Vec<&str> = finished.stuck.iter().map(|stuck| &*stuck.step).collect();
            steps.dedup();
            let _ = write!(line, "; not taken back: {}", steps.join(", "));
        } else if finished.kept && !self.program.opens {
            line.push_str("; kept");
        } else if finished.failure.is_some() || finished.cancelled.is_some() {
            let _ = write!(line, "; {}", taken_back(finished));
        }
        line
    }
}

/// Whether the failure of a step is the end of a main program: that is waited for, or could not be executed.
fn decides(program: &Program, n: NodeId) -> bool {
    let node = &program.nodes[n as usize];
    let before = |main: &NodeId| {
        let after = &program.nodes[*main as usize].after;
        *main == n || after.contains(&n) || node.site.is_some_and(|site| after.contains(&site))
    };
    program.main.iter().any(before)
}

/// What has become of what the plan did, where nothing is stuck.
fn taken_back(finished: &Finished) -> &'static str {
    if finished.committed { "all but what is one-way was taken back" } else { "everything was taken back" }
}

/// A failure names the file and line, the step, the effect, the cause, what to do, and what became of the rest.
fn report(failure: &StepFailure, finished: &Finished) -> miette::Report {
    let at = if failure.origin.is_empty() { String::new() } else { format!("{}: ", failure.origin) };
    let mut text = match &*failure.step {
        "" => "the engine failed".to_owned(),
        step => format!("{at}step `{step}` ({}) failed", failure.kind),
    };
    if !failure.effect.is_empty() {
        let _ = write!(text, "\n  doing  {}", failure.effect.replace('\n', "\n         "));
    }
    let _ = write!(text, "\n  cause  {}", failure.error);
    for line in &failure.error.output {
        let _ = write!(text, "\n       | {line}");
    }
    if finished.stuck.is_empty() {
        let _ = write!(text, "\n  state  {}", if finished.kept { "kept" } else { taken_back(finished) });
    }
    for stuck in &finished.stuck {
        let _ = write!(text, "\n  stuck  {}: {}: {}", stuck.step, stuck.effect, stuck.error);
    }
    let text = paint::lines(&text);
    match &failure.error.help {
        Some(help) => miette::miette!(help = paint::lines(help), "{text}"),
        None => miette::miette!("{text}"),
    }
}
