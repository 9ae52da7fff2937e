//! Processes that criu(8) takes to disk and back.

mod litter;
mod mountpoints;
mod restore;
mod rpc;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::example_process;
use super::wait::resolve;
use crate::criu::DESCRIPTORS;
use crate::outcomes::Process;
use crate::spawn::{Command, Ended, leftover};
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

fn names_in(dir: &Path) -> std::io::Result<BTreeSet<OsString>> {
    match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        entries => entries?.map(|entry| entry.map(|entry| entry.file_name())).collect(),
    }
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

    /// What its stdio is, so that pipes can be put in its place.
    fn keep_stdio(&self, process: &Process) -> Result<(), EffectError> {
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
        let stdio: Vec<String> = (0..3).map(target).collect::<Result<_, _>>()?;
        let path = self.images.join(DESCRIPTORS);
        std::fs::write(&path, json!(stdio).to_string())
            .map_err(|e| EffectError::call(format!("write {}", path.display()), e))
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

    fn before(&self, _: &mut Cx) -> Result<Value, EffectError> {
        let names =
            names_in(&self.images).map_err(|e| EffectError::call(format!("list {}", self.images.display()), e))?;
        Ok(json!(names.iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>()))
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = resolve(&self.process, cx)?;
        self.keep_stdio(&process)?;
        make_work(self.work.as_deref())?;
        let (talk, end) = Talk::begin(Request::of(&self.words(&process)?)?)?;
        talk.no_more()?;
        let (log, work) = (self.log.clone(), self.work.clone());
        let running = command(&self.program, &end).start(move |ended| outcome(&talk, ended, &log, work.as_deref()))?;
        Ok(Applied::Pending(Box::new(running)))
    }

    /// An image of processes that are gone is all that is left of them: it stays.
    fn undo(&self, record: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        let gone = leftover::kill(record)?;
        if self.ends && record.outcome.is_some() {
            return Ok(leftover::gone(gone));
        }
        let before: BTreeSet<OsString> =
            Vec::<String>::deserialize(&record.before).unwrap_or_default().into_iter().map(OsString::from).collect();
        let failed = |e| EffectError::call(format!("remove the image in {}", self.images.display()), e);
        for name in names_in(&self.images).map_err(failed)?.difference(&before) {
            match std::fs::remove_file(self.images.join(name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
                _ => {}
            }
        }
        Ok(leftover::gone(gone))
    }
}
