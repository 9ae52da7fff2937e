//! The process that comes before init where one clone is not enough: namespaces are joined by path, or a time namespace is set up.
//!
//! setns(2) into a pid namespace, and a new time namespace, take effect for children only; and a namespace that the caller's user namespace owns
//! must be joined before that is left, one that the new user namespace owns after it is entered. So the stage does, in this order: join what
//! the caller's user namespace owns; make the user namespace; wait (for its id maps, and what else is written about it); enter a user namespace
//! that is there already; join the rest; set up the time namespace; clone init as its own sibling; exit. It holds nothing that outlives it, and goes when the engine does.
//!
//! Init is seen by whoever is in the pid namespace that it is cloned into, from its first moment on, and those who have CAP_SYS_PTRACE over it may
//! use every descriptor in it. So by then the stage holds none that leads to the host: no directory of a file system or of a procfs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Fds, Outcomes, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::site::SiteProgram;
use lifecycle_engine::value::{Handle, Later};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags, fstat, open, openat, stat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clone::{CloneInit, end, flags, refused};
use super::wait::resolve;
use crate::mounts::Bind;
use crate::mounts::api::clone_tree;
use crate::outcomes::Process;
use crate::process::credentials::{conceal, enter_namespace};
use crate::process::{
    ENGINE_ONLY, Handover, InitEnds, Stdio, Watched, drop_engines, leave_hosts_null, replace_hosts_null,
};
use crate::spec::{Namespace, NamespaceType, TimeOffset};
use crate::sys;
use crate::sys::clone::Clone;
use crate::sys::mount::{MountAttr, RDONLY, mount_setattr};

/// How long the stage may take for what it was told. Every call that it makes answers at once; a namespace file on a dead file system does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the stage process; it joins and makes what it can without id maps. Undo kills it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stage {
    /// The namespaces to join, with their paths.
    pub join: Vec<Namespace>,
    /// The process whose namespaces they are, instead of those at the paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Later<Process>>,
    /// It makes a user namespace, whose id maps a later effect writes.
    pub new_user: bool,
    /// It makes a time namespace with these offsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<BTreeMap<String, TimeOffset>>,
    /// What init is given.
    pub handover: Handover,
}

impl EffectDef for Stage {
    const KIND: &'static str = "stage";

    fn examples(_: &Path) -> Vec<Self> {
        let handover = Handover { stdio: Stdio::Null, ..Handover::default() };
        let own = Namespace { kind: NamespaceType::Uts, path: Some("/proc/self/ns/uts".into()) };
        vec![
            Self { join: vec![own], of: None, new_user: false, time: None, handover: handover.clone() },
            Self { join: Vec::new(), of: None, new_user: true, time: Some(BTreeMap::new()), handover },
        ]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let path = |n: &Namespace| match (&self.of, &n.path) {
            (Some(process), _) => format!(" of {process}"),
            (None, Some(path)) => format!(" {}", path.display()),
            (None, None) => String::new(),
        };
        let mut does: Vec<String> = self.join.iter().map(|n| format!("joins {}{}", n.kind.name(), path(n))).collect();
        if self.new_user {
            does.push("makes a user namespace".into());
        }
        if let Some(offsets) = &self.time {
            let offsets: Vec<String> =
                offsets.iter().map(|(c, o)| format!(" {c} {}.{:09}s", o.secs, o.nanosecs)).collect();
            does.push(format!("makes a time namespace{}", offsets.join(",")));
        }
        format!("stage process: {}{}", does.join("; "), self.handover.describe())
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let joins = self.open_joins(cx)?;
        let ends = self.handover.open(cx)?;
        let (engine, stage) = UnixStream::pair().map_err(|e| EffectError::call("socketpair(AF_UNIX)", e))?;
        let (site, outcomes) = (cx.site.take(), cx.outcomes);
        let fds = &mut *cx.fds;
        let work = Work { effect: self, joins, late: None, offsets: None, init: ends.init, talk: stage };
        let child = Clone::default().spawn(move || work.run(site, fds, outcomes)).map_err(|e| refused(&[], e))?;
        let watched = Watched::new(child.pidfd);
        let keep = |process: Process, cx: &mut Cx| Talk::keep(engine, ends.channel, ends.output, &process, cx);
        match Process::of(child.pid) {
            Ok(process) => keep(process.clone(), cx).and_then(|()| Applied::outcome(&process)),
            Err(e) => Err(EffectError::call(format!("read /proc/{}/stat", child.pid), e)),
        }
        .inspect_err(|_| {
            // The error that is reported is the first one; a stage that cannot be killed goes with the socket.
            let _ = watched.end();
        })
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        Talk::forget(cx);
        record.outcome::<Process>().map_or(Ok(Undone::Done), |stage| end(&stage, cx))
    }
}

/// A namespace to join.
struct Join {
    kind: NamespaceType,
    path: String,
    fd: OwnedFd,
    /// The engine's own user namespace owns it.
    early: bool,
    /// It is not the engine's own.
    other: bool,
}

impl Join {
    fn enter(&self) -> Result<(), Errno> {
        enter_namespace(&self.fd, CloneFlags::from_bits_retain(self.kind.flag()))
    }

    fn refused(&self, errno: Errno) -> EffectError {
        EffectError::call(format!("setns({}, {})", self.path, self.kind.flag_name()), errno).help(match errno {
            Errno::INVAL => "the file is no namespace of this type",
            _ => "joining it needs CAP_SYS_ADMIN in the user namespace that owns it",
        })
    }
}

impl Stage {
    fn open_joins(&self, cx: &Cx) -> Result<Vec<Join>, EffectError> {
        let of = self.of.as_ref().map(|of| resolve(of, cx)).transpose()?;
        let of = of.as_ref().map(directory).transpose()?;
        let id = |fd: &OwnedFd| fstat(fd).map(|s| (s.st_dev, s.st_ino));
        let engines = |kind: NamespaceType| {
            let path = format!("/proc/self/ns/{}", kind.file());
            stat(&path).map(|s| (s.st_dev, s.st_ino)).map_err(|e| EffectError::call(format!("stat({path})"), e))
        };
        let own = engines(NamespaceType::User)?;
        let mut joins = Vec::new();
        for namespace in &self.join {
            let path = match (&of, &namespace.path) {
                (Some(_), _) => format!("ns/{}", namespace.kind.file()),
                (None, path) => path.as_ref().map_or_else(String::new, |p| p.display().to_string()),
            };
            let failed = |e: Errno| {
                EffectError::call(format!("open({path})"), e)
                    .help("a namespace is joined by a file such as /proc/PID/ns/net or /run/netns/NAME")
            };
            // The directory of a process stands for that very process: once it has ended, nothing in it opens.
            let dir = of.as_ref().map_or(CWD, AsFd::as_fd);
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
            let fd = openat(dir, &path, flags, Mode::empty()).map_err(failed)?;
            // Its own user namespace is there already, and the kernel refuses to enter it again.
            let other = id(&fd).map_err(failed)? != engines(namespace.kind)?;
            if namespace.kind == NamespaceType::User && !other {
                continue;
            }
            let owner = sys::namespace::owner(fd.as_fd()).ok().and_then(|owner| id(&owner).ok());
            let early = namespace.kind != NamespaceType::User && owner == Some(own);
            joins.push(Join { kind: namespace.kind, path, fd, early, other });
        }
        Ok(joins)
    }
}

/// The directory in /proc of a process whose namespaces are to be joined.
fn directory(of: &Process) -> Result<OwnedFd, EffectError> {
    let found = of.directory().map_err(|e| EffectError::call(format!("open(/proc/{})", of.pid), e))?;
    found.ok_or_else(|| EffectError::new(format!("{of}, whose namespaces were to be joined, has ended")))
}

/// What the stage process tells the engine.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    /// The first half is done.
    Ready,
    /// Init is there, by its id in the engine's pid namespace.
    Made(i32),
    /// It failed, and exits.
    Failed(EffectError),
}

/// The stage process's own side.
struct Work<'a> {
    effect: &'a Stage,
    joins: Vec<Join>,
    /// What init joins itself, once it is in its cgroup.
    late: Option<Join>,
    /// `/proc/self/timens_offsets`, opened while /proc is the host's.
    offsets: Option<OwnedFd>,
    init: InitEnds,
    talk: UnixStream,
}

impl Work<'_> {
    fn run(mut self, site: Option<SiteProgram>, fds: &mut Fds, outcomes: &Outcomes) -> i32 {
        if self.prepare(fds).is_err() {
            return 1;
        }
        if let Err(error) = self.first_half() {
            return self.tell(&Told::Failed(error), 1);
        }
        self.tell(&Told::Ready, 0);
        let mut flags = String::new();
        // End of file: the engine is gone.
        let Ok(1..) = BufReader::new(&self.talk).take(64).read_line(&mut flags) else { return 1 };
        let Ok(namespaces) = flags.trim_end().parse() else { return 1 };
        if let Err(error) = self.second_half() {
            return self.tell(&Told::Failed(error), 1);
        }
        self.clone_init(namespaces, site, fds, outcomes)
    }

    fn prepare(&self, fds: &mut Fds) -> std::io::Result<()> {
        // Whoever is in the pid namespace that init is cloned into would read them: `--env` of an exec.
        sys::arguments::forget()?;
        sys::signal::reset(Some(Signal::PIPE))?;
        let mut keep: Vec<RawFd> = self.init.raw();
        keep.extend(self.joins.iter().map(|j| j.fd.as_raw_fd()));
        // What is closed below must have no owner who closes it once more.
        drop_engines(fds);
        keep.extend(fds.iter().map(|(_, fd)| fd.as_raw_fd()));
        keep.push(self.talk.as_raw_fd());
        sys::child::close_all_but(&keep)
    }

    fn first_half(&mut self) -> Result<(), EffectError> {
        self.settle_cgroup()?;
        self.open_offsets()?;
        self.join(|j| j.early)?;
        if self.effect.new_user {
            unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| refused(&[NamespaceType::User], e.into()))?;
        }
        Ok(())
    }

    /// On a hierarchy that is mounted nsdelegate, as systemd mounts it, nobody may clone into a cgroup from without it once he is in its cgroup
    /// namespace. So init joins that itself; where it could not any more, since it is in another user namespace then, the stage goes into the
    /// cgroup first.
    fn settle_cgroup(&mut self) -> Result<(), EffectError> {
        let Some(dir) = self.init.cgroup.take() else { return Ok(()) };
        let changes_user = self.effect.new_user || self.joins.iter().any(|j| j.kind == NamespaceType::User);
        let joined = self.joins.iter().position(|j| j.kind == NamespaceType::Cgroup);
        if !joined.is_some_and(|at| changes_user && self.joins[at].early) {
            self.late = joined.map(|at| self.joins.remove(at));
            self.init.cgroup = Some(alone(dir)?);
            return Ok(());
        }
        openat(&dir, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| rustix::io::write(file, b"0"))
            .map(drop)
            .map_err(|e| EffectError::call("write(cgroup.procs, \"0\")", e))
    }

    fn open_offsets(&mut self) -> Result<(), EffectError> {
        let wanted = self.effect.time.as_ref().is_some_and(|offsets| !offsets.is_empty());
        let path = "/proc/self/timens_offsets";
        let open = || open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        self.offsets = wanted.then(open).transpose().map_err(|e| EffectError::call(format!("open({path})"), e))?;
        Ok(())
    }

    fn second_half(&mut self) -> Result<(), EffectError> {
        // Nothing is written into its /proc directory any more, and whoever is in a joined namespace may look at it from here on.
        conceal().map_err(|e| EffectError::call("prctl(PR_SET_DUMPABLE, 0)", e))?;
        self.join(|j| j.kind == NamespaceType::User)?;
        self.join(|j| !j.early && j.kind != NamespaceType::User)?;
        if self.joins.iter().any(|join| join.other && join.kind == NamespaceType::Mount) {
            leave_hosts_null()?;
            replace_hosts_null(&mut self.init.stdio)?;
        }
        if let Some(offsets) = &self.effect.time {
            self.make_time(offsets)?;
        }
        self.offsets = None;
        Ok(())
    }

    fn join(&self, wanted: impl Fn(&Join) -> bool) -> Result<(), EffectError> {
        self.joins.iter().filter(|j| wanted(j)).try_for_each(|join| join.enter().map_err(|e| join.refused(e)))
    }

    fn make_time(&self, offsets: &BTreeMap<String, TimeOffset>) -> Result<(), EffectError> {
        unshare(CloneFlags::from_bits_retain(nix::libc::CLONE_NEWTIME))
            .map_err(|e| refused(&[NamespaceType::Time], e.into()))?;
        let Some(file) = &self.offsets else { return Ok(()) };
        let lines =
            offsets.iter().map(|(c, o)| format!("{c} {} {}\n", o.secs, o.nanosecs)).collect::<Vec<_>>().concat();
        rustix::io::write(file, lines.as_bytes()).map(drop).map_err(|e| {
            EffectError::call(format!("write(/proc/self/timens_offsets, {lines:?})"), e)
                .help("offsets need CAP_SYS_TIME, and no clock may come out negative or beyond 146 years")
        })
    }

    fn clone_init(mut self, namespaces: u64, site: Option<SiteProgram>, fds: &mut Fds, outcomes: &Outcomes) -> i32 {
        let cgroup = self.init.cgroup.take();
        let clone = Clone { namespaces, sibling: true, cgroup: cgroup.as_ref().map(AsFd::as_fd) };
        let joined = self.joins.drain(..).filter(|join| join.other).map(|join| join.kind);
        self.init.own = joined.chain(NamespaceType::in_flags(namespaces)).collect();
        if self.effect.new_user {
            self.init.own.push(NamespaceType::User);
        }
        let (init, late) = (self.init, self.late);
        let joined = late.as_ref().map(|_| pipe_with(PipeFlags::CLOEXEC)).transpose();
        let (heard, tell) = match joined {
            Ok(pipe) => pipe.unzip(),
            Err(e) => {
                send(&mut self.talk, &Told::Failed(EffectError::call("pipe2(O_CLOEXEC)", e)));
                return 1;
            }
        };
        // It is concealed as the stage is.
        let child = clone.spawn(|| {
            if let (Some(late), Some(tell)) = (&late, &tell)
                && let Err(errno) = late.enter()
            {
                // A stage that is gone has nobody to tell.
                let _ = rustix::io::write(tell, &errno.raw_os_error().to_ne_bytes());
                return 1;
            }
            drop(tell);
            init.live(site.as_ref(), fds, outcomes, false)
        });
        let told = match (child, heard.zip(late)) {
            (Err(e), _) => Told::Failed(not_cloned(namespaces, cgroup.is_some(), e)),
            (Ok(_), Some((heard, late))) if let Some(errno) = refusal(&heard) => Told::Failed(late.refused(errno)),
            (Ok(child), _) => Told::Made(child.pid.as_raw_nonzero().get()),
        };
        let failed = matches!(told, Told::Failed(_));
        send(&mut self.talk, &told);
        i32::from(failed)
    }

    fn tell(&mut self, told: &Told, code: i32) -> i32 {
        send(&mut self.talk, told);
        code
    }
}

fn not_cloned(namespaces: u64, into_cgroup: bool, error: std::io::Error) -> EffectError {
    let into = if into_cgroup { "|CLONE_INTO_CGROUP" } else { "" };
    let is_busy = into_cgroup && error.raw_os_error() == Some(Errno::BUSY.raw_os_error());
    let failed = EffectError::call(format!("clone3({namespaces:#x}|CLONE_PARENT{into})"), error);
    if !is_busy {
        return failed;
    }
    failed.help("the cgroup gives controllers to those below it, and takes no process itself (cgroup-v2.rst): name one below it")
}

/// The same cgroup as the root of a read-only mount of its own, which is in no mount namespace: no `..` leads out of it, and nothing is written by
/// it.
///
/// Who may not make mounts gets the directory itself. He may enter user namespaces of his own alone, and nobody in them may trace what comes
/// from outside.
fn alone(dir: OwnedFd) -> Result<OwnedFd, EffectError> {
    match clone_tree(&dir, Path::new("the cgroup"), Bind::One) {
        Ok(mount) => {
            let read_only = MountAttr { set: RDONLY, ..MountAttr::default() };
            mount_setattr(&mount, false, &read_only)
                .map_err(|e| EffectError::call("mount_setattr(the cgroup, MOUNT_ATTR_RDONLY)", e))?;
            Ok(mount)
        }
        Err(error) if error.errno == Some(Errno::PERM.raw_os_error()) => Ok(dir),
        Err(error) => Err(error),
    }
}

/// Why init could not join what it was to join itself; the pipe's end says that it has.
fn refusal(heard: &OwnedFd) -> Option<Errno> {
    let mut errno = [0u8; 4];
    let read = rustix::io::retry_on_intr(|| rustix::io::read(heard, &mut errno));
    (read == Ok(errno.len())).then(|| Errno::from_raw_os_error(i32::from_ne_bytes(errno)))
}

/// An engine that is gone cannot be told so.
fn send(talk: &mut UnixStream, told: &Told) {
    if let Ok(mut line) = serde_json::to_vec(told) {
        line.push(b'\n');
        let _ = talk.write_all(&line);
    }
}

/// The engine's side: descriptors kept between the effect that makes the stage and the one that makes init.
pub(crate) struct Talk {
    stage: Watched,
    socket: UnixStream,
}

impl Talk {
    fn name(what: &str, cx: &Cx) -> String {
        format!("{ENGINE_ONLY}{what}:{}", cx.step)
    }

    fn keep(
        socket: UnixStream,
        channel: OwnedFd,
        output: Vec<OwnedFd>,
        process: &Process,
        cx: &mut Cx,
    ) -> Result<(), EffectError> {
        let stage = watch(process)?;
        let mut talk = Self { stage, socket };
        match talk.hear()? {
            Told::Ready => {}
            Told::Failed(error) => return Err(error),
            Told::Made(_) => return Err(EffectError::new("the stage process made init before it was told to")),
        }
        cx.fds.put(Self::name("stage", cx), talk.socket.into());
        cx.fds.put(Self::name("channel", cx), channel);
        for (i, pipe) in output.into_iter().enumerate() {
            cx.fds.put(Self::name(&format!("output{i}"), cx), pipe);
        }
        Ok(())
    }

    /// What the stage's effect has kept.
    pub(crate) fn kept(stage: &Handle<Process>, cx: &mut Cx) -> Result<Self, EffectError> {
        let stage = watch(&cx.resolve(stage)?)?;
        let socket = cx.fds.take(&Self::name("stage", cx)).ok_or_else(lost)?;
        Ok(Self { stage, socket: socket.into() })
    }

    fn forget(cx: &mut Cx) {
        for what in ["stage", "channel", "output0", "output1"] {
            cx.fds.take(&Self::name(what, cx));
        }
    }

    /// The engine's end of init's channel.
    pub(crate) fn channel(cx: &mut Cx) -> Result<OwnedFd, EffectError> {
        cx.fds.take(&Self::name("channel", cx)).ok_or_else(lost)
    }

    /// The read ends of init's output.
    pub(crate) fn output(cx: &mut Cx) -> Vec<OwnedFd> {
        ["output0", "output1"].iter().filter_map(|what| cx.fds.take(&Self::name(what, cx))).collect()
    }

    /// Has init made, and takes leave of the stage.
    pub(crate) fn clone_init(&mut self, clone: &CloneInit) -> Result<Pid, EffectError> {
        writeln!(self.socket, "{}", flags(&clone.namespaces))
            .map_err(|e| EffectError::call("write to the stage process", e))?;
        let told = self.hear();
        self.stage.end()?;
        match told? {
            Told::Made(pid) => {
                Pid::from_raw(pid).ok_or_else(|| EffectError::new("init has no id in our pid namespace"))
            }
            Told::Failed(error) => Err(error),
            Told::Ready => Err(EffectError::new("the stage process did not make init")),
        }
    }

    fn hear(&mut self) -> Result<Told, EffectError> {
        let failed = |e| EffectError::call("read from the stage process", e);
        self.socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut line = String::new();
        BufReader::new(&self.socket).take(1 << 16).read_line(&mut line).map_err(failed)?;
        serde_json::from_str(&line).map_err(|_| EffectError::new("the stage process died"))
    }
}

fn watch(process: &Process) -> Result<Watched, EffectError> {
    let watched = process.watch().map_err(|e| EffectError::call(format!("pidfd_open({})", process.pid), e))?;
    watched.ok_or_else(|| EffectError::new(format!("the stage process {} died", process.pid)))
}

fn lost() -> EffectError {
    EffectError::new("the stage process was made by another engine, which is gone")
}
