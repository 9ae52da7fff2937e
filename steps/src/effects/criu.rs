//! Processes that criu(8) takes to disk and back.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cgroup::{Version, members_of};
use super::example_process;
use super::wait::resolve;
use crate::criu::DESCRIPTORS;
use crate::outcomes::{CgroupJoin, Process};
use crate::spawn::{Command, Ended, Exit, leftover};
use crate::spec::NamespaceType;

/// How many lines of criu's log a failure tells.
const TOLD: usize = 5;

/// Saves a process with all below it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpProcess {
    /// criu.
    pub program: PathBuf,
    /// What it is told, but for what only the process tells.
    pub words: Vec<String>,
    /// The process.
    pub process: Later<Process>,
    /// The image.
    pub images: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// Namespaces of the process that are another's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<NamespaceType>,
    /// The process is gone then.
    pub ends: bool,
    /// Descriptors of the caller that it gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass: Vec<RawFd>,
}

/// Brings a process of an image back, with all below it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreProcess {
    /// criu.
    pub program: PathBuf,
    /// What it is told.
    pub words: Vec<String>,
    /// Where it tells the process's id, in the run's directory.
    pub pid_file: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// The cgroup that it is in, and its children with it.
    #[serde(default)]
    pub cgroup: CgroupJoin,
    /// What the process's stdio was: a pipe's place takes the caller's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stdio: Vec<String>,
    /// Another's namespaces that it joins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<(NamespaceType, PathBuf)>,
}

/// What criu calls a namespace that is not the container's own: the same in the image and when it comes back.
fn key(kind: NamespaceType) -> String {
    format!("{}-of-another", kind.name())
}

/// A failure of criu: what its log ends with says why.
fn failed(ended: Ended, log: &Path) -> EffectError {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let errors: Vec<String> = text.lines().filter(|line| line.contains("Error")).map(str::to_owned).collect();
    let mut error = ended.error();
    error.output.extend(errors.iter().rev().take(TOLD).rev().cloned());
    error.help(format!("criu's log is {}", log.display()))
}

fn command(program: &Path, words: Vec<String>) -> Command {
    let args = std::iter::once("criu".to_owned()).chain(words).collect();
    Command { what: "criu".to_owned(), program: program.to_owned(), args, ..Command::default() }
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

impl EffectDef for DumpProcess {
    const KIND: &'static str = "criu.dump";

    fn examples(scratch: &Path) -> Vec<Self> {
        let (images, log) = (scratch.join("image"), scratch.join("image/dump.log"));
        let (program, process) = ("true".into(), Later::Handle(example_process()));
        vec![Self {
            program,
            words: Vec::new(),
            process,
            images,
            log,
            joined: Vec::new(),
            ends: false,
            pass: Vec::new(),
        }]
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
        let command = Command { pass: self.pass.clone(), ..command(&self.program, self.words(&process)?) };
        self.keep_stdio(&process)?;
        let log = self.log.clone();
        let running = command.start(move |ended| match ended.exit {
            Exit::Code(0) => Ok(Value::Null),
            _ => Err(failed(ended, &log)),
        })?;
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

impl RestoreProcess {
    /// Whoever is in the cgroup that was made for the container.
    fn in_cgroup(&self) -> Result<Vec<Process>, EffectError> {
        let mut pids = BTreeSet::new();
        for dir in self.cgroup.v1.iter().chain(&self.cgroup.v2) {
            let listed = members_of(dir);
            pids.extend(listed.map_err(|e| EffectError::call(format!("list the processes of {}", dir.display()), e))?);
        }
        // One that has ended meanwhile needs no killing.
        Ok(pids.into_iter().filter_map(|pid| Process::of(Pid::from_raw(pid)?).ok()).collect())
    }

    /// The log's name.
    pub(crate) const LOG: &'static str = "restore.log";

    /// Another's namespaces, and the caller's stdio where a pipe was, under the numbers that criu is told.
    fn descriptors(&self) -> Result<(Vec<OwnedFd>, Vec<String>), EffectError> {
        let (mut fds, mut words) = (Vec::new(), Vec::new());
        let mut add = |fd: OwnedFd, name: &str| {
            words.extend(["--inherit-fd".to_owned(), format!("fd[{}]:{name}", fd.as_raw_fd())]);
            fds.push(fd);
        };
        for (kind, path) in &self.joined {
            let file =
                std::fs::File::open(path).map_err(|e| EffectError::call(format!("open({})", path.display()), e))?;
            add(file.into(), &key(*kind));
        }
        for (number, name) in (0..).zip(&self.stdio).filter(|(_, name)| name.starts_with("pipe:")) {
            let own = crate::sys::fd::inherited(number)
                .and_then(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?))
                .map_err(|e| EffectError::call(format!("dup({number})"), e))?;
            add(own, name);
        }
        Ok((fds, words))
    }
}

fn restored(pid_file: &Path) -> Result<Process, EffectError> {
    let read = |what: &str, e: std::io::Error| EffectError::call(format!("{what} {}", pid_file.display()), e);
    let text = std::fs::read_to_string(pid_file).map_err(|e| read("read", e))?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| EffectError::new(format!("criu wrote no process's id but {text:?}")))?;
    Process::of(pid).map_err(|e| read("look at the process of", e))
}

impl EffectDef for RestoreProcess {
    const KIND: &'static str = "criu.restore";

    fn examples(scratch: &Path) -> Vec<Self> {
        let (pid_file, log) = (scratch.join("restored.pid"), scratch.join("restore.log"));
        // It stands for criu: it leaves a process, and says which.
        let script = format!("sleep 60 >/dev/null 2>&1 & echo $! > {}", pid_file.display());
        let words = vec!["-c".to_owned(), script];
        let (dir, version) = super::cgroup::example(scratch);
        let cgroup = match version {
            Version::V1 => CgroupJoin { v1: vec![dir], ..CgroupJoin::default() },
            Version::V2 => CgroupJoin { v2: Some(dir), ..CgroupJoin::default() },
        };
        vec![Self { program: "sh".into(), words, pid_file, log, cgroup, stdio: Vec::new(), joined: Vec::new() }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("bring an image back: {} {}", self.program.display(), self.words.join(" "))
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let (fds, more) = self.descriptors()?;
        let mut words = self.words.clone();
        words.extend(more);
        let pass = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let command = Command { cgroup: self.cgroup.clone(), pass, ..command(&self.program, words) };
        let (pid_file, log) = (self.pid_file.clone(), self.log.clone());
        let running = command.start(move |ended| match ended.exit {
            Exit::Code(0) => {
                let process = restored(&pid_file)?;
                serde_json::to_value(process).map_err(|e| EffectError::new(e.to_string()))
            }
            _ => Err(failed(ended, &log)),
        })?;
        Ok(Applied::Pending(Box::new(running)))
    }

    fn undo(&self, record: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        let gone = leftover::kill(record)?;
        // Cut off before its id was known, it is somewhere in the container's cgroup, with whatever else criu had made by then.
        let left = match record.outcome.as_ref() {
            Some(outcome) => Process::deserialize(outcome).into_iter().collect(),
            None => self.in_cgroup()?,
        };
        for process in left.iter().skip(1) {
            let failed = |e| EffectError::call(format!("kill {process}"), e);
            if let Some(watched) = process.watch().map_err(failed)? {
                watched.signal(Signal::KILL).map_err(failed)?;
            }
        }
        match std::fs::remove_file(&self.pid_file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(EffectError::call(format!("unlink({})", self.pid_file.display()), e));
            }
            _ => {}
        }
        left.first().map_or_else(|| Ok(leftover::gone(gone)), Process::kill)
    }
}
