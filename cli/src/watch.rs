//! The views of a run: one stream of events, and whoever wants to see it.

mod lines;
mod live;
mod log;
mod record;

pub use lines::{Lines, NOTICEABLE};
pub use live::{Lent, Live};
pub use log::{LOG, LogFile, LogLine, append};
pub use record::{EventFile, Record};

use std::time::Duration;

use lifecycle_engine::events::{Event, Paused, Watch};

/// Passes events on to several views; the first one also takes care of breakpoints.
#[derive(Default)]
pub struct All<'a>(pub Vec<&'a mut dyn Watch>);

impl Watch for All<'_> {
    fn event(&mut self, event: &Event) {
        self.0.iter_mut().for_each(|view| view.event(event));
    }
    fn pace(&self) -> Option<Duration> {
        self.0.iter().filter_map(|view| view.pace()).min()
    }
    fn tick(&mut self) {
        self.0.iter_mut().for_each(|view| view.tick());
    }
    fn pause(&mut self, paused: &Paused) {
        if let Some(first) = self.0.first_mut() {
            first.pause(paused);
        }
    }
}

/// A span of microseconds as people read it.
pub fn span(from: u64, to: u64) -> String {
    lifecycle_engine::render::paint::span(to.saturating_sub(from))
}
