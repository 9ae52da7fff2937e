//! Freezes the processes of a cgroup, and lets them go on.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use rustix::fs::CWD;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::members::{drain, processes, watch};
use super::{Cgroup, Version, open_directory, read, refused, write};
use crate::process::holding::{cure, listed};

/// How long the kernel may take. A process in uninterruptible sleep (a dead network file system) never freezes on version 1.
const PATIENCE: Duration = Duration::from_secs(10);

/// Version 1 tells nobody when it has frozen: how long to wait before it is asked again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// After so many answers of FREEZING, version 1 is thawed for a moment: two processes that wait for each other freeze at the next try.
const TRIES: u32 = 50;

/// Freezes or thaws a cgroup with all that is below it, and waits until it is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeCgroup {
    /// The cgroup's directory: that of the controller `freezer`, or of version 2.
    pub at: PathBuf,
    /// The hierarchy's version. Version 2 freezes since Linux 5.2.
    pub version: Version,
    /// Frozen, or thawed.
    pub frozen: bool,
}

/// How it was before.
#[derive(Serialize, Deserialize)]
struct Before {
    /// Which cgroup: what has taken its path since is not ours to change.
    cgroup: Cgroup,
    frozen: bool,
}

impl FreezeCgroup {
    fn file(&self) -> &'static str {
        match self.version {
            Version::V1 => "freezer.state",
            Version::V2 => "cgroup.freeze",
        }
    }

    fn word(&self, frozen: bool) -> &'static str {
        match (self.version, frozen) {
            (Version::V1, true) => "FROZEN",
            (Version::V1, false) => "THAWED",
            (Version::V2, true) => "1",
            (Version::V2, false) => "0",
        }
    }

    fn refused(&self, frozen: bool, errno: Errno) -> EffectError {
        refused(&self.at, self.file(), self.word(frozen), errno)
    }

    /// What was asked of this cgroup itself, whatever its parents are.
    fn asked(&self, directory: &OwnedFd) -> Result<bool, EffectError> {
        let (file, on) = match self.version {
            Version::V1 => ("freezer.self_freezing", "1"),
            Version::V2 => ("cgroup.freeze", "1"),
        };
        let text = read(directory, file)
            .map_err(|e| EffectError::call(format!("read {}", self.at.join(file).display()), e))
            .map_err(|e| e.help("the kernel cannot freeze this cgroup: version 2 needs Linux 5.2"))?;
        Ok(text.trim() == on)
    }

    /// Whether it is so by now. A parent that was frozen keeps its children frozen.
    fn is(&self, directory: &OwnedFd, frozen: bool) -> Result<bool, EffectError> {
        let (file, line) = match (self.version, frozen) {
            (Version::V1, true) => ("freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED"),
            (Version::V2, true) => ("cgroup.events", "frozen 1"),
            (Version::V2, false) => ("cgroup.events", "frozen 0"),
        };
        let text = read(directory, file)
            .map_err(|e| EffectError::call(format!("read {}", self.at.join(file).display()), e))?;
        Ok(text.lines().any(|there| there == line))
    }

    /// Asks for it, and waits if it is not so at once.
    fn ask(&self, directory: OwnedFd, frozen: bool) -> Result<Option<Settling>, EffectError> {
        let events = (self.version == Version::V2).then(|| watch(&self.at)).flatten();
        write(&directory, self.file(), self.word(frozen)).map_err(|errno| self.refused(frozen, errno))?;
        if self.is(&directory, frozen)? {
            return Ok(None);
        }
        let now = Instant::now();
        let (until, next) = (now + PATIENCE, now + FIRST_PAUSE);
        let effect = self.clone();
        Ok(Some(Settling { effect, frozen, directory, events, until, next, pause: FIRST_PAUSE, tries: 0 }))
    }
}

impl EffectDef for FreezeCgroup {
    const KIND: &'static str = "cgroup.freeze";

    fn examples(scratch: &Path) -> Vec<Self> {
        let (at, version) = super::example_of("freezer", scratch);
        vec![Self { at: at.clone(), version, frozen: true }, Self { at, version, frozen: false }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let verb = if self.frozen { "freeze" } else { "thaw" };
        format!("{verb} the cgroup: write {} to {}", self.word(self.frozen), self.at.join(self.file()).display())
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        let failed = |errno| EffectError::call(format!("open {}", self.at.display()), errno);
        let directory = open_directory(CWD, &self.at).map_err(failed)?;
        let cgroup = Cgroup::of(&directory, false).map_err(failed)?;
        Ok(json!(Before { cgroup, frozen: self.asked(&directory)? }))
    }

    fn apply(&self, _before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        let failed = |errno| EffectError::call(format!("open {}", self.at.display()), errno);
        let directory = open_directory(CWD, &self.at).map_err(failed)?;
        if self.frozen {
            let members = processes(&directory)
                .map_err(|e| EffectError::call(format!("list the processes of {}", self.at.display()), e))?;
            if members.contains(&rustix::process::getpid().as_raw_nonzero().get()) {
                return Err(EffectError::new(format!("this program is in the cgroup {} itself", self.at.display()))
                    .help("whoever freezes himself never thaws: call it from outside the container"));
            }
        }
        Ok(match self.ask(directory, self.frozen)? {
            None => Applied::done(),
            Some(settling) => Applied::Pending(Box::new(settling)),
        })
    }

    /// Puts it back as it was. An empty cgroup is not frozen again: its container has ended, and it is about to be removed.
    fn undo(&self, record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        let Ok(before) = Before::deserialize(&record.before) else { return Ok(Undone::Done) };
        let opened = before.cgroup.open(&self.at);
        let Some(directory) =
            opened.map_err(|errno| EffectError::call(format!("open {}", self.at.display()), errno))?
        else {
            return Ok(Undone::Done);
        };
        let empty = processes(&directory).is_ok_and(|members| members.is_empty());
        if before.frozen == self.asked(&directory)? || (before.frozen && empty) {
            return Ok(Undone::Done);
        }
        Ok(match self.ask(directory, before.frozen)? {
            None => Undone::Done,
            Some(settling) => Undone::Pending(Box::new(settling)),
        })
    }
}

/// A cgroup that is on its way to be frozen or thawed.
struct Settling {
    effect: FreezeCgroup,
    frozen: bool,
    directory: OwnedFd,
    /// Readable when `cgroup.events` changes (version 2).
    events: Option<OwnedFd>,
    until: Instant,
    next: Instant,
    pause: Duration,
    tries: u32,
}

impl Settling {
    fn late(&self) -> EffectError {
        let at = self.effect.at.display();
        if !self.frozen {
            let left = processes(&self.directory).unwrap_or_default();
            let help = left.first().map_or_else(|| "a parent of it is frozen; thaw that".to_owned(), |pid| cure(*pid));
            let what = format!("the cgroup {at} is thawed, and its processes still stand still: {}", listed(&left));
            return EffectError::new(what).help(help);
        }
        EffectError::new(format!("the cgroup {at} is not frozen after {} s", PATIENCE.as_secs()))
            .help("one of its processes is in uninterruptible sleep; try again when what it waits for has come")
    }

    /// Version 1 counts anew only when it is asked; what hangs in a wait for another of the same cgroup gets a moment to come out of it.
    fn ask_again(&mut self) -> Result<(), EffectError> {
        if !self.frozen || self.effect.version == Version::V2 {
            return Ok(());
        }
        self.tries += 1;
        let words = if self.tries.is_multiple_of(TRIES) { &[false, true][..] } else { &[true][..] };
        words.iter().try_for_each(|&frozen| {
            let word = self.effect.word(frozen);
            write(&self.directory, self.effect.file(), word).map_err(|errno| self.effect.refused(frozen, errno))
        })
    }
}

impl Pending for Settling {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.extend(self.events.iter().map(|fd| Interest::read(fd.as_raw_fd())));
    }

    /// Version 2 tells by its events.
    fn deadline(&self) -> Option<Instant> {
        Some(if self.events.is_some() { self.until } else { self.next.min(self.until) })
    }

    fn advance(&mut self, _cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        drain(self.events.as_ref());
        if self.effect.is(&self.directory, self.frozen)? {
            return Ok(Some(Value::Null));
        }
        let now = Instant::now();
        if now >= self.until {
            return Err(self.late());
        }
        if now >= self.next {
            self.ask_again()?;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            self.next = now + self.pause;
        }
        Ok(None)
    }

    fn cancel(&mut self, _cx: &mut Cx) {}
}
