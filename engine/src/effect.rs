//! Effects: single changes to the machine, as data. The same list is printed by a dry run, journaled, applied and reversed.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::EffectError;
use crate::site::SiteProgram;
use crate::value::{Handle, HandleRef, Outcome, Text, decode, encode, plain, redact};

/// How a change is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Undone by its own inverse.
    Reversible,
    /// Dies with a namespace or process that another effect made.
    Scoped,
    /// Another program sees it; undone by the counterpart that it declares, delivered at least once.
    Foreign,
    /// Left on purpose, as every runtime does.
    Kept,
    /// One-way.
    Commit,
}

/// When an effect's turn comes in taking back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UndoTurn {
    /// When all that followed it has been taken back.
    #[default]
    InOrder,
    /// The same, but others of this turn that stand before it in its step do not wait for it.
    SideBySide,
    /// When nothing else of its run is left, unless it changed what was there before: the run is known by it.
    Last,
}

/// A kind of effect. Its fields are all that `apply` and `undo` may depend on, besides what `before` saw and `apply` answered.
pub trait EffectDef: fmt::Debug + Serialize + DeserializeOwned + 'static {
    /// Its name in journals and JSON, such as `mkdir`. Never reused for something else: old journals stay readable.
    const KIND: &'static str;

    /// When its turn comes in taking back.
    const TURN: UndoTurn = UndoTurn::InOrder;

    /// Instances for the law's harness and the catalogue, below an empty directory that the caller owns. Never empty.
    fn examples(scratch: &Path) -> Vec<Self>;

    /// How it is taken back.
    fn class(&self) -> Class;

    /// One line for a person: what it does, with which values. Handles print as `‹step.field›`, sensitive values as `‹sensitive›`.
    fn describe(&self) -> String;

    /// What is there before; journaled before `apply` and given to it and to `undo`.
    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        Ok(Value::Null)
    }

    /// Makes the change.
    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError>;

    /// Takes it back, as far as the record proves that it is ours. Absence counts as done; an error makes it stuck.
    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError>;

    /// Whether it takes the signals that otherwise cancel the run: they are for a program that a commit before it has started.
    fn takes_signals(&self) -> bool {
        false
    }

    /// Whether its undo needs what the steps before its own have made: those stay while it is stuck, so that it can be tried again.
    fn holds_back(&self) -> bool {
        false
    }

    /// Why a process that it made has ended before its time, where the machine says so.
    fn why_ended(&self) -> Option<EffectError> {
        None
    }
}

/// An effect of any kind.
pub trait Effect: fmt::Debug {
    /// [`EffectDef::KIND`].
    fn kind(&self) -> &'static str;
    /// [`EffectDef::class`].
    fn class(&self) -> Class;
    /// [`EffectDef::describe`].
    fn describe(&self) -> String;
    /// The fields as a value, without sensitive ones. An error: they are no JSON, and nothing could ever take the effect back.
    fn data(&self) -> Result<Value, serde_json::Error>;
    /// [`EffectDef::before`].
    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError>;
    /// [`EffectDef::apply`].
    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError>;
    /// [`EffectDef::undo`].
    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError>;
    /// [`EffectDef::takes_signals`].
    fn takes_signals(&self) -> bool;
    /// [`EffectDef::holds_back`].
    fn holds_back(&self) -> bool;
    /// [`EffectDef::why_ended`].
    fn why_ended(&self) -> Option<EffectError>;
}

impl<T: EffectDef> Effect for T {
    fn kind(&self) -> &'static str {
        T::KIND
    }
    fn class(&self) -> Class {
        EffectDef::class(self)
    }
    fn describe(&self) -> String {
        EffectDef::describe(self)
    }
    fn data(&self) -> Result<Value, serde_json::Error> {
        let mut value = encode(self)?;
        redact(&mut value);
        Ok(value)
    }
    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError> {
        EffectDef::before(self, cx)
    }
    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        EffectDef::apply(self, before, cx)
    }
    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        EffectDef::undo(self, record, cx)
    }
    fn takes_signals(&self) -> bool {
        EffectDef::takes_signals(self)
    }
    fn holds_back(&self) -> bool {
        EffectDef::holds_back(self)
    }
    fn why_ended(&self) -> Option<EffectError> {
        EffectDef::why_ended(self)
    }
}

/// What the journal knows of one effect when it is undone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What [`EffectDef::before`] saw.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub before: Value,
    /// The identity of what a [`Pending`] started, if it got that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Value>,
    /// The outcome, if it is known. Without it the effect may have happened in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Value>,
    /// What an earlier, interrupted undo had started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoing: Option<Value>,
    /// The run has ended well, or was kept: what is taken back is not what failed.
    #[serde(skip)]
    pub ended_well: bool,
}

impl Record {
    /// The outcome, or what was started, decoded.
    pub fn outcome<T: DeserializeOwned>(&self) -> Option<T> {
        let value = self.outcome.as_ref().or(self.started.as_ref())?;
        decode(value.clone()).ok()
    }
}

/// The answer of [`EffectDef::apply`].
pub enum Applied {
    /// It happened; handles to its fields resolve from now on.
    Done(Value),
    /// It waits on something.
    Pending(Box<dyn Pending>),
    /// It made a process that runs a site's program (see [`SiteProgram`]) and answers on the channel. The process is inert until the engine,
    /// having journaled the outcome, sends the first line.
    Site {
        /// The process's identity; handles to its fields resolve from now on.
        outcome: Value,
        /// The engine's end of the socket pair.
        channel: OwnedFd,
        /// The read ends of the pipes that take what the process and what becomes of it print; the engine shows the lines under the step's
        /// name. Empty where its output is the engine's own.
        output: Vec<OwnedFd>,
    },
    /// The run's earlier pieces of work are to be undone now, and the run with them: what a plan that deletes does.
    UndoRun,
}

impl Applied {
    /// It happened and there is nothing to say about it.
    pub fn done() -> Self {
        Self::Done(Value::Null)
    }

    /// It happened, and this is its outcome. An error: that is no JSON.
    pub fn outcome(outcome: &impl Serialize) -> Result<Self, EffectError> {
        encode(outcome)
            .map(Self::Done)
            .map_err(|e| EffectError::new(format!("its outcome cannot be written down: {e}")))
    }
}

/// The answer of [`EffectDef::undo`].
pub enum Undone {
    /// Taken back, or was not there.
    Done,
    /// There is nothing of it to take back, whatever has happened.
    Nothing,
    /// It stays on purpose.
    Kept,
    /// It waits on something.
    Pending(Box<dyn Pending>),
}

/// Something that takes its time, waited for in the engine's one poll loop.
pub trait Pending {
    /// The identity of what was started (a pid, say): journaled before [`Pending::release`].
    fn started(&self) -> Value {
        Value::Null
    }
    /// Lets it go, now that `started` is in the journal. Until then a process it made must be inert and die with the engine.
    fn release(&mut self, _cx: &mut Cx) -> Result<(), EffectError> {
        Ok(())
    }
    /// The descriptors to poll.
    fn interest(&self, wants: &mut Vec<Interest>);
    /// When to call [`Pending::advance`] at the latest.
    fn deadline(&self) -> Option<Instant> {
        None
    }
    /// How long it may take to be undone, where a user has said that: however late it is for the rest.
    fn time(&self) -> Option<Duration> {
        None
    }
    /// What is told when it takes too long: what it waits for, and what to do about that.
    fn late(&self) -> Option<EffectError> {
        None
    }
    /// Whether the run, once its main step is over, ends only after this has: there is something on its way that is for the user.
    fn lingers(&self) -> bool {
        false
    }
    /// Called once after `release`, and then whenever a descriptor is ready or the deadline has come. `Some` ends it.
    fn advance(&mut self, cx: &mut Cx) -> Result<Option<Value>, EffectError>;
    /// Stops it: the outcome is unknown, and the effect is undone as if it had happened. Must not block.
    fn cancel(&mut self, cx: &mut Cx);
}

/// A descriptor to poll, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Open for as long as the [`Pending`] that names it.
    pub fd: RawFd,
    /// Wait until it can be read (or has hung up).
    pub read: bool,
    /// Wait until it can be written.
    pub write: bool,
}

impl Interest {
    /// Wait until it can be read.
    pub fn read(fd: RawFd) -> Self {
        Self { fd, read: true, write: false }
    }
}

/// The run's names, from which every name that we choose derives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunNames {
    /// The state root.
    pub root: PathBuf,
    /// The run's id; a container's run has the container's.
    pub id: String,
}

/// The directory in a run's own that holds the runs beside it.
pub(crate) const BESIDE: &str = "beside";

impl RunNames {
    /// The run's directory.
    pub fn dir(&self) -> PathBuf {
        self.root.join(&self.id)
    }

    /// The names of a run that lies within this one: it works beside it, and goes with it.
    #[must_use]
    pub fn beside(&self, id: String) -> Self {
        Self { root: self.besides(), id }
    }

    /// The directory of the runs beside this one.
    pub fn besides(&self) -> PathBuf {
        self.dir().join(BESIDE)
    }

    /// The run in which this one lies.
    #[must_use]
    pub fn around(&self) -> Option<Self> {
        let around = self.root.file_name().filter(|name| *name == BESIDE).and(self.root.parent())?;
        Some(Self { root: around.parent()?.to_owned(), id: around.file_name()?.to_str()?.to_owned() })
    }

    /// Ten hexadecimal digits that tell this run from all others on the machine: a hash of the state root and the id. Fits into the 15 bytes
    /// of a link's name with a prefix.
    pub fn tag(&self) -> String {
        digits(&[self.root.as_os_str().as_encoded_bytes(), &[0], self.id.as_bytes()])
    }

    /// The file in the run's directory to which a process of that step writes where it outlives the engine: whatever the step is called.
    pub fn output_of(step: &str) -> String {
        format!("output-{}", digits(&[step.as_bytes()]))
    }
}

/// The first ten hexadecimal digits of SHA-256.
fn digits(parts: &[&[u8]]) -> String {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().take(5).fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
}

/// Outcomes by step and effect: what handles resolve to.
#[derive(Clone, Debug, Default)]
pub struct Outcomes(HashMap<(Arc<str>, u32), Value>);

impl Outcomes {
    /// Keeps an outcome; null ones have no fields and are not kept.
    pub fn put(&mut self, step: &Arc<str>, effect: u32, outcome: Value) {
        if !outcome.is_null() {
            self.0.insert((step.clone(), effect), outcome);
        }
    }

    /// What the handle stands for, once its effect has happened.
    pub fn get(&self, at: &HandleRef) -> Option<&Value> {
        let outcome = self.0.get(&(at.step.clone(), at.effect))?;
        if at.field.is_empty() { Some(outcome) } else { outcome.get(at.field.as_ref()) }
    }

    /// Drops the outcomes of a step that was taken back: handles to them have no value.
    pub fn forget(&mut self, step: &Arc<str>, effects: u32) {
        (0..effects).for_each(|effect| {
            self.0.remove(&(step.clone(), effect));
        });
    }

    /// The whole outcome of one effect.
    pub fn of(&self, step: &Arc<str>, effect: u32) -> Option<&Value> {
        self.0.get(&(step.clone(), effect))
    }

    /// The value with every handle replaced by what it stands for; null where that is not known.
    pub fn resolve(&self, value: &Value) -> Value {
        if let Some(at) = crate::value::handle_ref(value) {
            return self.get(&at).cloned().unwrap_or_default();
        }
        match value {
            Value::Array(items) => items.iter().map(|v| self.resolve(v)).collect(),
            Value::Object(map) if map.contains_key(crate::value::TEXT) => match decode::<Text>(value.clone()) {
                Ok(text) => text.fill(|at| self.get(at).map(plain)).map_or(Value::Null, Value::String),
                Err(_) => Value::Null,
            },
            Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), self.resolve(v))).collect(),
            other => other.clone(),
        }
    }
}

/// Descriptors that one effect opened for others in the same process. They are not part of an outcome: they mean nothing to another process.
#[derive(Debug, Default)]
pub struct Fds {
    kept: HashMap<String, OwnedFd>,
    /// What the process that makes a site tells it of itself, where no descriptor goes with it.
    marks: BTreeSet<&'static str>,
}

impl Fds {
    /// Keeps a descriptor under a name; one already there is closed.
    pub fn put(&mut self, name: impl Into<String>, fd: OwnedFd) {
        self.kept.insert(name.into(), fd);
    }

    /// The descriptor of that name.
    pub fn get(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.kept.get(name).map(AsFd::as_fd)
    }

    /// The descriptor of that name, no longer kept.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.kept.remove(name)
    }

    /// Closes every descriptor but those of these names.
    pub fn keep_only(&mut self, names: &[&str]) {
        self.kept.retain(|name, _| names.contains(&name.as_str()));
    }

    /// Says something of the process.
    pub fn mark(&mut self, what: &'static str) {
        self.marks.insert(what);
    }

    /// Whether that has been said of the process.
    pub fn is_marked(&self, what: &str) -> bool {
        self.marks.contains(what)
    }

    /// Every descriptor kept.
    pub fn iter(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.kept.iter().map(|(name, fd)| (name.as_str(), fd.as_fd()))
    }
}

/// What an effect may use while it is applied or undone.
pub struct Cx<'a> {
    /// The run's names.
    pub run: &'a RunNames,
    /// The address of the effect's step.
    pub step: &'a Arc<str>,
    /// Which of the step's effects it is.
    pub effect: u32,
    /// What handles resolve to.
    pub outcomes: &'a Outcomes,
    /// Descriptors kept between effects of this process.
    pub fds: &'a mut Fds,
    /// The program for the process, where the effect makes one.
    pub site: Option<SiteProgram>,
    /// The run is to stay when its engine ends: what is made must not need the engine from then on.
    pub outlives: bool,
    /// Takes what is said, to be shown under the step's name.
    pub output: &'a mut dyn FnMut(Said<'_>),
}

/// What is said while an effect happens. Nobody who prints a line can make a warning of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// A command, a hook or a container printed this line.
    Line(&'a str),
    /// The engine itself warns of this, and goes on.
    Warning(&'a str),
}

impl Cx<'_> {
    /// Warns, and goes on.
    pub fn warn(&mut self, text: &str) {
        (self.output)(Said::Warning(text));
    }

    /// What the handle stands for.
    pub fn resolve<T: Outcome>(&self, handle: &Handle<T>) -> Result<T, EffectError> {
        let value = self.value(&handle.at)?;
        decode(value.clone()).map_err(|e| EffectError::new(format!("{handle} is not a {}: {e}", T::NAME)))
    }

    /// The text with its handles filled in.
    pub fn text(&self, text: &Text) -> Result<String, EffectError> {
        let mut missing = None;
        let filled = text.fill(|at| {
            let value = self.outcomes.get(at).map(plain);
            if value.is_none() {
                missing = Some(at.clone());
            }
            value
        });
        filled.ok_or_else(|| {
            EffectError::new(format!("{} has no value", missing.map_or_else(String::new, |m| m.to_string())))
        })
    }

    fn value(&self, at: &HandleRef) -> Result<&Value, EffectError> {
        self.outcomes.get(at).ok_or_else(|| EffectError::new(format!("{at} has no value: its effect has not happened")))
    }
}
