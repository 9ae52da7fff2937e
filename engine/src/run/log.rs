use std::collections::HashMap;

use crate::effect::RunNames;
use crate::journal::{Entry, Identity, Journal, JournalError, RunDir, RunState, Settlement};
use crate::program::Program;

/// The journals of a run and of the runs nested in it, and the state that they describe. Every entry goes through here, so that what this
/// process believes is what another one would read.
#[derive(Debug)]
pub struct Log {
    names: Vec<RunNames>,
    journals: Vec<Journal>,
    /// Which journal a node belongs to; those that are not listed belong to the first.
    owners: HashMap<u32, usize>,
    state: RunState,
    /// Something has been noted since the last flush.
    dirty: bool,
    /// The journal could not be written: from then on only memory knows, which is enough to take everything back.
    broken: bool,
}

impl Log {
    /// Reserves the ids of the program's runs and opens their journals.
    pub fn create(program: &Program) -> Result<Self, JournalError> {
        let (own, nested) = program
            .runs
            .split_first()
            .ok_or_else(|| JournalError::Absent { id: String::new(), root: std::path::PathBuf::new() })?;
        let (journal, first) = RunDir::create(own, None)?;
        let mut log = Self::new(own.clone(), journal, RunState::default());
        log.take(&first);
        for child in nested {
            if let Err(e) = log.create_child(child) {
                log.remove()?;
                return Err(e);
            }
        }
        log.own(program, 0);
        Ok(log)
    }

    fn create_child(&mut self, child: &RunNames) -> Result<(), JournalError> {
        let parent = self.state.id.clone();
        // The parent knows of the child before it exists: a crash in between leaves a name that is not there, which is nothing.
        self.note(&Entry::Child { id: child.id.clone() })?;
        self.flush()?;
        let (journal, _) = RunDir::create(child, Some(&parent))?;
        self.names.push(child.clone());
        self.journals.push(journal);
        Ok(())
    }

    /// Opens an existing run and those nested in it to work on them.
    pub fn open(names: &RunNames) -> Result<Self, JournalError> {
        let (journal, state) = RunDir::open(names)?;
        let children = state.children.clone();
        let mut log = Self::new(names.clone(), journal, state);
        for id in children {
            let child = RunNames { root: names.root.clone(), id };
            match RunDir::open(&child) {
                Ok((journal, state)) if state.parent.as_deref() == Some(&names.id) => log.adopt(child, journal, state),
                // Gone, or its name was taken by another run since.
                Ok(_) | Err(JournalError::Absent { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(log)
    }

    fn new(names: RunNames, journal: Journal, state: RunState) -> Self {
        Self { names: vec![names], journals: vec![journal], owners: HashMap::new(), state, dirty: false, broken: false }
    }

    fn adopt(&mut self, child: RunNames, journal: Journal, state: RunState) {
        let owner = self.journals.len();
        self.owners.extend(state.begun().map(|(n, _)| (n, owner)));
        self.names.push(child);
        self.journals.push(journal);
        self.state.adopt(state);
    }

    /// Notes which journal each of the program's nodes belongs to.
    pub fn own(&mut self, program: &Program, base: u32) {
        let nested = (base..).zip(&program.nodes).filter(|(_, node)| node.run > 0);
        self.owners.extend(nested.map(|(n, node)| (n, node.run as usize)));
    }

    /// What the journals say.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// The run's names.
    pub fn run(&self) -> &RunNames {
        &self.names[0]
    }

    /// The names of the run to which a node belongs.
    pub fn names(&self, n: u32) -> &RunNames {
        &self.names[self.owner(n)]
    }

    /// Whether a node belongs to the program's own run, and to none nested in it.
    pub fn is_own(&self, n: u32) -> bool {
        self.owner(n) == 0
    }

    fn owner(&self, n: u32) -> usize {
        self.owners.get(&n).copied().unwrap_or(0).min(self.journals.len() - 1)
    }

    /// Adds an entry to the journal that it belongs to. It is on file after the next [`Log::flush`].
    pub fn note(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.take(entry);
        let owner = entry.node().map_or(0, |n| self.owner(n));
        self.write(|journals| journals[owner].append(entry))
    }

    /// Adds an entry about the whole run to every journal of it.
    fn note_all(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.take(entry);
        self.write(|journals| journals.iter_mut().try_for_each(|j| j.append(entry)))
    }

    fn take(&mut self, entry: &Entry) {
        // The engine only writes what it has just made possible; a contradiction would be a mistake in this program.
        let taken = self.state.take(entry);
        debug_assert!(taken.is_ok(), "{taken:?}: {entry:?}");
    }

    /// The first failure is told, so that nothing more is begun; after it, undo goes on without the journal.
    fn write(&mut self, write: impl FnOnce(&mut [Journal]) -> Result<(), JournalError>) -> Result<(), JournalError> {
        if self.broken {
            return Ok(());
        }
        self.dirty = true;
        let written = write(&mut self.journals);
        self.broken = written.is_err();
        written
    }

    /// Puts everything on file: before an effect happens, and before anything is waited for.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        if !self.dirty {
            return Ok(());
        }
        let flushed = self.write(|journals| journals.iter_mut().try_for_each(Journal::flush));
        self.dirty = false;
        flushed
    }

    /// An engine starts to work on the run. Each of the program's runs learns what its own plan will give to others.
    pub fn begin(&mut self, program: &Program, engine: &Identity, base: u32) -> Result<(), JournalError> {
        let at = crate::site::now();
        let segment = |outputs: &serde_json::Value| {
            let mut outputs = outputs.clone();
            crate::value::redact(&mut outputs);
            Entry::Segment { plan: program.plan.clone(), engine: engine.clone(), base, outputs, at }
        };
        self.take(&segment(&program.outputs));
        let all = std::iter::once(&program.outputs).chain(&program.nested);
        let nothing = serde_json::Value::Null;
        let entries: Vec<Entry> =
            all.chain(std::iter::repeat(&nothing)).take(self.journals.len()).map(segment).collect();
        self.write(|journals| journals.iter_mut().zip(&entries).try_for_each(|(j, entry)| j.append(entry)))?;
        self.flush()
    }

    /// From here on the run can only be finished off.
    pub fn deleting(&mut self) -> Result<(), JournalError> {
        self.note_all(&Entry::Deleting)?;
        self.flush()
    }

    /// The engine is done with the run. The outputs are the run's own; a nested one's are read off its own journal.
    pub fn settle(
        &mut self,
        how: Settlement,
        exit: Option<i32>,
        outputs: serde_json::Value,
    ) -> Result<(), JournalError> {
        let at = crate::site::now();
        let own = Entry::Settled { how, exit, outputs, at };
        let nested = Entry::Settled { how, exit, outputs: serde_json::Value::Null, at };
        self.take(&own);
        self.write(|journals| {
            let entries = std::iter::once(&own).chain(std::iter::repeat(&nested));
            journals.iter_mut().zip(entries).try_for_each(|(journal, entry)| journal.append(entry))
        })?;
        self.flush()
    }

    /// Removes the run's own directory. The nested runs are runs of their own from here on.
    pub fn remove_own(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        RunDir::remove(&self.names[0])
    }

    /// Removes the run's directories, the nested ones first.
    pub fn remove(&mut self) -> Result<(), JournalError> {
        self.flush()?;
        self.names.iter().rev().try_for_each(RunDir::remove)
    }
}
