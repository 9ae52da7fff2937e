//! The law, over any pair of commands of which one changes the machine and the other takes the change back.
//!
//! Apply then undo leaves the machine as it was; so does undo twice; so does SIGKILL before and after each system call that can change the
//! machine, of every process of ours, in apply and in undo, then undo again.

use std::fmt;
use std::process::Command;

use crate::killer::{Ending, Outcome, SyscallPoint, Victim, When, count, run_killed_at};
use crate::lab::Lab;
use crate::machine::{Change, Snapshot};
use crate::{Error, PATIENCE, Result};

/// What the law is held against.
pub struct Case<'a> {
    /// The machine that it has for itself.
    pub lab: &'a Lab,
    /// Makes the change.
    pub apply: &'a dyn Fn() -> Command,
    /// Takes it back, whatever there is of it. After a kill, this is the recovery.
    pub undo: &'a dyn Fn() -> Command,
    /// Puts away what one round leaves of its own doing, such as its journal.
    pub reset: &'a dyn Fn() -> Result<()>,
    /// A difference that is left on purpose.
    pub kept: &'a dyn Fn(&Change) -> bool,
    /// How many kills to try in apply, and how many in undo.
    pub sample: Sample,
}

/// How many of the places to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// All of them.
    Full,
    /// At most so many, spread evenly.
    AtMost(usize),
}

impl Sample {
    /// All if `LIFECYCLE_LAW=full`, at most as many as it says if it is a number, otherwise at most `number`.
    pub fn from_environment(number: usize) -> Self {
        match std::env::var("LIFECYCLE_LAW") {
            Ok(value) if value == "full" => Self::Full,
            Ok(value) => Self::AtMost(value.parse().unwrap_or(number)),
            Err(_) => Self::AtMost(number),
        }
    }

    /// The chosen ones of `all`, in order, the first and the last among them.
    pub fn choose<T>(self, all: Vec<T>) -> Vec<T> {
        let total = all.len();
        match self {
            Self::AtMost(number) if number < total => {
                let last = number.max(2) - 1;
                let mut wanted = (0..=last).map(|k| k * (total - 1) / last).peekable();
                let picked = all.into_iter().enumerate().filter(|(index, _)| wanted.next_if_eq(index).is_some());
                picked.map(|(_, item)| item).collect()
            }
            _ => all,
        }
    }
}

/// One place at which to kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The call.
    pub point: SyscallPoint,
    /// Who is killed there.
    pub victim: Victim,
    /// On which side of it.
    pub when: When,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} killed {} {}", self.victim, self.when, self.point)
    }
}

/// What was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tried {
    /// Kills that struck.
    pub killed: usize,
    /// Kills whose place was not reached that time, so that the command ran to its end.
    pub missed: usize,
    /// All places that there are.
    pub places: usize,
}

impl Tried {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            killed: self.killed + other.killed,
            missed: self.missed + other.missed,
            places: self.places + other.places,
        }
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kills of {} possible", self.killed, self.places)?;
        if self.missed > 0 { write!(f, ", {} places not reached again", self.missed) } else { Ok(()) }
    }
}

/// A command that was not killed must succeed.
fn done(what: &str, outcome: Outcome) -> Result<Outcome> {
    match outcome.ending {
        Ending::Exited(0) => Ok(outcome),
        other => Err(Error::new(what, format!("ended with {other:?}\n{}{}", outcome.stdout, outcome.stderr))),
    }
}

/// Every place: the engine at each call of anybody, and any other process at its own calls.
pub fn places(points: Vec<SyscallPoint>) -> Vec<Kill> {
    let mut kills = Vec::new();
    for point in points {
        let victims: &[Victim] = if point.process == 0 { &[Victim::Engine] } else { &[Victim::Engine, Victim::Caller] };
        for victim in victims {
            for when in [When::Before, When::After] {
                kills.push(Kill { point: point.clone(), victim: *victim, when });
            }
        }
    }
    kills
}

impl Case<'_> {
    /// Holds the law against the case.
    pub fn hold(&self) -> Result<Tried> {
        let before = self.lab.snapshot()?;
        done("apply", count(&mut (self.apply)())?)?;
        done("undo", count(&mut (self.undo)())?)?;
        done("the second undo", count(&mut (self.undo)())?)?;
        self.as_before(&before, "after apply, undo and undo once more")?;
        Ok(self.killed_in_apply(&before)?.and(self.killed_in_undo(&before)?))
    }

    fn killed_in_apply(&self, before: &Snapshot) -> Result<Tried> {
        let applied = done("apply", count(&mut (self.apply)())?)?;
        done("undo", count(&mut (self.undo)())?)?;
        self.as_before(before, "after apply and undo")?;
        self.each(places(applied.points), |kill| {
            let outcome = run_killed_at(&mut (self.apply)(), &kill.point, kill.victim, kill.when)?;
            done("undo", count(&mut (self.undo)())?)?;
            self.as_before(before, &format!("after apply with {kill}, and undo"))?;
            Ok(outcome.killed)
        })
    }

    fn killed_in_undo(&self, before: &Snapshot) -> Result<Tried> {
        done("apply", count(&mut (self.apply)())?)?;
        let undone = done("undo", count(&mut (self.undo)())?)?;
        self.as_before(before, "after apply and undo")?;
        self.each(places(undone.points), |kill| {
            done("apply", count(&mut (self.apply)())?)?;
            let outcome = run_killed_at(&mut (self.undo)(), &kill.point, kill.victim, kill.when)?;
            done("undo", count(&mut (self.undo)())?)?;
            self.as_before(before, &format!("after apply, undo with {kill}, and undo"))?;
            Ok(outcome.killed)
        })
    }

    fn each(&self, all: Vec<Kill>, mut round: impl FnMut(&Kill) -> Result<bool>) -> Result<Tried> {
        let mut tried = Tried { places: all.len(), ..Tried::default() };
        for kill in self.sample.choose(all) {
            let struck = round(&kill).map_err(|error| Error::new(format!("with {kill}"), error))?;
            if struck {
                tried.killed += 1;
            } else {
                tried.missed += 1;
            }
        }
        Ok(tried)
    }

    fn as_before(&self, before: &Snapshot, when: &str) -> Result<()> {
        (self.reset)()?;
        let difference = before.returns_within(&self.lab.scope(), PATIENCE, self.kept)?;
        if difference.is_empty() { Ok(()) } else { Err(Error::new(format!("{when} there is residue"), difference)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_from_the_first_to_the_last() {
        let all: Vec<usize> = (0..100).collect();
        assert_eq!(Sample::AtMost(4).choose(all.clone()), [0, 33, 66, 99]);
        assert_eq!(Sample::AtMost(200).choose(all.clone()).len(), 100);
        assert_eq!(Sample::Full.choose(all).len(), 100);
    }

    #[test]
    fn the_engine_is_killed_once_at_its_own_calls() {
        let engine = SyscallPoint { process: 0, index: 0, call: "mkdirat" };
        let init = SyscallPoint { process: 1, index: 0, call: "mount" };
        assert_eq!(places(vec![engine]).len(), 2);
        assert_eq!(places(vec![init]).len(), 4);
    }
}
