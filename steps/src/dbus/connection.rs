//! A connection to a bus, or straight to the process that would be on it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::Value;
use super::wire::{Kind, Message};

/// The longest that the peer may take to answer a call; D-Bus's own usual limit.
const PATIENCE: Duration = Duration::from_secs(25);

/// Where the peer listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Its unix socket.
    pub socket: PathBuf,
    /// A bus listens there, which passes messages on; else the peer itself.
    pub bus: bool,
}

/// Why a call has no answer.
#[derive(Debug)]
pub enum Error {
    /// The socket failed.
    Io(io::Error),
    /// The peer does not speak the protocol.
    Protocol(&'static str),
    /// The peer refused, with the error's name and text.
    Refused {
        /// Such as `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// For a person.
        text: String,
    },
}

impl Error {
    /// The peer's answer is this error.
    pub fn is(&self, error: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name == error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Protocol(what) => write!(f, "the other side sent {what}"),
            Self::Refused { name, text } if text.is_empty() => f.write_str(name),
            Self::Refused { name, text } => write!(f, "{text} ({name})"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Connects; a socket that is just not there is looked for again, since nobody tells when it comes back. systemd makes its own anew when it
/// reads its units again, which takes a slow machine many seconds.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(socket) {
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
                    && Instant::now() < until =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    bytes: Vec<u8>,
    /// Messages that came while an answer was waited for.
    early: VecDeque<Message>,
    serial: u32,
    bus: bool,
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Connection {
    /// Connects and says who we are.
    pub fn open(address: &Address) -> Result<Self, Error> {
        Self::over(UnixStream::connect(&address.socket)?, address)
    }

    /// The same with a peer that is known to run, and may be making its socket again.
    pub fn open_again(address: &Address) -> Result<Self, Error> {
        Self::over(connect(&address.socket)?, address)
    }

    fn over(stream: UnixStream, address: &Address) -> Result<Self, Error> {
        let bus = address.bus;
        let mut connection = Self { stream, bytes: Vec::new(), early: VecDeque::new(), serial: 0, bus };
        connection.authenticate()?;
        if bus {
            let (name, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
            connection.call(Message::call(name, path, name, "Hello", Vec::new()))?;
        }
        Ok(connection)
    }

    /// Without a uid of our own words: the peer takes the socket's credentials. In a user namespace ours would be a number that it does not
    /// know us by.
    fn authenticate(&mut self) -> Result<(), Error> {
        self.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let until = Instant::now() + PATIENCE;
        for expected in ["DATA", "OK"] {
            let end = loop {
                if let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\r\n") {
                    break end;
                }
                if self.bytes.len() > 4096 {
                    return Err(Error::Protocol("no line to authenticate with"));
                }
                self.wait(until)?;
                self.fill()?;
            };
            let line: Vec<u8> = self.bytes.drain(..end + 2).collect();
            if !line.starts_with(expected.as_bytes()) {
                return Err(io::Error::from(io::ErrorKind::PermissionDenied).into());
            }
        }
        Ok(())
    }

    /// Whether a bus passes our messages on, which sends signals only to those that ask.
    pub fn is_bus(&self) -> bool {
        self.bus
    }

    /// The id of the process that listens, in our own pid namespace. `None`: it is in none that we can see into.
    pub fn listener(&self) -> Option<i32> {
        let cred = nix::sys::socket::getsockopt(&self.stream, nix::sys::socket::sockopt::PeerCredentials).ok()?;
        // 0 is the kernel's number for a process that has none here.
        Some(cred.pid()).filter(|pid| *pid != 0)
    }

    /// Sends a message; answers with its number.
    pub fn send(&mut self, mut message: Message) -> Result<u32, Error> {
        self.serial += 1;
        message.serial = self.serial;
        let bytes = message.encode();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let n =
                rustix::io::retry_on_intr(|| rustix::net::send(&self.stream, rest, rustix::net::SendFlags::NOSIGNAL));
            rest = &rest[n.map_err(io::Error::from)?..];
        }
        Ok(self.serial)
    }

    /// Sends a call and waits for its answer. What else comes meanwhile is kept for [`Self::next_message`].
    pub fn call(&mut self, message: Message) -> Result<Vec<Value>, Error> {
        let serial = self.send(message)?;
        let until = Instant::now() + PATIENCE;
        let mut aside = VecDeque::new();
        let answer = loop {
            match self.receive()? {
                Some(message) if message.reply_to == serial => break message,
                Some(message) => aside.push_back(message),
                None => {
                    self.wait(until)?;
                    self.fill()?;
                }
            }
        };
        self.early.extend(aside);
        Self::answered(answer)
    }

    /// What an answer says.
    pub fn answered(answer: Message) -> Result<Vec<Value>, Error> {
        if answer.kind == Kind::Return {
            return Ok(answer.body);
        }
        let text = answer.body.first().and_then(Value::as_str).unwrap_or_default().to_owned();
        Err(Error::Refused { name: answer.error, text })
    }

    /// The next message that is there; never waits.
    pub fn next_message(&mut self) -> Result<Option<Message>, Error> {
        if let Some(message) = self.early.pop_front() {
            return Ok(Some(message));
        }
        loop {
            if let Some(message) = self.receive()? {
                return Ok(Some(message));
            }
            let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
            match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Ok(0) => return Ok(None),
                Ok(_) => self.fill()?,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// A whole message from the bytes that have come.
    fn receive(&mut self) -> Result<Option<Message>, Error> {
        let length = Message::length(&self.bytes).map_err(Error::Protocol)?;
        let Some(length) = length.filter(|length| *length <= self.bytes.len()) else { return Ok(None) };
        let bytes: Vec<u8> = self.bytes.drain(..length).collect();
        Message::decode(&bytes).map(Some).map_err(Error::Protocol)
    }

    fn wait(&self, until: Instant) -> Result<(), Error> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = [PollFd::new(&self.stream, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    fn fill(&mut self) -> Result<(), Error> {
        let mut chunk = [0; 8192];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => {
                self.bytes.extend(&chunk[..n]);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
