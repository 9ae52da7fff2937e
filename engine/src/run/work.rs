use std::os::fd::RawFd;
use std::time::Instant;

use crate::effect::{Interest, Pending};
use crate::error::EffectError;
use crate::site::wait;

/// An effect, or its undo, that is being waited for.
pub(super) struct Waiting {
    pub n: u32,
    pub e: u32,
    pub pending: Box<dyn Pending>,
    /// When it is given up.
    pub limit: Option<Instant>,
}

impl Waiting {
    pub fn new(n: u32, e: u32, pending: Box<dyn Pending>, limit: Option<Instant>) -> Self {
        Self { n, e, pending, limit }
    }

    pub fn is_late(&self) -> bool {
        self.limit.is_some_and(|limit| Instant::now() >= limit)
    }

    fn deadline(&self) -> Option<Instant> {
        earliest(self.pending.deadline(), self.limit)
    }

    fn is_due(&self) -> bool {
        self.deadline().is_some_and(|deadline| Instant::now() >= deadline)
    }
}

pub(super) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// What a poll woke.
pub(super) struct Ready {
    /// Indexes into the work, ascending.
    pub woken: Vec<usize>,
    /// By index into the extra descriptors.
    pub extra: Vec<bool>,
}

/// Polls for whatever comes first: some work, one of the extra descriptors, or the deadline.
pub(super) fn wait_any<'w>(
    work: impl Iterator<Item = &'w Waiting> + Clone,
    extra: &[RawFd],
    deadline: Option<Instant>,
) -> Result<Ready, EffectError> {
    let mut wants: Vec<Interest> = extra.iter().copied().map(Interest::read).collect();
    let mut ranges = Vec::new();
    for waiting in work.clone() {
        let from = wants.len();
        waiting.pending.interest(&mut wants);
        ranges.push(from..wants.len());
    }
    let deadline = work.clone().map(Waiting::deadline).fold(deadline, earliest);
    let ready = wait(&wants, deadline)?;
    let woken =
        (0..).zip(ranges).zip(work).filter(|((_, range), w)| ready[range.clone()].contains(&true) || w.is_due());
    Ok(Ready { woken: woken.map(|((i, _), _)| i).collect(), extra: ready[..extra.len()].to_vec() })
}
