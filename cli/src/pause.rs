//! `--pause-at`: a breakpoint, with how to look inside.

use std::fmt::Write as _;
use std::io::{BufRead, Write};
use std::os::fd::{BorrowedFd, RawFd};

use lifecycle_engine::events::{Event, Paused, Watch};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

/// Prints what there is to look at, and waits for Enter.
pub struct Pause<'a> {
    /// Readable when the run is to be cancelled instead.
    pub cancel: BorrowedFd<'a>,
    /// The run's id.
    pub id: String,
}

impl Watch for Pause<'_> {
    fn event(&mut self, _: &Event) {}

    fn pause(&mut self, paused: &Paused) {
        let mut text = format!("\npaused before `{}`\n", paused.step);
        for (node, outcomes) in &paused.steps {
            for pid in outcomes.iter().filter_map(|o| pid(o)) {
                let _ = write!(
                    text,
                    "  process of `{}`: pid {pid}\n    namespaces  ls -l /proc/{pid}/ns\n    inside      nsenter -t {pid} -a sh    (its root: /proc/{pid}/root)\n    mounts      cat /proc/{pid}/mountinfo\n    cgroups     cat /proc/{pid}/cgroup\n",
                    node.step
                );
            }
        }
        let _ = writeln!(text, "  the run     lifecycle show {}\nEnter goes on, Ctrl-C takes everything back", self.id);
        // A terminal that has gone answers with end of file below.
        let _ = std::io::stderr().write_all(text.as_bytes());
        wait(self.cancel);
    }
}

fn pid(outcome: &Value) -> Option<i64> {
    outcome.get("start").and(outcome.get("pid")).and_then(Value::as_i64)
}

/// Until Enter, end of file, or a signal, which the engine takes care of.
fn wait(cancel: BorrowedFd) {
    let stdin = std::io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&cancel, PollFlags::IN)];
    while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
    if fds[1].revents().is_empty() {
        let _ = stdin.lock().read_line(&mut String::new());
    }
}

/// The signalfd's number, for the engine.
pub fn raw(fd: &impl std::os::fd::AsRawFd) -> RawFd {
    fd.as_raw_fd()
}
