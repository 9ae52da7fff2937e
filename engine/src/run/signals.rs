//! Signals: they cancel a run, unless they are for the program that it runs.

use std::collections::BTreeSet;
use std::os::fd::RawFd;

use super::execute::{Execution, Progress};
use crate::effect::Class;
use crate::program::{NodeId, Program};

/// The steps that hand signals on to a program.
pub(super) fn heirs(program: &Program) -> Vec<NodeId> {
    let takes = |(_, node): &(NodeId, &crate::program::Node)| node.effects.iter().any(|e| e.effect.takes_signals());
    (0..).zip(&program.nodes).filter(takes).map(|(n, _)| n).collect()
}

impl Execution<'_> {
    /// The descriptor on which a signal cancels the run. None while signals are a program's: they stay where they are until a step takes them.
    pub(super) fn cancelling(&self) -> Option<RawFd> {
        self.options.cancel.filter(|_| !self.heirs.iter().any(|n| self.inherits(*n)))
    }

    /// Whether a signal may be a program's by now, although the run has not heard of that program's beginning yet.
    pub(super) fn may_be_a_programs(&self) -> bool {
        self.heirs.iter().any(|n| self.progress[*n as usize] != Progress::Over)
    }

    /// The step hands signals on, or it will: the program has been started, which nothing takes back.
    fn inherits(&self, n: NodeId) -> bool {
        match self.progress[n as usize] {
            Progress::Running => true,
            Progress::Over => false,
            Progress::Blocked => {
                let node = &self.program.nodes[n as usize];
                !node.skipped && self.all_before(n).iter().any(|before| self.is_committed(*before))
            }
        }
    }

    fn all_before(&self, n: NodeId) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::new();
        let mut left = self.program.nodes[n as usize].after.to_vec();
        while let Some(before) = left.pop() {
            if found.insert(before) {
                left.extend_from_slice(&self.program.nodes[before as usize].after);
            }
        }
        found
    }

    fn is_committed(&self, n: NodeId) -> bool {
        let node = &self.program.nodes[n as usize];
        self.progress[n as usize] == Progress::Over
            && !node.skipped
            && node.when.as_ref().is_none_or(|when| when.holds(&self.outcomes))
            && node.effects.iter().any(|planned| planned.effect.class() == Class::Commit)
    }
}

/// Whether a signal has come.
pub(super) fn is_readable(fd: RawFd) -> bool {
    let fd = crate::sys::borrow(fd);
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&now)) == Ok(1)
}

/// The number of the signal that a signalfd holds: the first field of its record (signalfd(2)).
pub(super) fn signal(fd: RawFd) -> i32 {
    let mut info = [0u8; 128];
    match rustix::io::read(crate::sys::borrow(fd), &mut info) {
        Ok(n) if n >= 4 => i32::from_ne_bytes([info[0], info[1], info[2], info[3]]),
        _ => rustix::process::Signal::TERM.as_raw(),
    }
}
