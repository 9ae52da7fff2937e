//! sd_notify(3) from within a container: a socket of its own, what comes there passed on to the caller's service manager.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::Mode;
use lifecycle_engine::value::Later;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, FileType, Mode as Bits, OFlags, lstat, open, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, bind, connect, recv, send, sendmsg, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Directory;
use super::example_process;
use super::placed::Existing;
use super::wait::{resolve, watch};
use crate::made;
use crate::notify::SOCKET;
use crate::outcomes::Process;
use crate::process::{ENGINE_ONLY, Watched};

/// The longest message that is taken from a container; sd_notify(3) sends one datagram.
const LONGEST: usize = 4096;
/// How many messages are taken in one turn of the loop: whoever sends without end keeps the engine from nothing else.
const TURN: usize = 32;
/// How long the service manager may take to have read everything, as in sd_notify_barrier(3).
const BARRIER: Duration = Duration::from_secs(30);

/// Makes the directory that will hold the container's notification socket. Undo removes it, with the socket of an engine that was killed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyDirectory {
    /// Where, in the container's directory on the host.
    pub path: PathBuf,
}

impl NotifyDirectory {
    fn directory(&self) -> Directory {
        // The container's program may be any user.
        Directory { path: self.path.clone(), mode: Mode(0o755), owner: None, existing: Existing::Refuse, keep: false }
    }
}

impl EffectDef for NotifyDirectory {
    const KIND: &'static str = "notify.directory";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { path: scratch.join("notify") }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        EffectDef::describe(&self.directory())
    }

    fn before(&self, cx: &mut Cx) -> Result<Value, EffectError> {
        EffectDef::before(&self.directory(), cx)
    }

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        EffectDef::apply(&self.directory(), before, cx)
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        remove_socket(&self.path.join(SOCKET))?;
        EffectDef::undo(&self.directory(), record, cx)
    }
}

/// The socket may be another run's to take back, one that comes after this: `run` listens in the directory of the container that it makes.
fn remove_socket(path: &Path) -> Result<(), EffectError> {
    match lstat(path).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::Socket) => remove(path),
        // What else is there nobody of ours has made.
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), EffectError> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(EffectError::call(format!("unlink({})", path.display()), e)),
    }
}

/// Binds the container's notification socket, where everybody may write to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindNotify {
    /// Where, in the container's directory on the host.
    pub path: PathBuf,
    /// Where the caller's service manager listens: `$NOTIFY_SOCKET`. A name that begins with `@` is an abstract one.
    pub manager: String,
}

/// The socket that was bound.
#[derive(Serialize, Deserialize)]
struct Bound {
    device: u64,
    inode: u64,
}

/// Passes on what the container says of itself: that it is ready, and its status.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardNotify {
    /// The container's first process; its end is the end of this too.
    pub process: Later<Process>,
    /// It becomes the service's main process, and nothing is waited for once it is ready. Otherwise it goes on until the process's end.
    pub main_process: bool,
}

/// The names under which [`BindNotify`] keeps its descriptors for [`ForwardNotify`].
fn kept(name: &str) -> String {
    format!("{ENGINE_ONLY}notify:{name}")
}

impl EffectDef for BindNotify {
    const KIND: &'static str = "notify.bind";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { path: scratch.join("notify.sock"), manager: format!("@{}", scratch.display()) }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("listen at {} for what the container has to say to {}", self.path.display(), self.manager)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        // First of all: a service manager that cannot be reached is told of before the container starts.
        let manager = reach(&self.manager)?;
        let (socket, bound) = self.bind()?;
        cx.fds.put(kept("manager"), manager);
        cx.fds.put(kept("socket"), socket);
        Applied::outcome(&bound)
    }

    fn undo(&self, record: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        let failed = |call: &str, e| EffectError::call(format!("{call}({})", self.path.display()), e);
        let stat = match lstat(&self.path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Undone::Done),
            other => other.map_err(|e| failed("lstat", e))?,
        };
        // Without an outcome it was cut off in between; the name in the container's own directory proves it ours then.
        let ours = record.outcome::<Bound>().is_none_or(|b| (b.device, b.inode) == (stat.st_dev, stat.st_ino));
        if !ours || FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(EffectError::new(format!("{} is not the socket that this run made", self.path.display()))
                .help("look at what is there; remove it yourself if nothing needs it"));
        }
        remove(&self.path)?;
        Ok(Undone::Done)
    }
}

impl BindNotify {
    fn bind(&self) -> Result<(OwnedFd, Bound), EffectError> {
        let path = self.path.display();
        let failed = |call: &str| {
            let call = format!("{call}({path})");
            move |e: Errno| EffectError::call(call, e)
        };
        let (Some(dir), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(EffectError::new(format!("{path} does not end in a name")));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = open(dir, flags, Bits::empty()).map_err(failed("open"))?;
        // By descriptor: a socket's address holds 108 bytes, and a state root may be deeper.
        let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        let address = SocketAddrUnix::new(&short).map_err(failed("bind"))?;
        let socket = datagrams()?;
        // The container's program may be any user.
        made::unmasked(|| bind(&socket, &address)).map_err(failed("bind"))?;
        let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("lstat"))?;
        Ok((socket, Bound { device: stat.st_dev, inode: stat.st_ino }))
    }
}

fn datagrams() -> Result<OwnedFd, EffectError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
        .map_err(|e| EffectError::call("socket(AF_UNIX, SOCK_DGRAM)", e))
}

fn reach(manager: &str) -> Result<OwnedFd, EffectError> {
    let failed = |e| {
        EffectError::call(format!("connect({manager})"), e)
            .help("NOTIFY_SOCKET must name the socket on which a service manager listens; unset it if there is none")
    };
    let address = match manager.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(manager),
    };
    let socket = datagrams()?;
    connect(&socket, &address.map_err(failed)?).map_err(failed)?;
    Ok(socket)
}

impl EffectDef for ForwardNotify {
    const KIND: &'static str = "notify.forward";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { process: Later::Handle(example_process()), main_process: false }]
    }

    fn class(&self) -> Class {
        Class::Foreign
    }

    fn describe(&self) -> String {
        let until = if self.main_process { "until it is ready" } else { "until it ends" };
        format!("tell the service manager what {} says of itself, {until}", self.process)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = resolve(&self.process, cx)?;
        let missing = || EffectError::new("nobody listens for the container").help("put a notify.listen before it");
        let manager = cx.fds.take(&kept("manager")).ok_or_else(missing)?;
        let socket = cx.fds.take(&kept("socket")).ok_or_else(missing)?;
        let Some(watched) = watch(&process)? else { return Applied::outcome(&json!({ "ready": false })) };
        let main_process = self.main_process.then_some(process.pid);
        let words = Words { main_process, ..Words::default() };
        Ok(Applied::Pending(Box::new(Forwarding { manager, socket, watched, main_process, words, barrier: None })))
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        // The service manager sees the end of the service's process, which is its maker's to bring about.
        Ok(Undone::Done)
    }
}

struct Forwarding {
    manager: OwnedFd,
    socket: OwnedFd,
    watched: Watched,
    main_process: Option<i32>,
    words: Words,
    /// Its other end is the service manager's, and is closed when that has read all before it.
    barrier: Option<(OwnedFd, Instant)>,
}

/// What a container has said, and the service manager has had no room for yet: only what a service says of itself, and nothing that would speak for
/// its supervisor (MAINPID, FDSTORE, WATCHDOG). However much it is, its last status alone is kept.
#[derive(Debug, Default)]
struct Words {
    main_process: Option<i32>,
    ready: bool,
    status: Option<String>,
    /// What goes with READY.
    first: Vec<String>,
}

impl Words {
    fn take(&mut self, message: &[u8]) {
        for line in String::from_utf8_lossy(message).lines() {
            if line == "READY=1" && !self.ready {
                self.ready = true;
                // In the order in which it was said.
                self.first.extend(self.status.take());
                self.first.push(line.to_owned());
                self.first.extend(self.main_process.map(|pid| format!("MAINPID={pid}")));
            } else if line.starts_with("STATUS=") {
                self.status = Some(line.to_owned());
            }
        }
    }

    fn next(&self) -> Option<&str> {
        self.first.first().or(self.status.as_ref()).map(String::as_str)
    }

    fn passed_on(&mut self) {
        if self.first.is_empty() {
            self.status = None;
        } else {
            self.first.remove(0);
        }
    }
}

/// What is passed on of these messages where the service manager takes all at the end.
pub(crate) fn passed_on<'a>(messages: impl Iterator<Item = &'a [u8]>, main_process: Option<i32>) -> Vec<String> {
    let mut words = Words { main_process, ..Words::default() };
    messages.for_each(|message| words.take(message));
    let mut passed = Vec::new();
    while let Some(next) = words.next() {
        passed.push(next.to_owned());
        words.passed_on();
    }
    passed
}

impl Forwarding {
    /// Takes what has come, as far as there is time for it.
    fn take(&mut self) -> Result<(), EffectError> {
        let mut message = [0; LONGEST];
        for _ in 0..TURN {
            match recv(&self.socket, &mut message, RecvFlags::DONTWAIT) {
                Ok((length, _)) => self.words.take(&message[..length]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(EffectError::call("recv(notify socket)", e)),
            }
            self.pass_on()?;
        }
        Ok(())
    }

    fn pass_on(&mut self) -> Result<(), EffectError> {
        while let Some(words) = self.words.next() {
            match send(&self.manager, words.as_bytes(), SendFlags::NOSIGNAL) {
                Ok(_) => self.words.passed_on(),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(EffectError::call("send(NOTIFY_SOCKET)", e).help("the service manager has gone")),
            }
        }
        Ok(())
    }

    /// sd_notify_barrier(3): this program ends now, and whoever reads its messages after that could not tell whose they are.
    fn begin_barrier(&mut self) -> Result<(), EffectError> {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| EffectError::call("pipe2(O_CLOEXEC)", e))?;
        let fds = [theirs.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(EffectError::new("no room for a descriptor in a message"));
        }
        match sendmsg(&self.manager, &[IoSlice::new(b"BARRIER=1")], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => self.barrier = Some((ours, Instant::now() + BARRIER)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return Err(EffectError::call("sendmsg(NOTIFY_SOCKET, BARRIER=1)", e)),
        }
        Ok(())
    }

    /// Everything is said, and read.
    fn is_over(&mut self) -> Result<bool, EffectError> {
        if self.watched.is_dead()? {
            return Ok(true);
        }
        if self.barrier.is_none() {
            if !self.words.ready || self.main_process.is_none() || self.words.next().is_some() {
                return Ok(false);
            }
            self.begin_barrier()?;
        }
        // One that knows no barriers never answers.
        Ok(self.barrier.as_ref().is_some_and(|(pipe, until)| hung_up(pipe) || Instant::now() >= *until))
    }
}

fn hung_up(pipe: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

impl Pending for Forwarding {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(self.watched.interest());
        match &self.barrier {
            Some((pipe, _)) => wants.push(Interest::read(pipe.as_raw_fd())),
            None => wants.push(Interest::read(self.socket.as_raw_fd())),
        }
        // Also where a barrier has had no room.
        let barred = self.words.ready && self.main_process.is_some();
        if self.barrier.is_none() && (self.words.next().is_some() || barred) {
            wants.push(Interest { fd: self.manager.as_raw_fd(), read: false, write: true });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.barrier.as_ref().map(|(_, until)| *until)
    }

    fn advance(&mut self, _: &mut Cx) -> Result<Option<Value>, EffectError> {
        // What comes after the barrier is nobody's to pass on.
        if self.barrier.is_none() {
            self.pass_on()?;
            self.take()?;
        }
        Ok(self.is_over()?.then(|| json!({ "ready": self.words.ready })))
    }

    fn cancel(&mut self, _: &mut Cx) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::testing::Bench;

    #[test]
    fn the_socket_is_bound_however_deep_it_is_and_goes_again() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let manager = dir.path().join("manager");
        let _listens = std::os::unix::net::UnixDatagram::bind(&manager).unwrap();
        let effect = BindNotify { path: deep.join("notify.sock"), manager: manager.display().to_string() };
        let mut bench = Bench::new(dir.path());
        let (record, answer) = bench.apply(&effect);
        answer.unwrap();
        assert!(effect.path.exists());
        for _ in 0..2 {
            bench.undo(&effect, &record).unwrap();
            assert!(!effect.path.exists());
        }
        std::fs::write(&effect.path, "another's").unwrap();
        assert!(bench.undo(&effect, &record).is_err());
    }

    #[test]
    fn without_a_service_manager_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let effect = BindNotify { path: dir.path().join("notify.sock"), manager: "/nosuch".into() };
        let (_, answer) = Bench::new(dir.path()).apply(&effect);
        assert!(answer.unwrap_err().to_string().contains("/nosuch"));
        assert!(!effect.path.exists());
    }
}
