//! Lines from a pipe that must not block.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// The longest line that is kept whole, in bytes; a longer one is cut into several.
const LONGEST: usize = 16 << 10;

/// The most that is taken from a stream in one turn of the loop, in bytes. What a pipe or a socket holds is less, unless somebody has made it larger.
const TURN: usize = 1 << 20;

/// How much of a stream to take in this turn of the loop, in bytes: what has come by now, and one more, which is where its end shows. Whoever goes on
/// writing keeps the engine from nothing else.
pub fn turn(stream: impl AsFd) -> usize {
    rustix::io::ioctl_fionread(stream).map_or(TURN, |there| (there as usize).min(TURN)) + 1
}

/// Gathers what a pipe gives into lines. The descriptor must not block.
#[derive(Debug)]
pub struct Lines {
    fd: OwnedFd,
    partial: Vec<u8>,
    open: bool,
}

impl Lines {
    /// Reads from `fd`, which must be `O_NONBLOCK`.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, partial: Vec::new(), open: true }
    }

    /// The descriptor to poll; `None` after the end of the file.
    pub fn poll_fd(&self) -> Option<RawFd> {
        self.open.then(|| self.fd.as_raw_fd())
    }

    /// Hands out the lines that have come by now, the unfinished one too if the pipe has ended.
    pub fn drain(&mut self, line: &mut dyn FnMut(&str)) {
        let mut chunk = [0; 4096];
        let mut left = turn(&self.fd);
        while self.open && left > 0 {
            match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut chunk)) {
                Ok(0) => self.open = false,
                Ok(n) => {
                    left = left.saturating_sub(n);
                    self.take(&chunk[..n], line);
                }
                Err(rustix::io::Errno::AGAIN) => return,
                // A pty's end says EIO when its other end is closed.
                Err(_) => self.open = false,
            }
        }
        if !self.open && !self.partial.is_empty() {
            line(&String::from_utf8_lossy(&std::mem::take(&mut self.partial)));
        }
    }

    fn take(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' || self.partial.len() >= LONGEST {
                let text = std::mem::take(&mut self.partial);
                line(String::from_utf8_lossy(&text).trim_end_matches('\r'));
            }
            if byte != b'\n' {
                self.partial.push(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_turn_takes_what_is_there_from_whoever_goes_on() {
        // As fast as any writer, and it never says that there is no more.
        let endless = rustix::fs::open("/dev/zero", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        let mut lines = Lines::new(endless);
        let mut taken = 0;
        lines.drain(&mut |line| taken += line.len());
        assert!(taken > 0 && taken <= TURN + 4096, "{taken}");
        assert!(lines.poll_fd().is_some());
    }

    #[test]
    fn nothing_is_lost_of_what_was_written_before_the_end() {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (read, write) = rustix::pipe::pipe_with(flags).unwrap();
        let mut write = std::fs::File::from(write);
        let mut lines = Lines::new(read);
        let mut heard = Vec::new();
        for text in ["one\ntw", "o\nthree"] {
            write.write_all(text.as_bytes()).unwrap();
            lines.drain(&mut |line| heard.push(line.to_owned()));
        }
        drop(write);
        lines.drain(&mut |line| heard.push(line.to_owned()));
        assert_eq!(heard, ["one", "two", "three"]);
        assert_eq!(lines.poll_fd(), None);
    }
}
