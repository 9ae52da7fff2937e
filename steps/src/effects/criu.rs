//! Processes that criu(8) takes to disk and back.

mod litter;
mod mountpoints;
mod restore;
mod rpc;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::example_process;
use super::placed::Identity;
use super::wait::resolve;
use crate::criu::DESCRIPTORS;
use crate::facts::Criu;
use crate::outcomes::Process;
use crate::spawn::{Command, Ended, Running, leftover};
use crate::spec::NamespaceType;

pub use mountpoints::{MakeMountpoints, Mountpoint};
pub use restore::{BeginRestore, FinishRestore};
pub(crate) use rpc::answer;
use rpc::{Heard, Request, Talk};

/// How many lines of criu's log a failure tells.
const TOLD: usize = 5;

/// Saves a process with all below it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpProcess {
    /// criu.
    pub program: PathBuf,
    /// What it is told, in words of its command line, but for what only the process tells.
    pub words: Vec<String>,
    /// The process.
    pub process: Later<Process>,
    /// The image.
    pub images: PathBuf,
    /// A directory that is made for the log and temporary files, and stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<PathBuf>,
    /// Its log.
    pub log: PathBuf,
    /// Namespaces of the process that are another's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<NamespaceType>,
    /// The process is gone then.
    pub ends: bool,
}

/// What criu calls a namespace that is not the container's own: the same in the image and when it comes back.
fn key(kind: NamespaceType) -> String {
    format!("{}-of-another", kind.name())
}

/// A failure of criu: what its log ends with says why, or `said`, its first error, where it has come to no log. The log goes with an image that
/// is taken back.
fn explained(mut error: EffectError, log: &Path, work: Option<&Path>, said: Option<String>) -> EffectError {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let errors: Vec<String> = text.lines().filter(|line| line.contains("Error")).map(str::to_owned).collect();
    error.output.extend(errors.iter().rev().take(TOLD).rev().cloned());
    error.output.extend(said.filter(|_| errors.is_empty()));
    let stays = work.is_some_and(|work| log.starts_with(work)) || log.ends_with(BeginRestore::LOG);
    error.help(if stays {
        format!("criu's log is {}", log.display())
    } else {
        "with --work-path criu's whole log is kept there".to_owned()
    })
}

/// A criu that the caller or a plan names is executed when the run begins and not for a look at a plan, so what it lacks is found out here.
fn check_named(program: &Path) -> Result<(), EffectError> {
    let name = program.to_string_lossy();
    if name == Criu::USUAL {
        return Ok(());
    }
    Criu::check(Criu::ask(&name).as_ref(), &name).map_err(|(what, help)| EffectError::new(what).help(help))
}

/// Makes the directory for criu's log and temporary files, which stays.
fn make_work(work: Option<&Path>) -> Result<(), EffectError> {
    let Some(work) = work else { return Ok(()) };
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(work)
        .map_err(|e| EffectError::call(format!("mkdir({})", work.display()), e))
}

/// criu with its end of the socket. An engine that is gone is an error to it, not its end: it takes back what it has begun.
fn command(program: &Path, end: &OwnedFd) -> Command {
    let args = ["criu", "swrk", &end.as_raw_fd().to_string()].map(str::to_owned).to_vec();
    let (program, pass) = (program.to_owned(), vec![end.as_raw_fd()]);
    Command { what: "criu".to_owned(), program, args, pass, outlives_pipes: true, ..Command::default() }
}

impl DumpProcess {
    /// The log's name in the image or the work directory; the one that runc's users know.
    pub(crate) const LOG: &'static str = "dump.log";

    fn words(&self, process: &Process) -> Result<Vec<String>, EffectError> {
        let mut words = self.words.clone();
        words.extend(["--tree".to_owned(), process.pid.to_string()]);
        for kind in &self.joined {
            let path = format!("/proc/{}/ns/{}", process.pid, kind.file());
            let found = rustix::fs::stat(&path).map_err(|e| EffectError::call(format!("stat({path})"), e))?;
            words.extend(["--external".to_owned(), format!("{}[{}]:{}", kind.file(), found.st_ino, key(*kind))]);
        }
        Ok(words)
    }

    /// Takes back what criu has written into the directory that it was given, if that is still there.
    fn remove_image(&self, saved: &Saved) -> Result<(), EffectError> {
        let failed = |errno| EffectError::call(format!("remove the image in {}", self.images.display()), errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match openat(CWD, &self.images, flags, Mode::empty()) {
            Ok(dir) => dir,
            // What has gone, or has made room for somebody else's, is not ours any more.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        if identity_of(&dir, &self.images).map_err(failed)? != saved.images {
            return Ok(());
        }
        for name in names_in(&dir).map_err(failed)? {
            if saved.names.contains(name.to_string_lossy().as_ref()) {
                continue;
            }
            match unlinkat(&dir, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }
}

/// What the process's stdio is, so that pipes can be put in its place.
fn stdio_of(process: &Process) -> Result<Vec<String>, EffectError> {
    let target = |fd| {
        let path = format!("/proc/{}/fd/{fd}", process.pid);
        match std::fs::read_link(&path) {
            // It has closed it.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            other => other
                .map(|target| target.display().to_string())
                .map_err(|e| EffectError::call(format!("readlink({path})"), e)),
        }
    };
    (0..3).map(target).collect()
}

fn identity_of(dir: &OwnedFd, path: &Path) -> Result<Identity, Errno> {
    Identity::of(dir.as_fd(), Path::new("."), path).map(|(identity, _)| identity)
}

fn names_in(dir: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let names = Dir::read_from(dir)?.map(|entry| Ok(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned()));
    let names: Vec<OsString> = names.collect::<Result<_, Errno>>()?;
    Ok(names.into_iter().filter(|name| name != "." && name != "..").collect())
}

/// Journaled before criu is let go: itself, and what its image is known by.
#[derive(Serialize, Deserialize)]
struct Saved {
    criu: Value,
    images: Identity,
    /// What was there before; a name with other bytes than UTF-8 stands for all that read like it.
    names: BTreeSet<String>,
}

/// criu at work.
struct Saving {
    running: Running,
    dir: OwnedFd,
    images: Identity,
    names: BTreeSet<String>,
    stdio: Vec<String>,
}

impl Saving {
    /// What is there under that name is replaced and not written to, wherever it leads.
    fn keep_stdio(&self) -> Result<(), EffectError> {
        let failed = |call: &str, errno: Errno| EffectError::call(format!("{call}({DESCRIPTORS})"), errno);
        match unlinkat(&self.dir, DESCRIPTORS, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("unlink", errno)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, DESCRIPTORS, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed("open", e))?;
        std::fs::File::from(file)
            .write_all(json!(self.stdio).to_string().as_bytes())
            .map_err(|e| EffectError::call(format!("write({DESCRIPTORS})"), e))
    }
}

impl Pending for Saving {
    fn started(&self) -> Value {
        json!({ "criu": self.running.started(), "images": self.images, "names": self.names })
    }

    fn release(&mut self, cx: &mut Cx) -> Result<(), EffectError> {
        self.keep_stdio()?;
        self.running.release(cx)
    }

    fn interest(&self, wants: &mut Vec<Interest>) {
        self.running.interest(wants);
    }

    fn deadline(&self) -> Option<Instant> {
        self.running.deadline()
    }

    fn advance(&mut self, cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        self.running.advance(cx)
    }

    fn cancel(&mut self, cx: &mut Cx) {
        self.running.cancel(cx);
    }
}

/// What has come of a dump: by criu's answer, since it ends a `pre-dump` with an error when nobody asks for another.
fn outcome(talk: &Talk, ended: Ended, log: &Path, work: Option<&Path>) -> Result<Value, EffectError> {
    match talk.hear()? {
        Heard::Answer(answer) if answer.success => Ok(Value::Null),
        Heard::Answer(answer) => Err(explained(ended.error(), log, work, answer.error)),
        Heard::Nothing | Heard::End => Err(explained(ended.error(), log, work, None)),
    }
}

impl EffectDef for DumpProcess {
    const KIND: &'static str = "criu.dump";

    fn examples(scratch: &Path) -> Vec<Self> {
        let (images, log) = (scratch.join("image"), scratch.join("image/dump.log"));
        // It stands for criu.
        let (program, process) = (scratch.join("criu"), Later::Handle(example_process()));
        let words = ["dump", "--images-dir", &images.to_string_lossy(), "--leave-running"].map(str::to_owned).to_vec();
        vec![Self { program, words, process, images, work: None, log, joined: Vec::new(), ends: false }]
    }

    fn class(&self) -> Class {
        if self.ends { Class::Commit } else { Class::Reversible }
    }

    fn describe(&self) -> String {
        let after = if self.ends { "" } else { ", which goes on" };
        format!(
            "save {} in {}{after}: {} {}",
            self.process,
            self.images.display(),
            self.program.display(),
            self.words.join(" ")
        )
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        check_named(&self.program)?;
        let process = resolve(&self.process, cx)?;
        make_work(self.work.as_deref())?;
        let request = Request::of(&self.words(&process)?)?;
        let listed = |errno| EffectError::call(format!("list {}", self.images.display()), errno);
        let dir = request.images()?;
        let images = identity_of(&dir, &self.images).map_err(listed)?;
        let names = names_in(&dir).map_err(listed)?.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let stdio = stdio_of(&process)?;
        let (talk, end) = Talk::begin(request)?;
        talk.no_more()?;
        let (log, work) = (self.log.clone(), self.work.clone());
        let running = command(&self.program, &end).start(move |ended| outcome(&talk, ended, &log, work.as_deref()))?;
        Ok(Applied::Pending(Box::new(Saving { running, dir, images, names, stdio })))
    }

    /// An image of processes that are gone is all that is left of them: it stays.
    fn undo(&self, record: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        let saved = record.started.as_ref().and_then(|started| Saved::deserialize(started).ok());
        // In journals of older builds criu stands alone, and what its image is known by is not told: that stays.
        let criu = saved.as_ref().map(|saved| saved.criu.clone()).or_else(|| record.started.clone());
        let gone = leftover::kill(&Record { started: criu, ..record.clone() })?;
        if let Some(saved) = saved.filter(|_| !self.ends || record.outcome.is_none()) {
            self.remove_image(&saved)?;
        }
        Ok(leftover::gone(gone))
    }
}
