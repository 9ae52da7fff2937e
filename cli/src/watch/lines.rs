//! Plain lines on stderr: what a CI's log shows.

use lifecycle_engine::events::{Event, Watch};
use lifecycle_engine::journal::TakenBack;
use lifecycle_engine::render::paint;

use super::span;
use crate::print;

/// One line an event.
pub struct Lines {
    /// Tell of steps that ended well if they took this long, in microseconds.
    pub slow: u64,
    /// Show what the steps print.
    pub output: bool,
}

/// A step that takes longer than this, in microseconds, is worth a line of its own.
pub const NOTICEABLE: u64 = 100_000;

impl Watch for Lines {
    fn event(&mut self, event: &Event) {
        let line = match event {
            Event::Done { step, from, at, .. } if at.saturating_sub(*from) >= self.slow => {
                format!("{step}: done in {}", span(*from, *at))
            }
            Event::Output { step, line } if self.output => format!("{step} | {line}"),
            Event::Warning { step, text } if self.output => format!("{step}: warning: {text}"),
            Event::Failed(failure) => format!("{}: failed: {}", failure.step, failure.error),
            Event::Retry { step, left, wait_ms } => {
                format!("{step}: tried again in {wait_ms} ms, {left} more after that")
            }
            Event::Undone { step, from, at, how: TakenBack::Whole } if at.saturating_sub(*from) >= self.slow => {
                format!("{step}: taken back in {}", span(*from, *at))
            }
            Event::Undone { step, how: TakenBack::Kept, .. } => format!("{step}: kept on purpose"),
            Event::Forgotten { step, effect } => format!("{step}: given up, and left as it is: {effect}"),
            Event::Stuck(stuck) => format!("{}: stuck: cannot undo `{}`: {}", stuck.step, stuck.effect, stuck.error),
            _ => return,
        };
        print::say(&format!("{}\n", paint::line(&line)));
    }
}
