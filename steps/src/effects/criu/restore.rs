//! Bringing an image back: in two effects, since the hooks of a container run between them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Said, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rpc::{Answer, Heard, Request, Talk};
use super::{check_named, command, explained, key, litter, make_work};
use crate::effects::cgroup::{Version, members_of};
use crate::effects::placed::Identity;
use crate::effects::{console, example_process};
use crate::outcomes::{CgroupJoin, Process};
use crate::process::{Console, Watched};
use crate::spawn::command::Left;
use crate::spawn::output::Stream;
use crate::spawn::{Command, Exit, Running, identity, leftover};
use crate::spec::NamespaceType;

/// Brings the first process of an image back: alone, in namespaces that are still empty. criu waits there until [`FinishRestore`] lets it go on.
///
/// Its outcome is criu, and the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginRestore {
    /// criu.
    pub program: PathBuf,
    /// What it is told, in words of its command line.
    pub words: Vec<String>,
    /// A directory that is made for the log and temporary files, and stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<PathBuf>,
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
    /// Who gets the terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<Console>,
}

/// Lets criu fill the namespaces and the process, and waits until all processes of the image run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishRestore {
    /// The process that [`BeginRestore`] has made.
    pub process: Handle<Process>,
    /// criu's log.
    pub log: PathBuf,
}

/// What [`BeginRestore`] leaves running.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    criu: Process,
    init: Process,
    /// What criu removes when it ends, unless it is killed.
    #[serde(default)]
    litter: Option<Identity>,
}

/// The descriptors that one effect leaves to the other.
const CRIU: &str = "criu";
const STDOUT: &str = "criu/stdout";
const STDERR: &str = "criu/stderr";
/// The engine's end of the socket, at which criu waits for an answer.
const SOCKET: &str = "criu/socket";
/// Where the terminal goes.
const CONSOLE: &str = "criu/console";
/// The stage in which the first process and its namespaces are there, and nothing else.
const NAMESPACES: &str = "setup-namespaces";

impl BeginRestore {
    /// The log's name.
    pub(crate) const LOG: &'static str = "restore.log";

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
        // The image says what its stdio was, and its list may be longer: behind the caller's stdio come descriptors of the engine.
        for (number, name) in (0..3).zip(&self.stdio).filter(|(_, name)| is_pipe(name)) {
            let own = crate::sys::fd::inherited(number)
                .and_then(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?))
                .map_err(|e| EffectError::call(format!("dup({number})"), e))?;
            add(own, name);
        }
        Ok((fds, words))
    }
}

/// Whether it is what procfs calls a pipe. criu takes any name of a file here.
fn is_pipe(name: &str) -> bool {
    let inode = name.strip_prefix("pipe:[").and_then(|rest| rest.strip_suffix(']'));
    inode.is_some_and(|inode| !inode.is_empty() && inode.bytes().all(|byte| byte.is_ascii_digit()))
}

impl EffectDef for BeginRestore {
    const KIND: &'static str = "criu.begin";

    fn examples(scratch: &Path) -> Vec<Self> {
        // It stands for criu: it makes a process, tells of it as criu does, and waits.
        let program = scratch.join("criu");
        let words = ["restore", "--images-dir", &scratch.to_string_lossy()].map(str::to_owned).to_vec();
        let (dir, version) = crate::effects::cgroup::example(scratch);
        let cgroup = match version {
            Version::V1 => CgroupJoin { v1: vec![dir], ..CgroupJoin::default() },
            Version::V2 => CgroupJoin { v2: Some(dir), ..CgroupJoin::default() },
        };
        let log = scratch.join("restore.log");
        let (stdio, joined) = (Vec::new(), Vec::new());
        vec![Self { program, words, work: None, log, cgroup, stdio, joined, console: Some(Console::Engine) }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let terminal = match &self.console {
            None => String::new(),
            Some(Console::Engine) => "; terminal kept for the engine".to_owned(),
            Some(Console::Socket(path)) => format!("; terminal sent to {path}"),
        };
        format!("begin to bring an image back: {} {}{terminal}", self.program.display(), self.words.join(" "))
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        check_named(&self.program)?;
        let console = self.console.as_ref().map(|console| console.open(cx)).transpose()?;
        let mut words = self.words.clone();
        let (fds, more) = self.descriptors()?;
        words.extend(more);
        make_work(self.work.as_deref())?;
        let (talk, end) = Talk::begin(Request::of(&words)?)?;
        // A job of the caller's shell gets criu's own stdin for its terminal.
        let own_stdin = words.iter().any(|word| word == "--shell-job");
        let mut command =
            Command { cgroup: self.cgroup.clone(), own_stdin, new_keyring: true, ..command(&self.program, &end) };
        command.pass.extend(fds.iter().map(AsRawFd::as_raw_fd));
        let running = command.start(move |ended| match ended.exit {
            Exit::Code(0) => Err(EffectError::new("criu has ended without a word of the process")),
            _ => Err(ended.error()),
        })?;
        if let Some(console) = console {
            cx.fds.put(CONSOLE, console);
        }
        let log = self.log.clone();
        Ok(Applied::Pending(Box::new(Beginning { running: Some(running), talk: Some(talk), said: None, log })))
    }

    /// criu is given the time to take back what it has begun, such as mounts of its own.
    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        forget(cx);
        let begun = record.outcome.as_ref().and_then(|outcome| Begun::deserialize(outcome).ok());
        let started = || Process::deserialize(record.started.as_ref().filter(|started| !started.is_null())?).ok();
        let (criu, made) = match begun {
            Some(Begun { criu, init, litter }) => (Some(criu), Some((init, litter))),
            None => (started(), None),
        };
        let found =
            criu.as_ref().map(|criu| Ok::<_, EffectError>((identity::find(criu)?, criu.clone()))).transpose()?;
        match found {
            Some((Some(watched), criu)) => {
                let until = Instant::now() + PATIENCE;
                let effect = self.clone();
                Ok(Undone::Pending(Box::new(Leaving { effect, made, criu, watched, until: Some(until), gone: None })))
            }
            _ => self.end(made),
        }
    }
}

/// How long criu may take to stop by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Closes what criu waits at, which tells it to stop.
fn forget(cx: &mut Cx) {
    for name in [CRIU, SOCKET, CONSOLE, STDOUT, STDERR] {
        drop(cx.fds.take(name));
    }
}

impl BeginRestore {
    /// Kills what criu has made, and says what to wait for. Cut off before the first process's id was known, that is somewhere in the container's
    /// cgroup, with whatever else criu had made by then.
    fn end(&self, made: Option<(Process, Option<Identity>)>) -> Result<Undone, EffectError> {
        let (left, litter) = match made {
            Some((init, litter)) => (vec![init], litter),
            None => (self.in_cgroup()?, litter::found(&self.log)),
        };
        let mut gone = Vec::new();
        for process in left {
            let failed = |e| EffectError::call(format!("kill {process}"), e);
            if let Some(watched) = process.watch().map_err(failed)? {
                watched.signal(Signal::KILL).map_err(failed)?;
                gone.push(watched);
            }
        }
        litter.iter().try_for_each(litter::remove)?;
        Ok(leftover::gone(gone))
    }
}

/// Until criu has ended, by itself or not, and then its processes.
struct Leaving {
    effect: BeginRestore,
    made: Option<(Process, Option<Identity>)>,
    criu: Process,
    watched: Watched,
    /// When it is killed; none if it has been.
    until: Option<Instant>,
    gone: Option<Box<dyn Pending>>,
}

impl Pending for Leaving {
    fn interest(&self, wants: &mut Vec<Interest>) {
        match &self.gone {
            Some(gone) => gone.interest(wants),
            None => wants.push(self.watched.interest()),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.until.filter(|_| self.gone.is_none())
    }

    fn advance(&mut self, cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        if let Some(gone) = &mut self.gone {
            return gone.advance(cx);
        }
        if self.watched.is_dead()? {
            self.watched.reap()?;
            return match self.effect.end(self.made.take())? {
                Undone::Pending(gone) => self.gone.insert(gone).advance(cx),
                _ => Ok(Some(Value::Null)),
            };
        }
        if self.until.is_some_and(|until| until <= Instant::now()) {
            self.until = None;
            identity::kill(&self.criu)?;
        }
        Ok(None)
    }

    // It is tried again, from the beginning.
    fn cancel(&mut self, _: &mut Cx) {}
}

/// Until criu tells of the process.
struct Beginning {
    running: Option<Running>,
    /// None once criu has closed its end.
    talk: Option<Talk>,
    /// Its first error.
    said: Option<String>,
    log: PathBuf,
}

impl Beginning {
    /// The process's id, once criu has come to where it waits for the hooks.
    fn told(&mut self) -> Result<Option<Pid>, EffectError> {
        while let Some(talk) = &self.talk {
            match talk.hear()? {
                Heard::Nothing => return Ok(None),
                Heard::End => self.talk = None,
                Heard::Answer(Answer { stage: Some(stage), pid, .. }) if stage == NAMESPACES => {
                    let pid = pid.and_then(Pid::from_raw);
                    return pid.map(Some).ok_or_else(|| EffectError::new("criu told no process's id"));
                }
                Heard::Answer(answer) if answer.waits() => talk.go_on()?,
                Heard::Answer(answer) => self.said = answer.error,
            }
        }
        Ok(None)
    }

    fn running(&mut self) -> Result<&mut Running, EffectError> {
        self.running.as_mut().ok_or_else(|| EffectError::new("criu has been left to another effect"))
    }
}

impl Pending for Beginning {
    fn started(&self) -> Value {
        self.running.as_ref().map_or(Value::Null, Pending::started)
    }

    fn release(&mut self, cx: &mut Cx) -> Result<(), EffectError> {
        self.running()?.release(cx)
    }

    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.extend(self.talk.as_ref().map(Talk::interest));
        if let Some(running) = &self.running {
            running.interest(wants);
        }
    }

    fn advance(&mut self, cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        let Some(pid) = self.told()? else {
            let ended = self.running()?.advance(cx);
            return ended.map_err(|error| explained(error, &self.log, None, self.said.take()));
        };
        let init = identity::identify(pid)?;
        let (criu, litter) = (self.started(), litter::found(&self.log));
        let (Some(running), Some(talk)) = (self.running.take(), self.talk.take()) else { return Ok(None) };
        let left = running.leave().map_err(|e| EffectError::call("dup(pidfd of criu)", e))?;
        keep(left, cx);
        cx.fds.put(SOCKET, talk.into_socket());
        Ok(Some(json!({ "criu": criu, "init": init, "litter": litter })))
    }

    /// It is not killed: undo lets it take back what it has begun.
    fn cancel(&mut self, cx: &mut Cx) {
        self.talk = None;
        if let Some(Ok(left)) = self.running.take().map(Running::leave) {
            keep(left, cx);
        }
    }
}

fn keep(left: Left, cx: &mut Cx) {
    cx.fds.put(CRIU, left.pidfd);
    for (name, pipe) in [(STDOUT, left.stdout), (STDERR, left.stderr)] {
        if let Some(pipe) = pipe {
            cx.fds.put(name, pipe);
        }
    }
}

impl EffectDef for FinishRestore {
    const KIND: &'static str = "criu.finish";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { process: example_process(), log: scratch.join("restore.log") }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("let criu bring back all of {}", self.process)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let mut taken = |name: &str| {
            cx.fds
                .take(name)
                .ok_or_else(|| EffectError::new(format!("nobody has begun to bring {} back", self.process)))
        };
        let (pidfd, talk) = (taken(CRIU)?, Talk::resume(taken(SOCKET)?));
        talk.go_on()?;
        let streams = [STDOUT, STDERR].into_iter().filter_map(|name| cx.fds.take(name));
        let streams = streams.map(|pipe| Stream::new(pipe, false)).collect();
        let (console, log) = (cx.fds.take(CONSOLE), self.log.clone());
        Ok(Applied::Pending(Box::new(Finishing {
            pidfd,
            streams,
            talk: Some(talk),
            console,
            restored: false,
            said: None,
            log,
        })))
    }

    /// The processes go with the first of them.
    fn undo(&self, _: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        forget(cx);
        Ok(Undone::Done)
    }
}

/// Until criu has ended.
struct Finishing {
    pidfd: OwnedFd,
    streams: Vec<Stream>,
    /// None once criu has closed its end.
    talk: Option<Talk>,
    console: Option<OwnedFd>,
    restored: bool,
    /// Its first error.
    said: Option<String>,
    log: PathBuf,
}

impl Finishing {
    /// Answers what criu says at each stage.
    fn converse(&mut self) -> Result<(), EffectError> {
        while let Some(talk) = &self.talk {
            match talk.hear()? {
                Heard::Nothing => return Ok(()),
                Heard::End => self.talk = None,
                Heard::Answer(answer) if answer.waits() => {
                    if let Some(master) = answer.descriptor {
                        self.hand_out(&master)?;
                    }
                    talk.go_on()?;
                }
                Heard::Answer(answer) => (self.restored, self.said) = (answer.success, answer.error),
            }
        }
        Ok(())
    }

    /// Sends the terminal where it is waited for. criu has a copy until it is told to go on, and nobody else.
    fn hand_out(&self, master: &OwnedFd) -> Result<(), EffectError> {
        let console = self.console.as_ref().ok_or_else(|| {
            EffectError::new("a process of the image has a terminal, and there is nobody to send it to")
                .help("set process.terminal in config.json")
        })?;
        console::send(console, master)
    }
}

impl Pending for Finishing {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(Interest::read(self.pidfd.as_raw_fd()));
        wants.extend(self.talk.as_ref().map(Talk::interest));
        wants.extend(self.streams.iter().filter_map(Stream::fd).map(Interest::read));
    }

    fn advance(&mut self, cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        for stream in &mut self.streams {
            stream
                .read(&mut |line| (cx.output)(Said::Line(&line)))
                .map_err(|e| EffectError::call("read(output of criu)", e))?;
        }
        // Whether it has ended is asked first: then all that it has said is there to be heard.
        let exit = crate::spawn::child::exit_of(self.pidfd.as_fd())?;
        self.converse()?;
        match exit {
            None => Ok(None),
            Some(Exit::Code(0)) if self.restored => {
                forget(cx);
                Ok(Some(Value::Null))
            }
            Some(exit) => Err(explained(EffectError::new(format!("criu {exit}")), &self.log, None, self.said.take())),
        }
    }

    // What is left of it ends with the effect that began it.
    fn cancel(&mut self, _: &mut Cx) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fstat;

    #[test]
    fn an_image_gets_no_descriptor_but_the_callers_stdio() {
        let scratch = tempfile::tempdir().unwrap();
        let file = std::fs::File::open(scratch.path()).unwrap();
        let open = file.as_raw_fd() as usize;
        let restore = |stdio: Vec<String>| BeginRestore { stdio, ..BeginRestore::examples(scratch.path()).remove(0) };
        let all: Vec<String> = (0..=open.max(8)).map(|n| format!("pipe:[{n}]")).collect();
        let (fds, words) = restore(all).descriptors().unwrap();
        let names: Vec<&str> = words.iter().filter_map(|word| word.split_once("]:")).map(|(_, name)| name).collect();
        assert_eq!(names, ["pipe:[0]", "pipe:[1]", "pipe:[2]"]);
        for (number, fd) in fds.iter().enumerate() {
            let own = crate::sys::fd::inherited(number as i32).unwrap();
            let (given, own) = (fstat(fd).unwrap(), fstat(own).unwrap());
            assert_eq!((given.st_dev, given.st_ino), (own.st_dev, own.st_ino), "{number}");
        }
        // No other name of the image's choice: it would stand for another file.
        let odd = ["pipe:x", "pipe:[1]/../etc", "pipe:[]"].map(str::to_owned).to_vec();
        assert!(restore(odd).descriptors().unwrap().1.is_empty());
    }
}
