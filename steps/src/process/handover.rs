//! What a container's init takes over from the engine: its end of the channel, its stdio, and descriptors that can only be opened before it is
//! cut off from the host.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle_engine::effect::{Cx, Fds, Outcomes, RunNames};
use lifecycle_engine::error::{EffectError, PlanError};
use lifecycle_engine::journal::OwnDir;
use lifecycle_engine::site::{REPORT, SiteProgram};
use lifecycle_engine::types::HostPath;
use lifecycle_engine::value::Handle;
use rustix::fs::{FileType, Mode, OFlags, fcntl_setfl, fstat, open};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdin, stdout};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::inside::root::ROOT;
use crate::effects::inside::seal;
use crate::effects::seccomp::LISTENER;
use crate::outcomes::{CgroupJoin, DetachedMount, Fifo};
use crate::spawn::keep_output;
use crate::spec::NamespaceType;
use crate::sys;

/// Descriptors kept under a name with this prefix stay in the engine: no site gets them.
pub(crate) const ENGINE_ONLY: &str = "engine:";
/// The exec FIFO, at which init reads. It is a writer too, and so is never at its end.
pub(crate) const FIFO: &str = "fifo";
/// The FIFO that takes init's failure after it has been started, for writing.
pub(crate) const FIFO_REPORT: &str = "fifo-report";
/// Init's end of the socket that takes the terminal's master.
pub(crate) const CONSOLE: &str = "console";
/// A connection to the agent that the container's seccomp filter notifies.
pub(crate) const AGENT: &str = "seccomp-agent";
/// With a number after it: a file into which `0` is written to join a cgroup.
pub(crate) const CGROUP: &str = "cgroup:";

/// Where a container's input comes from and its output goes, without a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stdio {
    /// The engine's own.
    #[default]
    Inherit,
    /// No input; output is shown line by line under the step's name. Of a run that is kept it goes to a file in the run's directory, which
    /// `lifecycle logs` reads.
    Log,
    /// `/dev/null`.
    Null,
}

/// Who gets the master of the container's terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Console {
    /// The engine, for `console.relay`.
    Engine,
    /// Whoever listens on this unix socket (`--console-socket`).
    Socket(HostPath),
}

impl Console {
    /// Who gets the terminal of a process that has one. Refused as runc does, whose words callers know.
    pub(crate) fn of(terminal: bool, socket: Option<&HostPath>, detached: bool) -> Result<Option<Self>, PlanError> {
        let refused = |what: &str, help: &str| Err(PlanError::new("console_socket", what).help(help));
        match socket {
            Some(_) if !terminal => refused(
                "cannot use console socket if the runtime will not allocate tty: the container has no terminal",
                "set terminal (config.json: process.terminal), or leave the socket out",
            ),
            Some(path) => Ok(Some(Self::Socket(path.clone()))),
            None if !terminal => Ok(None),
            // Whoever detaches ends, and the terminal's master with him.
            None if detached => refused(
                "cannot allocate tty if the runtime will detach without setting console socket",
                "name a socket that takes the terminal, or do not detach",
            ),
            None => Ok(Some(Self::Engine)),
        }
    }

    /// The end that the terminal's master is sent by; the engine's end is kept for the step's `console.relay`.
    pub(crate) fn open(&self, cx: &mut Cx) -> Result<OwnedFd, EffectError> {
        match self {
            Self::Engine => {
                let (engine, end) = channel()?;
                cx.fds.put(console_of(cx.step), engine);
                Ok(end)
            }
            Self::Socket(path) => connect_to(
                path,
                "the console socket must be a unix socket on which somebody listens; it takes the terminal's master",
            ),
        }
    }
}

/// What init is given. Part of the effect that makes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Handover {
    /// Its stdio.
    #[serde(default)]
    pub stdio: Stdio,
    /// Who gets its terminal, if it opens one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<Console>,
    /// How many of the engine's descriptors from 3 on it keeps (`--preserve-fds`).
    #[serde(default)]
    pub preserve_fds: u32,
    /// The cgroup that it joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<CgroupJoin>,
    /// It is cloned into its v2 cgroup, instead of writing itself there.
    #[serde(default)]
    pub into_cgroup: bool,
    /// The FIFO at which it waits for `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fifo: Option<Handle<Fifo>>,
    /// The FIFO by which it then tells of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Handle<Fifo>>,
    /// Mounts that hang nowhere yet, for it to attach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Handle<DetachedMount>>,
    /// The unix socket of the agent that its seccomp filter notifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_agent: Option<HostPath>,
}

/// Both ends of it.
pub(crate) struct Ends {
    /// The engine's end of the channel.
    pub channel: OwnedFd,
    /// The read ends of the output pipes.
    pub output: Vec<OwnedFd>,
    /// What init gets.
    pub init: InitEnds,
}

/// Init's ends.
pub(crate) struct InitEnds {
    channel: OwnedFd,
    /// What is to become its stdio, where that is not the engine's.
    pub stdio: [Option<OwnedFd>; 3],
    kept: Vec<(String, OwnedFd)>,
    preserve: u32,
    /// The v2 cgroup's directory, to be cloned into.
    pub cgroup: Option<OwnedFd>,
    /// The namespaces that it does not share with the engine.
    pub own: Vec<NamespaceType>,
}

impl Handover {
    /// Opens everything. The engine's end of the console's socket is kept under `console_name`.
    pub(crate) fn open(&self, cx: &mut Cx) -> Result<Ends, EffectError> {
        let (channel, init_channel) = channel()?;
        let mut kept = self.console(cx)?;
        kept.extend(self.fifos(cx)?);
        kept.extend(self.agent()?);
        kept.extend(self.cgroup_files()?);
        kept.extend(self.mounts(cx)?);
        let cgroup = match self.cgroup.as_ref().and_then(|c| c.v2.as_ref()) {
            Some(dir) if self.into_cgroup => Some(open_at_path(dir, OFlags::RDONLY | OFlags::DIRECTORY)?),
            _ => None,
        };
        let (stdio, output) = self.stdio(cx)?;
        let init =
            InitEnds { channel: init_channel, stdio, kept, preserve: self.preserve_fds, cgroup, own: Vec::new() };
        Ok(Ends { channel, output, init })
    }

    fn stdio(&self, cx: &Cx) -> Result<([Option<OwnedFd>; 3], Vec<OwnedFd>), EffectError> {
        let null = || open_at_path("/dev/null", OFlags::RDWR);
        Ok(match self.stdio {
            _ if self.console.is_some() => ([Some(null()?), Some(null()?), Some(null()?)], Vec::new()),
            Stdio::Inherit => {
                refuse_directories()?;
                ([None, None, None], Vec::new())
            }
            Stdio::Null => ([Some(null()?), Some(null()?), Some(null()?)], Vec::new()),
            // A pipe that the engine reads would end with it, and the next word with the one who says it.
            Stdio::Log if cx.outlives => {
                let output = kept_output(cx)?;
                let again = output.try_clone().map_err(|e| EffectError::call("dup(its output)", e))?;
                ([Some(null()?), Some(output), Some(again)], Vec::new())
            }
            Stdio::Log => {
                let ((out, out_end), (err, err_end)) = (output_pipe()?, output_pipe()?);
                ([Some(null()?), Some(out_end), Some(err_end)], vec![out, err])
            }
        })
    }

    fn console(&self, cx: &mut Cx) -> Result<Vec<(String, OwnedFd)>, EffectError> {
        let end = self.console.as_ref().map(|console| console.open(cx)).transpose()?;
        Ok(end.map(|end| (CONSOLE.to_owned(), end)).into_iter().collect())
    }

    /// Connected here: the socket is in the engine's mount namespace, and an agent that is not there must not cost a container.
    fn agent(&self) -> Result<Option<(String, OwnedFd)>, EffectError> {
        let help = "linux.seccomp.listenerPath must be a unix socket (SOCK_STREAM) on which the seccomp agent listens";
        let connected = self.seccomp_agent.as_ref().map(|path| connect_to(path, help)).transpose()?;
        Ok(connected.map(|fd| (AGENT.to_owned(), fd)))
    }

    /// Opened here, so that init needs no name of them: their directory is the host's, and so is every procfs that init could open them by.
    fn fifos(&self, cx: &Cx) -> Result<Vec<(String, OwnedFd)>, EffectError> {
        let mut kept = Vec::new();
        if let Some(handle) = &self.fifo {
            kept.push((FIFO.to_owned(), open_fifo(&cx.resolve(handle)?, OFlags::RDWR)?));
        }
        if let Some(handle) = &self.report {
            let fifo = cx.resolve(handle)?;
            // Without a reader, opening it to write would wait for one.
            let reader = open_fifo(&fifo, OFlags::RDONLY | OFlags::NONBLOCK)?;
            kept.push((FIFO_REPORT.to_owned(), open_fifo(&fifo, OFlags::WRONLY)?));
            drop(reader);
        }
        Ok(kept)
    }

    /// The engine's own descriptors for them go: who holds one keeps the file system busy.
    fn mounts(&self, cx: &mut Cx) -> Result<Vec<(String, OwnedFd)>, EffectError> {
        let mut handed_over = Vec::new();
        for handle in &self.mounts {
            let name = cx.resolve(handle)?.name;
            let fd = cx.fds.take(&name).ok_or_else(|| EffectError::new(format!("{handle} is not kept any more")))?;
            handed_over.push((handed(&name), fd));
        }
        Ok(handed_over)
    }

    /// Opened here, because the engine may write to them and the container's root user may not: the kernel asks who opened the file.
    fn cgroup_files(&self) -> Result<Vec<(String, OwnedFd)>, EffectError> {
        let Some(join) = &self.cgroup else { return Ok(Vec::new()) };
        let v1 = join.v1.iter().map(|dir| dir.join("tasks"));
        let v2 = join.v2.iter().filter(|_| !self.into_cgroup).map(|dir| dir.join("cgroup.procs"));
        let open = |(i, path): (usize, PathBuf)| {
            Ok((format!("{CGROUP}{i}"), open_at_path(&path, OFlags::WRONLY | OFlags::NOFOLLOW)?))
        };
        v1.chain(v2).enumerate().map(open).collect()
    }
}

/// The name under which the engine keeps its end of the socket that the container's terminal comes by.
pub(crate) fn console_of(step: &str) -> String {
    format!("{ENGINE_ONLY}console:{step}")
}

/// The name under which init has what the engine kept under `name`.
pub(crate) fn handed(name: &str) -> String {
    name.trim_start_matches(ENGINE_ONLY).to_owned()
}

fn open_fifo(fifo: &Fifo, flags: OFlags) -> Result<OwnedFd, EffectError> {
    let path = fifo.path.display();
    let fd = open_at_path(&fifo.path, flags | OFlags::NOFOLLOW)?;
    let stat = fstat(&fd).map_err(|e| EffectError::call(format!("fstat({path})"), e))?;
    let ours = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo
        && (stat.st_dev, stat.st_ino) == (fifo.device, fifo.inode);
    if ours { Ok(fd) } else { Err(EffectError::new(format!("{path} is not the FIFO that this run made"))) }
}

/// A directory as standard input would be the host's, open in the container.
fn refuse_directories() -> Result<(), EffectError> {
    let streams = [("input", stdin()), ("output", stdout()), ("error", stderr())];
    let is_directory =
        |fd: BorrowedFd| fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    streams.into_iter().find(|(_, fd)| is_directory(*fd)).map_or(Ok(()), |(name, _)| {
        Err(EffectError::new(format!("standard {name} is a directory"))
            .help("the container could leave its root by it; give it a file, a pipe or a terminal"))
    })
}

/// What may still be open in a process that has left the host's root: sockets, FIFOs, and directories of the container's own. Nothing in
/// it leads out.
const INSIDE: [&str; 7] = [ROOT, FIFO, FIFO_REPORT, REPORT, CONSOLE, AGENT, LISTENER];

/// The one place where a process lets go of the host's files (CVE-2024-21626). From here on no descriptor in it, but those that its caller asked
/// to be preserved, leads out of the container's root: neither for a path of the image's, nor for a process of the container that may look into
/// its /proc directory. A process that enters a container has never had one: see `effects/stage.rs`.
pub(crate) fn leave_host(fds: &mut Fds) {
    let unsealed = seal::take(fds);
    fds.keep_only(&INSIDE);
    for (name, mount) in unsealed {
        fds.put(name, mount);
    }
}

/// What a process prints that outlives its engine goes to a file in the run's directory.
fn kept_output(cx: &Cx) -> Result<OwnedFd, EffectError> {
    let name = RunNames::output_of(cx.step);
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    let open = OwnDir::of(cx.run).and_then(|dir| dir.open(&name, flags));
    let file = open.map_err(|e| EffectError::new(format!("open {}: {e}", cx.run.dir().join(&name).display())))?;
    keep_output(file).map(|(pipe, _)| pipe)
}

/// A pipe whose read end does not block: the engine has other things to do. The write end does, as programs expect.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), EffectError> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| EffectError::call("pipe2(O_CLOEXEC)", e))?;
    fcntl_setfl(&read, OFlags::NONBLOCK).map_err(|e| EffectError::call("fcntl(F_SETFL, O_NONBLOCK)", e))?;
    Ok((read, write))
}

fn channel() -> Result<(OwnedFd, OwnedFd), EffectError> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| EffectError::call("socketpair(AF_UNIX, SOCK_STREAM)", e))
}

/// How long somebody may take to accept a connection, whose queue is full.
const ACCEPTED: Duration = Duration::from_secs(2);

/// Connects to the unix socket on which somebody listens; `help` says who that has to be.
pub(crate) fn connect_to(path: &HostPath, help: &str) -> Result<OwnedFd, EffectError> {
    let failed = |e| EffectError::call(format!("connect({path})"), e).help(help);
    let address = SocketAddrUnix::new(&path.0).map_err(failed)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|e| EffectError::call("socket(AF_UNIX, SOCK_STREAM)", e))?;
    // The one limit that connect(2) knows here, unix(7).
    let limit = |time| set_socket_timeout(&socket, Timeout::Send, time).map_err(|e| EffectError::call("setsockopt", e));
    limit(Some(ACCEPTED))?;
    connect(&socket, &address).map_err(failed)?;
    limit(None)?;
    Ok(socket)
}

fn open_at_path(path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, EffectError> {
    let path = path.as_ref();
    open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
        .map_err(|e| EffectError::call(format!("open({})", path.display()), e))
}

/// Closes what is the engine's alone.
pub(crate) fn drop_engines(fds: &mut Fds) {
    let engines: Vec<String> = fds.iter().map(|(n, _)| n.to_owned()).filter(|n| n.starts_with(ENGINE_ONLY)).collect();
    for name in &engines {
        fds.take(name);
    }
}

impl InitEnds {
    /// The descriptors that the process needs.
    pub(crate) fn raw(&self) -> Vec<RawFd> {
        let stdio = self.stdio.iter().flatten().chain(self.cgroup.iter()).chain([&self.channel]);
        stdio
            .chain(self.kept.iter().map(|(_, fd)| fd))
            .map(AsRawFd::as_raw_fd)
            .chain(3..3 + self.preserve as RawFd)
            .collect()
    }

    /// The life of init, from the clone to exec: takes over its descriptors, closes all others, and runs the site's program. Answers with the
    /// exit code.
    pub(crate) fn live(self, site: Option<&SiteProgram>, fds: &mut Fds, outcomes: &Outcomes, conceal: bool) -> i32 {
        match self.take_over(std::mem::take(fds), conceal) {
            Ok((channel, fds)) => match site {
                Some(site) => site.serve(channel, fds, outcomes.clone()),
                None => wait_for_end(&channel),
            },
            // The engine sees the channel's end, and has nothing to undo but this process.
            Err(_) => 1,
        }
    }

    fn take_over(self, mut fds: Fds, conceal: bool) -> io::Result<(OwnedFd, Fds)> {
        if conceal {
            super::credentials::conceal()?;
        }
        // SIGPIPE stays ignored, as the engine has it: a channel whose other end is gone must be an error, not a death.
        sys::signal::reset(Some(Signal::PIPE))?;
        drop_engines(&mut fds);
        let mut keep = self.raw();
        keep.extend(fds.iter().map(|(_, fd)| fd.as_raw_fd()));
        self.wear_stdio()?;
        sys::child::close_all_but(&keep)?;
        for namespace in &self.own {
            fds.mark(namespace.file());
        }
        for (name, fd) in self.kept {
            fds.put(name, fd);
        }
        Ok((self.channel, fds))
    }

    fn wear_stdio(&self) -> io::Result<()> {
        let wear: [fn(BorrowedFd) -> rustix::io::Result<()>; 3] =
            [|fd| dup2_stdin(fd), |fd| dup2_stdout(fd), |fd| dup2_stderr(fd)];
        for (fd, dup2) in self.stdio.iter().zip(wear) {
            if let Some(fd) = fd {
                dup2(fd.as_fd())?;
            }
        }
        Ok(())
    }
}

/// A process without a program only holds its namespaces, until the engine closes the channel.
fn wait_for_end(channel: &OwnedFd) -> i32 {
    let mut line = [0; 64];
    loop {
        match rustix::io::retry_on_intr(|| rustix::io::read(channel, &mut line)) {
            Ok(0) => return 0,
            Ok(_) => {}
            Err(_) => return 1,
        }
    }
}
