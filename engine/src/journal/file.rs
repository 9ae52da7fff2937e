use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use serde_json::Value;
use thiserror::Error;

use super::entry::{Entry, VERSION};
use super::own::{Foreign, OwnDir};
use super::state::RunState;
use crate::effect::RunNames;
use crate::types::{GONE, NEW, Name};

/// The journal's name in the run's directory.
pub const JOURNAL: &str = "journal";

/// What is wrong with a run's directory or journal.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The id is taken. Boxed, since it carries the other run.
    #[error("a run with the id `{}` exists already", .0.id)]
    Exists(Box<RunState>),
    /// There is no such run.
    #[error("no run with the id `{id}` below {}", root.display())]
    Absent {
        /// The id.
        id: String,
        /// The state root.
        root: PathBuf,
    },
    /// Another engine works on it.
    #[error("the run `{id}` is being worked on by another engine")]
    Busy {
        /// The id.
        id: String,
    },
    /// It is not the caller's own, and nothing of it was read.
    #[error("{} {why}", path.display())]
    Foreign {
        /// The state root, or what is below it.
        path: PathBuf,
        /// Why.
        why: Foreign,
    },
    /// A line that is neither whole nor the torn last one.
    #[error("{}: byte {byte} (line {line}): {problem}", path.display())]
    Corrupt {
        /// The journal.
        path: PathBuf,
        /// Counted from 0.
        byte: usize,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// The kernel refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried: `open`, `write`, `lock`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

pub(super) fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> JournalError + 'a {
    move |source| JournalError::Io { what, path: path.to_owned(), source }
}

/// Replays a journal's text. A last line without its end was torn by a crash: what it says did not happen.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<RunState, JournalError> {
    let mut state = RunState::default();
    let mut byte = 0;
    for (number, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        if line.last() != Some(&b'\n') {
            break;
        }
        let corrupt = |offset: usize, problem: String| JournalError::Corrupt {
            path: path.to_owned(),
            byte: byte + offset,
            line: number + 1,
            problem,
        };
        let entry: Entry =
            serde_json::from_slice(line).map_err(|e| corrupt(e.column().saturating_sub(1), e.to_string()))?;
        if (number == 0) != matches!(entry, Entry::Run { .. }) {
            return Err(corrupt(0, "the first line, and no other, says which run it is".into()));
        }
        state.take(&entry).map_err(|problem| corrupt(0, problem))?;
        byte += line.len();
    }
    Ok(state)
}

/// The outputs of the plan that made a run, from its journal's text. Of a run that was settled they are in one line; the others are then not
/// looked at, since whoever works on the run reads them anyway.
pub fn outputs(path: &Path, bytes: &[u8]) -> Result<Value, JournalError> {
    let whole = bytes.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n"));
    let mut ends = whole.filter(|line| line.starts_with(br#"{"segment":"#) || line.starts_with(br#"{"settled":"#));
    let first = (ends.next(), ends.next().map(serde_json::from_slice));
    match first {
        (Some(_), Some(Ok(Entry::Settled { outputs, .. }))) if !outputs.is_null() => Ok(outputs),
        _ => Ok(parse(path, bytes)?.outputs()),
    }
}

/// Reads a run's journal without taking its lock.
pub fn read(names: &RunNames) -> Result<RunState, JournalError> {
    match OwnDir::of(names)?.read(JOURNAL)? {
        Some(bytes) => parse(&names.dir().join(JOURNAL), &bytes),
        None => Err(JournalError::Absent { id: names.id.clone(), root: names.root.clone() }),
    }
}

/// A journal that this process writes. Its lock is held until it is dropped.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
}

/// Lines are gathered up to this many bytes when nothing forces them out.
const BUFFER: usize = 64 << 10;

impl Journal {
    /// Adds an entry. It is on file after the next [`Journal::flush`].
    pub fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        serde_json::to_writer(&mut self.buffer, entry).map_err(|e| io("write", &self.path)(e.into()))?;
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Puts every entry so far on file. The page cache outlives any process; a crash of the machine takes the run's effects with it.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        if !self.buffer.is_empty() {
            self.file.write_all(&self.buffer).map_err(io("write", &self.path))?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn lock(&self, id: &str) -> Result<(), JournalError> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(JournalError::Busy { id: id.to_owned() }),
            Err(e) => Err(io("lock", &self.path)(e.into())),
        }
    }
}

/// A run's directory.
pub struct RunDir;

/// The permissions of a state root and of the runs in it. What a container needs of them it has by descriptor, or bound into it.
const MODE: Mode = Mode::RWXU;

impl RunDir {
    /// Reserves the id: a directory with a locked journal appears under it at once, or not at all.
    pub fn create(names: &RunNames, parent: Option<&str>) -> Result<(Journal, Entry), JournalError> {
        let staged = format!("{NEW}{}-{}", std::process::id(), aside(names));
        let (root, dir) = stage(names, &staged)?;
        let made = dir.open(JOURNAL, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL);
        let journal = made.map(|file| Journal { file, path: names.dir().join(JOURNAL), buffer: Vec::new() });
        let entry = Entry::Run { version: VERSION, id: names.id.clone(), parent: parent.map(str::to_owned) };
        let ready = journal.and_then(|mut journal| {
            journal.lock(&names.id)?;
            journal.append(&entry)?;
            journal.flush()?;
            reserve(&root, &staged, names)?;
            Ok((journal, entry))
        });
        if ready.is_err() {
            let _ = root.remove(&staged);
        }
        ready
    }

    /// Opens an existing run to work on it; a torn last line is cut off.
    pub fn open(names: &RunNames) -> Result<(Journal, RunState), JournalError> {
        let path = names.dir().join(JOURNAL);
        let absent = || JournalError::Absent { id: names.id.clone(), root: names.root.clone() };
        let dir = OwnDir::of(names)?;
        let mut file = match dir.open(JOURNAL, OFlags::RDWR | OFlags::APPEND) {
            Err(JournalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(absent());
            }
            other => other?,
        };
        let mut bytes = Vec::new();
        let journal =
            Journal { file: file.try_clone().map_err(io("open", &path))?, path: path.clone(), buffer: Vec::new() };
        journal.lock(&names.id)?;
        file.read_to_end(&mut bytes).map_err(io("read", &path))?;
        // Whoever held the lock before may have finished the run off.
        if !OwnDir::at(&names.root).is_ok_and(|root| root.has(&names.id, &dir)) {
            return Err(absent());
        }
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(io("truncate", &path))?;
        }
        let state = parse(&path, &bytes)?;
        // What it says of names and paths would be another run's. Without a whole line it says nothing.
        if whole > 0 && state.id != names.id {
            let problem = format!("it is the journal of the run `{}`", state.id);
            return Err(JournalError::Corrupt { path, byte: 0, line: 1, problem });
        }
        Ok((journal, state))
    }

    /// Removes a run that is wholly undone: first out of sight, so that a crash leaves no half of it under its id.
    pub fn remove(names: &RunNames) -> Result<(), JournalError> {
        let Some(root) = found(&names.root)? else { return Ok(()) };
        let gone = format!("{GONE}{}-{}", std::process::id(), aside(names));
        match root.rename(&names.id, &gone) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(io("rename", &names.dir())(e.into())),
        }
        match root.remove(&gone) {
            // Somebody has swept it.
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &names.root.join(&gone))(e)),
            _ => {}
        }
        // The root goes with the last run in it; a run that is being made there meanwhile makes it again.
        let _ = std::fs::remove_dir(&names.root);
        Ok(())
    }

    /// Removes a directory that has no journal, which is a run that did nothing. Whether it did.
    pub fn remove_empty(names: &RunNames) -> bool {
        OwnDir::at(&names.root).is_ok_and(|root| root.remove_empty(&names.id).is_ok())
    }

    /// The ids of the runs below a state root, sorted.
    pub fn list(root: &Path) -> Result<Vec<String>, JournalError> {
        let Some(root) = found(root)? else { return Ok(Vec::new()) };
        let names = root.names()?.into_iter().filter_map(|name| name.into_string().ok());
        let mut ids: Vec<String> = names.filter(|name| Name::parse(name).is_ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// Removes what a crash left of directories that were being made or removed. Returns how many there were.
    pub fn sweep(root: &Path) -> Result<usize, JournalError> {
        sweep(root, None)
    }

    /// The same for one run.
    pub fn sweep_run(names: &RunNames) -> Result<usize, JournalError> {
        sweep(&names.root, Some(&aside(names)))
    }
}

/// What stands for the run in the name of a directory that is not under its id: a long id, with more before it, would be no file name any more.
fn aside(names: &RunNames) -> String {
    const LONGEST: usize = 200;
    if names.id.len() <= LONGEST { names.id.clone() } else { names.tag() }
}

/// The state root; `None` if there is none.
fn found(root: &Path) -> Result<Option<OwnDir>, JournalError> {
    match OwnDir::at(root) {
        Err(JournalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn sweep(root: &Path, only: Option<&str>) -> Result<usize, JournalError> {
    let Some(dir) = found(root)? else { return Ok(0) };
    let mut swept = 0;
    for name in dir.names()?.iter().filter_map(|name| name.to_str()) {
        let maker_and_id = |prefix| name.strip_prefix(prefix).and_then(|rest: &str| rest.split_once('-'));
        let removed = maker_and_id(GONE);
        // A directory that is being made: its journal is locked, or its maker has only just begun.
        let abandoned = maker_and_id(NEW).filter(|(pid, _)| !alive(pid));
        if removed.or(abandoned).is_some_and(|(_, id)| only.is_none_or(|only| only == id)) {
            match dir.remove(name) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", &root.join(name))(e)),
                _ => swept += 1,
            }
        }
    }
    let _ = std::fs::remove_dir(root);
    Ok(swept)
}

fn alive(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

/// Makes the directory that is to become the run's, and the state root around it. The last run of a root takes it away, perhaps just now.
fn stage(names: &RunNames, staged: &str) -> Result<(OwnDir, OwnDir), JournalError> {
    let mut tries = 0;
    loop {
        make_root(names).map_err(io("create", &names.root))?;
        let made = OwnDir::at(&names.root).and_then(|root| root.make(staged, MODE).map(|dir| (root, dir)));
        match made {
            Err(JournalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound && tries < 100 => {
                tries += 1;
            }
            other => return other,
        }
    }
}

/// A run beside another one is made in that one's directory, which has to be there still.
fn make_root(names: &RunNames) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let beside = names.around().is_some();
    match std::fs::DirBuilder::new().recursive(!beside).mode(MODE.as_raw_mode()).create(&names.root) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn reserve(root: &OwnDir, staged: &str, names: &RunNames) -> Result<(), JournalError> {
    match renameat_with(root, staged, root, &names.id, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(JournalError::Exists(Box::new(
            read(names).unwrap_or_else(|_| RunState { id: names.id.clone(), ..RunState::default() }),
        ))),
        Err(e) => Err(io("rename", &names.dir())(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::entry::{Identity, Settlement};
    use super::*;

    fn journal(entries: &[Entry]) -> Vec<u8> {
        let run = Entry::Run { version: VERSION, id: "web".into(), parent: None };
        let lines = std::iter::once(&run).chain(entries).map(|entry| serde_json::to_string(entry).unwrap() + "\n");
        lines.collect::<String>().into_bytes()
    }

    #[test]
    fn a_runs_outputs_are_those_of_its_first_piece_of_work() {
        let segment = |outputs| Entry::Segment {
            plan: "web".into(),
            engine: Identity { pid: 1, start: 1, boot: "b".into() },
            base: 0,
            outputs,
            at: 0,
        };
        let settled = |outputs| Entry::Settled { how: Settlement::Kept, exit: None, outputs, at: 0 };
        let path = Path::new("journal");
        let of = |entries: &[Entry]| outputs(path, &journal(entries)).unwrap();
        let first = [segment(json!({ "pid": null })), settled(json!({ "pid": 1 }))];
        assert_eq!(of(&first), json!({ "pid": 1 }));
        assert_eq!(of(&first[..1]), json!({ "pid": null }));
        // What a later piece of work gives is its own, whether or not the first was settled.
        let other = [segment(Value::Null), settled(json!({ "other": 2 }))];
        assert_eq!(of(&[&first[..], &other].concat()), json!({ "pid": 1 }));
        assert_eq!(of(&[&first[..1], &other].concat()), json!({ "pid": null }));
        // A torn last line did not happen.
        let mut torn = journal(&first);
        torn.pop();
        assert_eq!(outputs(path, &torn).unwrap(), json!({ "pid": null }));
    }

    #[test]
    fn a_journal_that_leads_to_another_run_or_loses_a_step_is_refused() {
        let segment = |base| Entry::Segment {
            plan: "web".into(),
            engine: Identity { pid: 1, start: 1, boot: "b".into() },
            base,
            outputs: Value::Null,
            at: 0,
        };
        let begin = |n, after: &[u32]| Entry::Begin {
            n,
            step: "s".into(),
            kind: "k".into(),
            origin: String::new(),
            after: after.into(),
            site: None,
            armed: false,
            effects: Vec::new(),
            at: 0,
        };
        let refused = |entries: &[Entry]| parse(Path::new("journal"), &journal(entries)).unwrap_err().to_string();
        assert!(refused(&[Entry::Child { id: "../other".into() }]).contains("is no id of a run"));
        assert!(refused(&[begin(0, &[])]).contains("before any engine"));
        assert!(refused(&[segment(5), segment(2)]).contains("goes on from step 2"));
        for wrong in [begin(4, &[]), begin(6, &[6]), begin(6, &[7]), begin(u32::MAX, &[])] {
            assert!(refused(&[segment(5), wrong]).contains("cannot have begun here"));
        }
        assert!(parse(Path::new("journal"), &journal(&[segment(5), begin(6, &[0, 5])])).is_ok());
    }

    #[test]
    fn the_journal_of_another_run_is_not_worked_on() {
        let root = tempfile::tempdir().unwrap();
        let names = RunNames { root: root.path().join("root"), id: "web".into() };
        drop(RunDir::create(&names, None).unwrap());
        let other = RunNames { id: "other".into(), ..names.clone() };
        std::fs::rename(names.dir(), other.dir()).unwrap();
        assert!(RunDir::open(&other).unwrap_err().to_string().contains("it is the journal of the run `web`"));
    }

    #[test]
    fn what_a_crash_left_of_one_run_is_swept_and_no_other_runs() {
        let root = tempfile::tempdir().unwrap();
        let me = std::process::id();
        // No process has the id 0, and ids of runs may hold dashes.
        let left = [".new-0-web-1", ".gone-0-web-1", ".new-0-web", ".gone-0-1", &format!(".new-{me}-web-1"), "web-1"];
        for name in left {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let names = RunNames { root: root.path().to_owned(), id: "web-1".into() };
        assert_eq!(RunDir::sweep_run(&names).unwrap(), 2);
        let there = |name: &&str| root.path().join(name).exists();
        assert_eq!(left.iter().filter(|name| there(name)).count(), 4);
        assert_eq!(RunDir::sweep(root.path()).unwrap(), 2);
        // What is being made just now stays, and so does the run.
        assert_eq!(RunDir::list(root.path()).unwrap(), ["web-1"]);
        assert!(there(&left[4]));
    }
}
