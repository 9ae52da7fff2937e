//! The live view at a terminal: a line for each step that is going on, below the lines of those that are over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lifecycle_engine::events::{Event, Watch};
use lifecycle_engine::journal::TakenBack;
use lifecycle_engine::program::Program;
use lifecycle_engine::render::paint;
use lifecycle_engine::step::Nature;

use super::span;

/// How often the clocks of what goes on are drawn anew.
const PACE: Duration = Duration::from_millis(500);

/// Draws on stderr. It stops while a process has the terminal, so that neither draws over the other.
pub struct Live {
    screen: MultiProgress,
    running: HashMap<Arc<str>, ProgressBar>,
    lent: Lent,
    quiet: bool,
}

/// Between which steps the terminal is a process's.
#[derive(Default)]
pub struct Lent {
    /// They hand it over: with their begin it is the process's.
    from: Vec<Arc<str>>,
    /// They wait for the end of such a process.
    to: Vec<Arc<str>>,
}

impl Lent {
    /// The steps of a program that hand the terminal over: those that execute a program in a process which inherits it, or carry it there.
    pub fn of(program: &Program) -> Self {
        let inherits = |n: u32| program.nodes[n as usize].effects.iter().any(|e| is_inherited(&e.data));
        let makers: Vec<u32> =
            (0..).zip(&program.nodes).filter(|(n, node)| node.makes_site && inherits(*n)).map(|(n, _)| n).collect();
        let mut lent = Self::default();
        for node in program.nodes.iter().filter(|node| !node.skipped) {
            let hands_over = match node.kind {
                "console.relay" => true,
                "process.exec" => node.site.is_some_and(|site| makers.contains(&site)),
                "fifo.release" => !makers.is_empty(),
                _ => false,
            };
            if hands_over {
                lent.from.push(node.address.clone());
            }
            // A terminal that is carried is the process's as long as that lives.
            let carried = |n: &u32| program.nodes[*n as usize].makes_site;
            if node.nature == Nature::Waits && node.kind == "process.wait" && node.after.iter().any(carried) {
                lent.to.push(node.address.clone());
            }
        }
        lent
    }
}

/// Whether what a step makes has the engine's own stdin, stdout and stderr.
fn is_inherited(data: &serde_json::Value) -> bool {
    match data {
        serde_json::Value::Object(map) => {
            map.get("stdio").is_some_and(|stdio| stdio == "inherit") || map.values().any(is_inherited)
        }
        _ => false,
    }
}

impl Live {
    /// For a program that lends the terminal so.
    pub fn new(lent: Lent) -> Self {
        Self { screen: MultiProgress::new(), running: HashMap::new(), lent, quiet: false }
    }

    fn began(&mut self, step: &Arc<str>) {
        if self.lent.from.contains(step) {
            self.quiet = true;
            self.running.drain().for_each(|(_, bar)| bar.finish_and_clear());
        }
        if !self.quiet {
            let bar = self.screen.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("  {msg} … {elapsed}") {
                bar.set_style(style);
            }
            bar.set_message(paint::line(step));
            bar.tick();
            self.running.insert(step.clone(), bar);
        }
    }

    fn over(&mut self, step: &Arc<str>, mark: &str, rest: &str) {
        if let Some(bar) = self.running.remove(step) {
            bar.finish_and_clear();
        }
        if self.lent.to.contains(step) {
            self.quiet = false;
        }
        if !self.quiet {
            self.say(&format!("{mark} {step}{rest}"));
        }
    }

    /// Nothing is lost to a redraw: finished lines go above the region that is drawn again.
    fn say(&self, line: &str) {
        // A terminal that has gone does not stop a run.
        let _ = self.screen.println(paint::line(line));
    }
}

impl Watch for Live {
    /// The engine has one thread, which may clone at any time: the clocks are drawn by it, not by one of their own.
    fn pace(&self) -> Option<Duration> {
        (!self.running.is_empty()).then_some(PACE)
    }

    fn tick(&mut self) {
        self.running.values().for_each(ProgressBar::tick);
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Began { step, .. } => self.began(step),
            Event::Done { step, from, at, .. } => self.over(step, "✓", &format!("  {}", span(*from, *at))),
            Event::Skipped { step } => self.over(step, "-", "  skipped: its condition is false"),
            Event::Output { step, line } => self.say(&format!("{step} | {line}")),
            Event::Warning { step, text } => self.say(&format!("{step}: warning: {text}")),
            Event::Failed(failure) => {
                self.quiet = false;
                self.over(&failure.step, "✗", &format!("  {}", failure.error));
            }
            Event::Retry { step, left, wait_ms } => {
                self.say(&format!("↻ {step}  again in {wait_ms} ms, {left} more after that"));
            }
            Event::Undoing { step, .. } => {
                self.quiet = false;
                if let Some(bar) = self.running.remove(step) {
                    bar.finish_and_clear();
                }
            }
            Event::Undone { step, from, at, how } => match how {
                TakenBack::Whole => self.over(step, "↶", &format!("  taken back in {}", span(*from, *at))),
                TakenBack::Kept => self.over(step, "•", "  kept on purpose"),
                TakenBack::Nothing | TakenBack::Stuck => {}
            },
            Event::Stuck(stuck) => self.over(&stuck.step, "!", &format!("  stuck: {}", stuck.error)),
            Event::Forgotten { step, effect } => self.over(step, "!", &format!("  given up, and left: {effect}")),
        }
    }
}
