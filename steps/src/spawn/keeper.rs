//! Keeps what processes print that may outlive their engine: they hold a pipe and nothing of the host's, and what is kept of them is bounded.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use lifecycle_engine::error::EffectError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::child::{Child, Session};

/// How much of what a run's steps and processes print is kept, in bytes. A state root is often memory, and what comes from a container is without
/// end.
pub const LARGEST: u64 = 16 << 20;

/// The end of a file that has got so long.
const FULL: &str = "\nlifecycle: what is printed from here on is not kept\n";

/// The process that keeps it. It ends by itself.
#[derive(Debug)]
pub struct Keeper {
    pidfd: OwnedFd,
}

impl Keeper {
    /// Waits until all has been kept, as nobody holds the pipe any more; or so long, where somebody goes on.
    pub fn wait(&self, within: Duration) {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let time = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            // However that ends, there is nothing else to do.
            if poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&time)) != Err(Errno::INTR) {
                return;
            }
        }
    }
}

/// A pipe whose other end a process of its own reads, until nobody holds this one any more, and writes to the file. It has no other descriptor,
/// and ends as soon as it has nothing to read: with the engine, where nobody has got the pipe yet.
pub fn keep_output(file: File) -> Result<(OwnedFd, Keeper), EffectError> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| EffectError::call("pipe2(O_CLOEXEC)", e))?;
    let descriptors = [read.as_raw_fd(), file.as_raw_fd()];
    let mut keeper = Child::fork(Session::Own, &descriptors, |ready| {
        // It holds descriptors that are not its own, and with them the pipe's other end.
        let Ok(gate) = ready else { return 1 };
        drop(gate);
        copy(File::from(read), file, LARGEST);
        0
    })?;
    keeper.release()?;
    let pidfd = keeper.leave().map_err(|e| EffectError::call("dup(a pidfd)", e))?;
    Ok((write, Keeper { pidfd }))
}

/// Reads to the end, whatever becomes of what is read: who prints must neither wait nor fail for the sake of a file.
fn copy(mut from: impl Read, mut to: impl Write, most: u64) {
    let mut chunk = [0; 16 << 10];
    let mut left = Some(most);
    loop {
        let n = match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let Some(room) = left else { continue };
        let (kept, full) = (n.min(room as usize), n as u64 > room);
        let words = if full { FULL } else { "" };
        let written = to.write_all(&chunk[..kept]).and_then(|()| to.write_all(words.as_bytes()));
        left = (written.is_ok() && !full).then_some(room - kept as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_all_is_read() {
        for (said, most, kept) in
            [("abc", 3, "abc".to_owned()), ("abcd", 3, format!("abc{FULL}")), ("", 3, String::new())]
        {
            let (mut from, mut to) = (said.as_bytes(), Vec::new());
            copy(&mut from, &mut to, most);
            assert_eq!((String::from_utf8(to).unwrap(), from), (kept, &b""[..]));
        }
        let mut endless = std::io::repeat(b'x').take(1 << 20);
        let mut to = Vec::new();
        copy(&mut endless, &mut to, 1 << 16);
        assert_eq!((to.len(), endless.limit()), ((1 << 16) + FULL.len(), 0));
    }

    #[test]
    fn it_writes_until_nobody_holds_the_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output");
        let (pipe, keeper) = keep_output(File::create(&path).unwrap()).unwrap();
        let mut pipe = File::from(pipe);
        pipe.write_all(b"one\n").unwrap();
        keeper.wait(Duration::ZERO);
        pipe.write_all(b"two\n").unwrap();
        drop(pipe);
        keeper.wait(Duration::from_secs(20));
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
    }
}
