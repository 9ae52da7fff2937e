//! The live view at a terminal: a line for each step that is going on, below the lines of those that are over.

use std::collections::HashMap;
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lifecycle_engine::events::{Event, Watch};
use lifecycle_engine::render::paint;

use super::span;

/// Draws on stderr. It stops while the main process has the terminal, so that neither draws over the other.
pub struct Live {
    screen: MultiProgress,
    running: HashMap<Arc<str>, ProgressBar>,
    /// The steps that hand the terminal over: those that exec a process which inherits it.
    hands_over: Vec<Arc<str>>,
    quiet: bool,
}

impl Live {
    /// `hands_over`: the steps after which the terminal is the main process's.
    pub fn new(hands_over: Vec<Arc<str>>) -> Self {
        Self { screen: MultiProgress::new(), running: HashMap::new(), hands_over, quiet: false }
    }

    fn began(&mut self, step: &Arc<str>) {
        if self.hands_over.contains(step) {
            self.quiet = true;
            self.running.drain().for_each(|(_, bar)| bar.finish_and_clear());
        }
        if !self.quiet {
            let bar = self.screen.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("  {msg} … {elapsed}") {
                bar.set_style(style);
            }
            bar.set_message(step.to_string());
            bar.tick();
            self.running.insert(step.clone(), bar);
        }
    }

    fn over(&mut self, step: &Arc<str>, mark: &str, rest: &str) {
        if let Some(bar) = self.running.remove(step) {
            bar.finish_and_clear();
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
            Event::Undoing { .. } => {}
            Event::Undone { step, from, at } => {
                self.quiet = false;
                self.over(step, "↶", &format!("  taken back in {}", span(*from, *at)));
            }
            Event::Stuck(stuck) => self.say(&format!("! {}  stuck: {}", stuck.step, stuck.error)),
        }
    }
}
