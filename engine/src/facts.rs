//! Facts: what the host and the caller offer. Every read that planning makes goes through [`Facts`] and is recorded, so that a plan can be
//! shown again byte for byte, compared, masked, faked and replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effect::RunNames;
use crate::journal::{JournalError, OwnDir};

/// Finds facts out on the real host. Lives outside the engine, which knows nothing of containers.
pub trait Host {
    /// The names of all facts, in the order in which `lifecycle facts` prints them.
    fn names(&self) -> &[&'static str];
    /// Finds one out; null if there is no such thing here. Must leave nothing behind.
    fn read(&self, name: &str) -> Value;
    /// What the fact is when it is masked: as if the host did not offer it.
    fn masked(&self, name: &str) -> Value;
}

/// A file that planning read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFact {
    /// Its text.
    Text(String),
    /// The digest of its text, in hexadecimal: what is kept of a file that may hold secrets. Reading it again goes to the disk.
    Sha256(String),
    /// It could not be read: the kernel's answer.
    Errno(i32),
    /// It is there, and was not read.
    Kind(FileKind),
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// Anything else.
    Other,
}

/// What was read, as it is saved and compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Facts of the host by name.
    #[serde(default)]
    pub host: BTreeMap<String, Value>,
    /// Files that were read, by path.
    #[serde(default)]
    pub files: BTreeMap<PathBuf, FileFact>,
    /// What paths lead to, where only that was asked.
    #[serde(default)]
    pub kinds: BTreeMap<PathBuf, FileFact>,
}

impl Recorded {
    /// The same without the text of any file: a config.json holds process.env.
    #[must_use]
    pub fn digested(&self) -> Self {
        let digested = |fact: &FileFact| match fact {
            FileFact::Text(text) => FileFact::Sha256(sha256(text.as_bytes())),
            other => other.clone(),
        };
        let all = |facts: &BTreeMap<PathBuf, FileFact>| facts.iter().map(|(p, f)| (p.clone(), digested(f))).collect();
        Self { host: self.host.clone(), files: all(&self.files), kinds: all(&self.kinds) }
    }
}

/// The digest in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    use std::fmt::Write;
    sha2::Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The reader. Answers from what is recorded or given first, then from the host.
pub struct Facts {
    given: Recorded,
    read: Recorded,
    masked: BTreeSet<String>,
    host: Option<Box<dyn Host>>,
}

/// The largest file that planning reads, in bytes. A config.json is some 100 KB.
const LARGEST: u64 = 16 << 20;
/// The most that planning reads of what may have no end.
const LONGEST_STREAM: u64 = 4 << 20;

impl Facts {
    /// Facts of the real host.
    pub fn live(host: Box<dyn Host>) -> Self {
        Self { given: Recorded::default(), read: Recorded::default(), masked: BTreeSet::new(), host: Some(host) }
    }

    /// Facts from a file. Files that it does not hold are read from the disk (a plan's own bundle); host facts are not: a missing one is null.
    pub fn fixed(given: Recorded) -> Self {
        Self { given, read: Recorded::default(), masked: BTreeSet::new(), host: None }
    }

    /// Makes the named facts look absent, to force the path that an older kernel takes.
    #[must_use]
    pub fn mask(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.masked.extend(names);
        self
    }

    /// Everything that has been read so far.
    pub fn recorded(&self) -> &Recorded {
        &self.read
    }

    /// Reads every fact that the host knows.
    pub fn read_all(&mut self) {
        let names = self.host.as_ref().map(|h| h.names().to_vec()).unwrap_or_default();
        for name in names {
            self.value(name);
        }
    }

    /// A fact of the host; null if it is absent.
    pub fn value(&mut self, name: &str) -> Value {
        if let Some(value) = self.read.host.get(name) {
            return value.clone();
        }
        let value = match (self.given.host.get(name), &self.host) {
            (Some(value), _) => value.clone(),
            (None, Some(host)) if self.masked.contains(name) => host.masked(name),
            (None, Some(host)) => host.read(name),
            (None, None) => Value::Null,
        };
        self.read.host.insert(name.to_owned(), value.clone());
        value
    }

    /// A fact of the host, decoded; `None` if it is absent or of another shape.
    pub fn get<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        serde_json::from_value(self.value(name)).ok()
    }

    /// A fact that says whether something is there.
    pub fn has(&mut self, name: &str) -> bool {
        self.value(name) == Value::Bool(true)
    }

    /// The text of a file. The error is the kernel's; a file over 16 MiB is EFBIG, one that is not UTF-8 EILSEQ.
    pub fn file(&mut self, path: &Path) -> std::io::Result<String> {
        let fact = match self.read.files.get(path).or_else(|| self.given.files.get(path)) {
            None | Some(FileFact::Sha256(_)) => read_bounded(path),
            Some(fact) => fact.clone(),
        };
        self.read.files.insert(path.to_owned(), fact.clone());
        text(fact)
    }

    /// The text of a file that the caller gives for this run alone, which may be a pipe or a terminal: it is read to its end. What goes on after
    /// 4 MiB is EFBIG.
    pub fn stream(&mut self, path: &Path) -> std::io::Result<String> {
        let fact = match self.read.files.get(path).or_else(|| self.given.files.get(path)) {
            None | Some(FileFact::Sha256(_)) => match std::fs::metadata(path) {
                Ok(found) if !found.is_file() && !found.is_dir() => read_stream(path),
                _ => read_bounded(path),
            },
            Some(fact) => fact.clone(),
        };
        self.read.files.insert(path.to_owned(), fact.clone());
        text(fact)
    }

    /// The text of a file in a run's directory, which has to be the caller's own.
    pub fn own_file(&mut self, names: &RunNames, name: &str) -> Result<String, JournalError> {
        let path = names.dir().join(name);
        let absent = || JournalError::Absent { id: names.id.clone(), root: names.root.clone() };
        let fact = match self.read.files.get(&path).or_else(|| self.given.files.get(&path)) {
            None | Some(FileFact::Sha256(_)) => OwnDir::of(names)?.find(name)?.map(bounded).ok_or_else(absent)?,
            Some(fact) => fact.clone(),
        };
        self.read.files.insert(path.clone(), fact.clone());
        text(fact).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => absent(),
            _ => JournalError::Io { what: "read", path, source },
        })
    }

    /// What the path leads to, symlinks followed; the error is the kernel's.
    pub fn kind(&mut self, path: &Path) -> std::io::Result<FileKind> {
        let fact = match self.read.kinds.get(path).or_else(|| self.given.kinds.get(path)) {
            Some(fact) => fact.clone(),
            None => kind_of(path),
        };
        self.read.kinds.insert(path.to_owned(), fact.clone());
        match fact {
            FileFact::Kind(kind) => Ok(kind),
            FileFact::Text(_) | FileFact::Sha256(_) => Ok(FileKind::File),
            FileFact::Errno(errno) => Err(std::io::Error::from_raw_os_error(errno)),
        }
    }
}

fn text(fact: FileFact) -> std::io::Result<String> {
    match fact {
        FileFact::Text(text) => Ok(text),
        FileFact::Errno(errno) => Err(std::io::Error::from_raw_os_error(errno)),
        // A digest is never what a file is read as.
        FileFact::Kind(_) | FileFact::Sha256(_) => {
            Err(std::io::Error::from_raw_os_error(rustix::io::Errno::ISDIR.raw_os_error()))
        }
    }
}

fn errno(e: &std::io::Error) -> FileFact {
    FileFact::Errno(e.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error()))
}

fn kind_of(path: &Path) -> FileFact {
    match std::fs::metadata(path) {
        Ok(m) if m.is_dir() => FileFact::Kind(FileKind::Directory),
        Ok(m) if m.is_file() => FileFact::Kind(FileKind::File),
        Ok(_) => FileFact::Kind(FileKind::Other),
        Err(e) => errno(&e),
    }
}

/// Never blocks on a fifo and never reads without end: both may be somebody's trap.
fn read_bounded(path: &Path) -> FileFact {
    use rustix::fs::{Mode, OFlags, open};
    match open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty()) {
        Ok(fd) => bounded(fd.into()),
        Err(e) => FileFact::Errno(e.raw_os_error()),
    }
}

fn bounded(file: std::fs::File) -> FileFact {
    use rustix::fs::{FileType, fstat};
    let size = match fstat(&file).map(|s| (FileType::from_raw_mode(s.st_mode), s.st_size)) {
        Ok((FileType::RegularFile, size)) => u64::try_from(size).unwrap_or(0).min(LARGEST),
        Ok((FileType::Directory, _)) => return FileFact::Kind(FileKind::Directory),
        Ok(_) => return FileFact::Errno(rustix::io::Errno::INVAL.raw_os_error()),
        Err(e) => return FileFact::Errno(e.raw_os_error()),
    };
    read_to_end(file, size, LARGEST)
}

fn read_stream(path: &Path) -> FileFact {
    std::fs::File::open(path).map_or_else(|e| errno(&e), |file| read_to_end(file, 0, LONGEST_STREAM))
}

fn read_to_end(file: std::fs::File, size: u64, most: u64) -> FileFact {
    use std::io::Read;
    let mut bytes = Vec::with_capacity(size as usize + 1);
    match file.take(most + 1).read_to_end(&mut bytes) {
        Err(e) => errno(&e),
        Ok(n) if n as u64 > most => FileFact::Errno(rustix::io::Errno::FBIG.raw_os_error()),
        Ok(_) => {
            String::from_utf8(bytes).map_or(FileFact::Errno(rustix::io::Errno::ILSEQ.raw_os_error()), FileFact::Text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Fake;
    impl Host for Fake {
        fn names(&self) -> &[&'static str] {
            &["openat2", "uid"]
        }
        fn read(&self, name: &str) -> Value {
            if name == "uid" { json!(0) } else { json!(true) }
        }
        fn masked(&self, _: &str) -> Value {
            json!(false)
        }
    }

    #[test]
    fn what_was_read_replays_without_the_host() {
        let mut live = Facts::live(Box::new(Fake)).mask(["openat2".to_owned()]);
        assert!(!live.has("openat2"));
        assert_eq!(live.get::<u32>("uid"), Some(0));
        assert!(live.file(Path::new("/nonexistent/file")).is_err());
        let mut replay = Facts::fixed(live.recorded().clone());
        assert!(!replay.has("openat2"));
        assert_eq!(replay.get::<u32>("uid"), Some(0));
        let error = replay.file(Path::new("/nonexistent/file")).expect_err("recorded as absent");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(live.recorded(), replay.recorded());
    }

    #[test]
    fn a_stream_is_read_to_its_end_and_only_so_far() {
        use std::io::Write;
        use std::os::fd::AsRawFd;
        let written = |bytes: Vec<u8>| {
            let (read, write) = std::io::pipe().expect("pipe");
            let path = format!("/proc/self/fd/{}", read.as_raw_fd());
            let writer = std::thread::spawn(move || {
                // Whoever reads may have enough.
                let _ = bytes.chunks(100_000).try_for_each(|chunk| (&write).write_all(chunk));
            });
            let told = Facts::fixed(Recorded::default()).stream(Path::new(&path));
            drop(read);
            writer.join().expect("writer");
            told
        };
        let most = LONGEST_STREAM as usize;
        assert_eq!(written(vec![b'x'; most]).expect("text").len(), most);
        let error = written(vec![b'x'; most + 1]).expect_err("too long");
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::FBIG.raw_os_error()));
        assert!(Facts::fixed(Recorded::default()).stream(Path::new("/proc")).is_err());
    }

    #[test]
    fn a_digest_stands_for_a_file_without_its_text() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("config.json");
        std::fs::write(&path, "PASSWORD=hunter2").expect("written");
        let mut live = Facts::fixed(Recorded::default());
        live.file(&path).expect("readable");
        let digested = live.recorded().digested();
        assert!(!serde_json::to_string(&digested).expect("json").contains("hunter2"));
        let mut replay = Facts::fixed(digested.clone());
        assert_eq!(replay.file(&path).expect("read again"), "PASSWORD=hunter2");
        assert_eq!(replay.recorded().digested(), digested);
    }

    #[test]
    fn a_device_without_end_is_refused_at_once() {
        let mut facts = Facts::fixed(Recorded::default());
        assert!(facts.file(Path::new("/dev/zero")).is_err());
    }
}
