//! Plain lines on stderr: what a CI's log shows.

use std::io::Write;

use lifecycle_engine::events::{Event, Watch};

use super::span;

/// One line an event; steps that end well are told when they took noticeable time or `all` is asked for.
pub struct Lines {
    /// Tell every step.
    pub all: bool,
    /// Show what the steps print.
    pub output: bool,
}

/// A step that takes longer than this, in microseconds, is worth a line of its own.
const NOTICEABLE: u64 = 100_000;

impl Watch for Lines {
    fn event(&mut self, event: &Event) {
        let line = match event {
            Event::Done { step, from, at, .. } if self.all || at.saturating_sub(*from) >= NOTICEABLE => {
                format!("{step}: done in {}", span(*from, *at))
            }
            Event::Output { step, line } if self.output => format!("{step} | {line}"),
            Event::Failed(failure) => format!("{}: failed: {}", failure.step, failure.error),
            Event::Retry { step, left, wait_ms } => {
                format!("{step}: tried again in {wait_ms} ms, {left} more after that")
            }
            Event::Undone { step, from, at } if self.all || at.saturating_sub(*from) >= NOTICEABLE => {
                format!("{step}: taken back in {}", span(*from, *at))
            }
            Event::Stuck(stuck) => format!("{}: stuck: cannot undo `{}`: {}", stuck.step, stuck.effect, stuck.error),
            _ => return,
        };
        // A reader that has gone does not stop a run.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}
