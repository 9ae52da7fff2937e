//! What a process prints: read without blocking, handed on line by line, and its end kept for errors.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use lifecycle_engine::lines::turn;
use lifecycle_engine::value::REDACTED;
use rustix::io::Errno;

/// How many lines an error quotes.
const TAIL: usize = 20;
/// A line longer than this many bytes is handed on in pieces.
const LONGEST: usize = 4096;
/// How much of standard output a plan can refer to, in bytes.
pub const CAPTURED: usize = 64 << 10;
/// Sensitive values of a command, which must not come back through what it prints.
#[derive(Clone, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Keeps the values; empty ones are nothing to hide.
    pub fn new(values: impl IntoIterator<Item = String>) -> Self {
        Self(values.into_iter().filter(|v| !v.is_empty()).collect())
    }

    /// The text without them.
    pub fn scrub(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, REDACTED))
    }
}

/// The last lines of all streams together.
#[derive(Default)]
pub struct Tail(VecDeque<String>);

impl Tail {
    fn push(&mut self, line: String) {
        if self.0.len() == TAIL {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

/// One pipe that a process prints into.
pub struct Stream {
    pipe: Option<OwnedFd>,
    partial: Vec<u8>,
    captured: Option<Vec<u8>>,
}

impl Stream {
    /// Reads the pipe, which must not block; keeps the first 64 KiB if asked to.
    pub fn new(pipe: OwnedFd, capture: bool) -> Self {
        Self { pipe: Some(pipe), partial: Vec::new(), captured: capture.then(Vec::new) }
    }

    /// The descriptor to poll, until its end.
    pub fn fd(&self) -> Option<RawFd> {
        self.pipe.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The pipe, for another to read what comes from now on.
    pub fn leave(self) -> Option<OwnedFd> {
        self.pipe
    }

    /// What was printed, trimmed; bytes that are no UTF-8 are replaced.
    pub fn captured(&self) -> String {
        String::from_utf8_lossy(self.captured.as_deref().unwrap_or_default()).trim().to_owned()
    }

    /// Hands on the lines that have come by now.
    pub fn read(&mut self, line: &mut dyn FnMut(String)) -> Result<(), Errno> {
        let mut buffer = [0u8; 16 << 10];
        let mut left = self.pipe.as_ref().map_or(0, turn);
        while let Some(pipe) = self.pipe.as_ref().filter(|_| left > 0) {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => {
                    self.pipe = None;
                    self.finish(line);
                }
                Ok(n) => {
                    left = left.saturating_sub(n);
                    self.take(&buffer[..n], line);
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Hands on what is left of a last line without its end.
    pub fn finish(&mut self, line: &mut dyn FnMut(String)) {
        if !self.partial.is_empty() {
            line(text(&std::mem::take(&mut self.partial)));
        }
    }

    fn take(&mut self, bytes: &[u8], line: &mut dyn FnMut(String)) {
        if let Some(captured) = &mut self.captured {
            let room = CAPTURED.saturating_sub(captured.len());
            captured.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= LONGEST {
                line(text(&std::mem::take(&mut self.partial)));
            }
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned()
}

/// Keeps the line for errors and shows it, without secrets.
pub fn keep(tail: &mut Tail, secrets: &Secrets, shown: &mut dyn FnMut(&str), line: &str) {
    let line = secrets.scrub(line);
    shown(&line);
    tail.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    #[test]
    fn lines_come_whole_and_the_last_one_needs_no_end() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut stream = Stream::new(read, true);
        let mut lines = Vec::new();
        rustix::io::write(&write, b"one\ntw").unwrap();
        stream.read(&mut |l| lines.push(l)).unwrap();
        assert_eq!(lines, ["one"]);
        rustix::io::write(&write, b"o\r\nthree").unwrap();
        drop(write);
        stream.read(&mut |l| lines.push(l)).unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!(stream.fd(), None);
        assert_eq!(stream.captured(), "one\ntwo\r\nthree");
    }

    #[test]
    fn the_tail_is_bounded_and_holds_no_secret() {
        let secrets = Secrets::new(["hunter2".to_owned(), String::new()]);
        let (mut tail, mut shown) = (Tail::default(), Vec::new());
        for n in 0..TAIL + 5 {
            keep(&mut tail, &secrets, &mut |l| shown.push(l.to_owned()), &format!("{n} hunter2"));
        }
        assert_eq!(tail.lines().len(), TAIL);
        assert_eq!(tail.lines()[0], format!("5 {REDACTED}"));
        assert_eq!(shown[0], format!("0 {REDACTED}"));
    }
}
