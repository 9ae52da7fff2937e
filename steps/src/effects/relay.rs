//! Between the caller's terminal and the container's.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::example_process;
use super::wait::watch;
use crate::outcomes::Process;
use crate::process::{Watched, console_of, descriptor};

/// How much is read at once, and kept at most in each direction.
const CHUNK: usize = 4096;
/// How many times it is read and shown in one turn of the loop: whoever writes to the terminal without end keeps the engine from nothing else.
const TURN: usize = 16;
/// How much is still shown after the container's end, in bytes, where others hold its terminal and go on. More than a terminal keeps.
const REST: usize = 1 << 20;
/// Control-D: the end of input in a terminal's line mode.
const END_OF_INPUT: u8 = 4;

/// Carries what is typed to the container's terminal and what that shows back, until the container has ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct RelayConsole {
    /// The container's init, whose clone has kept the socket that the terminal comes by.
    pub process: Handle<Process>,
}

impl EffectDef for RelayConsole {
    const KIND: &'static str = "relay_console";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { process: example_process() }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("relay the terminal of {} to the caller's stdin and stdout", self.process)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let maker: &Arc<str> = &self.process.at.step;
        let init = cx.resolve(&self.process)?;
        let socket = cx.fds.take(&console_of(maker)).ok_or_else(|| {
            EffectError::new(format!("step {maker} keeps no terminal for the engine"))
                .help("set terminal, and no console_socket, in the with: of its process.clone")
        })?;
        let init =
            watch(&init)?.ok_or_else(|| EffectError::new("the container has ended before it opened its terminal"))?;
        Ok(Applied::Pending(Box::new(Relay { init, ended: false, state: State::Waiting(socket) })))
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        // The caller's terminal is set right when the relay ends, and is not this process's any more otherwise.
        Ok(Undone::Done)
    }
}

struct Relay {
    init: Watched,
    /// It has ended: nothing is to be waited for but whoever takes what it has shown.
    ended: bool,
    state: State,
}

enum State {
    /// For the terminal.
    Waiting(OwnedFd),
    Carrying(Box<Carrier>),
}

impl Pending for Relay {
    fn interest(&self, wants: &mut Vec<Interest>) {
        if !self.ended {
            wants.push(self.init.interest());
        }
        match &self.state {
            State::Waiting(socket) => wants.push(Interest::read(socket.as_raw_fd())),
            State::Carrying(carrier) => carrier.interest(wants),
        }
    }

    fn advance(&mut self, _: &mut Cx) -> Result<Option<Value>, EffectError> {
        self.ended = self.init.is_dead()?;
        if let State::Waiting(socket) = &self.state {
            match receive(socket)? {
                Some(master) => self.state = State::Carrying(Box::new(Carrier::new(master)?)),
                // It ended before it opened a terminal, or closed the socket: there is nothing to carry.
                None if self.ended || hung_up(socket)? => return Ok(Some(Value::Null)),
                None => return Ok(None),
            }
        }
        let State::Carrying(carrier) = &mut self.state else { return Ok(None) };
        let over = carrier.carry(self.ended)?;
        Ok(over.then_some(Value::Null))
    }

    /// What a program has written to its terminal last is still there when it has ended.
    fn lingers(&self) -> bool {
        self.init.is_dead().unwrap_or(false)
    }

    /// After the program's end nothing may wake it any more, where others hold the terminal and are silent.
    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Carrying(carrier) if self.ended && carrier.shown.is_empty() => Some(Instant::now()),
            _ => None,
        }
    }

    fn cancel(&mut self, _: &mut Cx) {
        if let State::Carrying(carrier) = &mut self.state {
            carrier.caller.restore();
        }
    }
}

fn hung_up(socket: &OwnedFd) -> Result<bool, EffectError> {
    Ok(ready(socket, PollFlags::empty())?.intersects(PollFlags::HUP | PollFlags::ERR))
}

fn ready(fd: impl std::os::fd::AsFd, wanted: PollFlags) -> Result<PollFlags, EffectError> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::new(&fd, wanted)];
    rustix::io::retry_on_intr(|| poll(&mut polled, Some(&now))).map_err(|e| EffectError::call("poll(terminal)", e))?;
    Ok(polled[0].revents())
}

/// The terminal's master, if it has come.
fn receive(socket: &OwnedFd) -> Result<Option<OwnedFd>, EffectError> {
    let mut name = [0; 64];
    match descriptor::receive(socket, &mut name, RecvFlags::DONTWAIT) {
        Ok((_, master)) => Ok(master),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(e) => Err(EffectError::call("recvmsg(console socket)", e)),
    }
}

/// The caller's side: its terminal is raw while the relay lasts, if it is one.
struct Caller {
    before: Option<Termios>,
    resized: Option<SignalFd>,
}

impl Caller {
    fn take() -> Result<Self, EffectError> {
        if !isatty(stdin()) {
            return Ok(Self { before: None, resized: None });
        }
        let before = tcgetattr(stdin()).map_err(|e| EffectError::call("tcgetattr(stdin)", e))?;
        let mut window = SigSet::empty();
        window.add(Signal::SIGWINCH);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&window), None)
            .map_err(|e| EffectError::call("sigprocmask(SIGWINCH)", e))?;
        let resized = SignalFd::with_flags(&window, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|e| EffectError::call("signalfd(SIGWINCH)", e))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw).map_err(|e| EffectError::call("tcsetattr(stdin)", e))?;
        Ok(Self { before: Some(before), resized: Some(resized) })
    }

    /// A terminal that has gone needs no setting right.
    fn restore(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = tcsetattr(stdin(), OptionalActions::Drain, &before);
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.restore();
    }
}

struct Carrier {
    master: OwnedFd,
    caller: Caller,
    typed: VecDeque<u8>,
    shown: VecDeque<u8>,
    /// Nothing more comes from stdin.
    no_input: bool,
    /// Nothing more comes from the container's terminal.
    no_output: bool,
    /// Nobody reads stdout any more: the program goes on without.
    no_reader: bool,
    /// What is still shown after the container's end.
    rest: usize,
}

impl Carrier {
    fn new(master: OwnedFd) -> Result<Self, EffectError> {
        let flags = fcntl_getfl(&master).map_err(|e| EffectError::call("fcntl(F_GETFL)", e))?;
        fcntl_setfl(&master, flags | OFlags::NONBLOCK)
            .map_err(|e| EffectError::call("fcntl(F_SETFL, O_NONBLOCK)", e))?;
        let caller = Caller::take()?;
        let (typed, shown) = (VecDeque::new(), VecDeque::new());
        let carrier =
            Self { master, caller, typed, shown, no_input: false, no_output: false, no_reader: false, rest: REST };
        carrier.resize();
        Ok(carrier)
    }

    /// The container's terminal gets the size of the caller's, if that has one.
    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(stdin())
            && size.ws_row > 0
        {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    fn interest(&self, wants: &mut Vec<Interest>) {
        let master = Interest {
            fd: self.master.as_raw_fd(),
            read: self.shown.is_empty() && !self.no_output,
            write: !self.typed.is_empty(),
        };
        if master.read || master.write {
            wants.push(master);
        }
        if !self.no_input && self.typed.is_empty() {
            wants.push(Interest::read(stdin().as_raw_fd()));
        }
        if !self.shown.is_empty() {
            wants.push(Interest { fd: stdout().as_raw_fd(), read: false, write: true });
        }
        wants.extend(self.caller.resized.as_ref().map(|fd| Interest::read(fd.as_raw_fd())));
    }

    /// Carries what there is; answers whether everything has been.
    fn carry(&mut self, ended: bool) -> Result<bool, EffectError> {
        if let Some(resized) = &self.caller.resized
            && matches!(resized.read_signal(), Ok(Some(_)))
        {
            self.resize();
        }
        self.take_input()?;
        self.type_input();
        let mut drained = false;
        self.show()?;
        for _ in 0..TURN {
            if !self.shown.is_empty() || self.no_output || drained {
                break;
            }
            drained = !self.take_output()?;
            if ended {
                self.rest = self.rest.saturating_sub(self.shown.len());
            }
            self.show()?;
        }
        // What the dead container has shown is all there by now, whoever else may hold its terminal.
        let over = self.shown.is_empty() && (self.no_output || ended && (drained || self.rest == 0));
        if over {
            self.caller.restore();
        }
        Ok(over)
    }

    fn take_input(&mut self) -> Result<(), EffectError> {
        if self.no_input || !self.typed.is_empty() || ready(stdin(), PollFlags::IN)?.is_empty() {
            return Ok(());
        }
        let mut buffer = [0; CHUNK];
        match rustix::io::read(stdin(), &mut buffer) {
            Ok(0) | Err(Errno::IO) => {
                self.no_input = true;
                self.typed.push_back(END_OF_INPUT);
            }
            Ok(n) => self.typed.extend(&buffer[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return Err(EffectError::call("read(stdin)", e)),
        }
        Ok(())
    }

    /// A container that reads nothing keeps it waiting; one that has gone has no use for it.
    fn type_input(&mut self) {
        let (front, _) = self.typed.as_slices();
        match rustix::io::write(&self.master, front) {
            Ok(n) => drop(self.typed.drain(..n)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.typed.clear(),
        }
    }

    /// Whether there was something.
    fn take_output(&mut self) -> Result<bool, EffectError> {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(&self.master, &mut buffer) {
            // The last one to have the terminal open has closed it.
            Ok(0) | Err(Errno::IO) => {
                self.no_output = true;
                Ok(false)
            }
            Ok(n) => {
                self.shown.extend(&buffer[..n]);
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(e) => Err(EffectError::call("read(terminal)", e)),
        }
    }

    /// No more than a pipe takes for sure when it is ready: whoever reads stdout slowly must not stop the engine.
    fn show(&mut self) -> Result<(), EffectError> {
        if self.no_reader {
            self.shown.clear();
        }
        while !self.shown.is_empty() && !ready(stdout(), PollFlags::OUT)?.is_empty() {
            let (front, _) = self.shown.as_slices();
            match rustix::io::write(stdout(), front) {
                Ok(n) => drop(self.shown.drain(..n)),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(Errno::PIPE | Errno::IO) => {
                    self.no_reader = true;
                    self.shown.clear();
                }
                Err(e) => return Err(EffectError::call("write(stdout)", e)),
            }
        }
        Ok(())
    }
}
