//! Lines from a pipe that must not block.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The longest line that is kept whole, in bytes; a longer one is cut into several.
const LONGEST: usize = 16 << 10;

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

    /// Hands out all lines that are there, the unfinished one too if the pipe has ended.
    pub fn drain(&mut self, line: &mut dyn FnMut(&str)) {
        let mut chunk = [0; 4096];
        while self.open {
            match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut chunk)) {
                Ok(0) => self.open = false,
                Ok(n) => self.take(&chunk[..n], line),
                Err(rustix::io::Errno::AGAIN) => return,
                // A pty's end says EIO when its other end is closed.
                Err(_) => self.open = false,
            }
        }
        if !self.partial.is_empty() {
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
