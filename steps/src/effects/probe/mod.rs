//! Waiting until something is ready: a worker tries, pauses, and tries again.

mod command;
mod http;
mod tcp;

pub use command::ProbeCommand;
pub use http::{ProbeHttp, Url};
pub use tcp::ProbeTcp;
pub(crate) use tcp::address;

use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Applied, Cx};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::types::Millis;
use lifecycle_engine::value::Handle;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::net::netns::Netns;
use crate::outcomes::Process;
use crate::spawn::{Leash, worker};

/// How often and how long a probe tries, and from where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// The pause after the first try; doubled after each up to a second.
    pub interval: Millis,
    /// When the probe gives up: no try begins after this time.
    pub within: Millis,
    /// The process in whose network namespace it tries; the host's if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<Handle<Process>>,
}

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest that one try over the network may take. Meanwhile the worker does not see that its engine has gone.
const TRY: Duration = Duration::from_secs(1);

/// Why a try has failed.
#[derive(Debug)]
enum NotReady {
    /// It may be ready at the next one: the reason, and what was printed.
    Yet(String, Vec<String>),
    /// No other try will be better.
    Ever(EffectError),
}

impl NotReady {
    fn yet(reason: impl ToString) -> Self {
        Self::Yet(reason.to_string(), Vec::new())
    }
}

impl From<EffectError> for NotReady {
    fn from(error: EffectError) -> Self {
        Self::Ever(error)
    }
}

impl From<std::io::Error> for NotReady {
    fn from(error: std::io::Error) -> Self {
        // What another try cannot change: no descriptors, no memory, no permission.
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Self::Ever(EffectError::call("connect", error)),
            _ => Self::yet(
                error.raw_os_error().map_or_else(|| error.to_string(), lifecycle_engine::error::errno_in_words),
            ),
        }
    }
}

impl Pace {
    /// For examples and tests.
    fn quick() -> Self {
        Self { interval: Millis(10), within: Millis(10_000), netns: None }
    }

    /// What is added to an effect's description.
    fn describe(&self) -> String {
        let netns = self.netns.as_ref().map_or_else(String::new, |p| format!(" from the network of {p}"));
        format!("{netns}, within {}", self.within)
    }

    /// Starts the worker.
    fn probe(
        &self,
        what: &str,
        cx: &Cx,
        mut attempt: impl FnMut(&Leash) -> Result<(), NotReady>,
    ) -> Result<Applied, EffectError> {
        let netns = self.netns.as_ref().map(|p| Netns::of(&cx.resolve(p)?)).transpose()?;
        let keep = netns.as_ref().map_or_else(Vec::new, |n| n.fds().to_vec());
        let working = worker(what, &keep, |leash| {
            netns.as_ref().map_or(Ok(()), Netns::join)?;
            self.until_ready(what, leash, &mut attempt)
        })?;
        Ok(Applied::Pending(Box::new(working)))
    }

    fn until_ready(
        &self,
        what: &str,
        leash: &Leash,
        attempt: &mut dyn FnMut(&Leash) -> Result<(), NotReady>,
    ) -> Result<Value, EffectError> {
        let end = Instant::now() + self.within.duration();
        let mut pause = self.interval.duration().max(Duration::from_millis(1));
        let mut before = String::new();
        loop {
            let (reason, output) = match attempt(leash) {
                Ok(()) => return Ok(Value::Null),
                Err(NotReady::Ever(error)) => return Err(error),
                Err(NotReady::Yet(reason, output)) => (reason, output),
            };
            if Instant::now() >= end {
                let error = EffectError::new(format!("{what} is not ready after {}: {reason}", self.within));
                // ENETUNREACH for an address of its own means that not even `lo` is up there.
                let unreachable = self.netns.is_some() && reason.starts_with("Network is unreachable");
                let help = unreachable.then(|| {
                    "in a new network namespace nothing is up before a step says so: `net.loopback`, `net.interface`".to_owned()
                });
                return Err(EffectError { output, help, ..error });
            }
            if reason != before {
                leash.say(format!("{what} is not ready yet: {reason}"));
                before = reason;
            }
            leash.wait(&[], Some(end.min(Instant::now() + pause)))?;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::testing::{Bench, drive};

    fn run(
        pace: &Pace,
        attempt: impl FnMut(&Leash) -> Result<(), NotReady>,
    ) -> (Result<Value, EffectError>, Vec<String>) {
        let mut bench = Bench::new();
        let answer = bench.with(|cx| {
            let Applied::Pending(pending) = pace.probe("a test", cx, attempt).unwrap() else { panic!() };
            drive(pending, cx)
        });
        (answer, bench.lines)
    }

    #[test]
    fn a_probe_tries_until_it_is_ready_and_says_each_reason_once() {
        let mut n = 0;
        let (answer, lines) = run(&Pace::quick(), move |_| {
            n += 1;
            match n {
                1 | 2 => Err(NotReady::yet("one")),
                3 => Err(NotReady::yet("two")),
                _ => Ok(()),
            }
        });
        answer.unwrap();
        assert_eq!(lines, ["a test is not ready yet: one", "a test is not ready yet: two"]);
    }

    #[test]
    fn a_probe_gives_up_with_the_last_reason() {
        let pace = Pace { within: Millis(100), ..Pace::quick() };
        let (answer, _) = run(&pace, |_| Err(NotReady::yet("closed")));
        assert_eq!(answer.unwrap_err().what, "a test is not ready after 100ms: closed");
    }

    #[test]
    fn what_no_other_try_can_change_ends_a_probe_at_once() {
        let (answer, _) = run(&Pace::quick(), |_| Err(NotReady::Ever(EffectError::new("no such program"))));
        assert_eq!(answer.unwrap_err().what, "no such program");
    }

    #[test]
    fn a_worker_ends_when_its_engine_has_gone() {
        let pace = Pace { interval: Millis(60_000), within: Millis(600_000), netns: None };
        let mut bench = Bench::new();
        let (process, mut pending) = bench.with(|cx| {
            let Applied::Pending(mut pending) = pace.probe("a test", cx, |_| Err(NotReady::yet("no"))).unwrap() else {
                panic!()
            };
            let process: Process = serde_json::from_value(pending.started()).unwrap();
            pending.release(cx).unwrap();
            (process, pending)
        });
        assert!(crate::spawn::identity::find(&process).unwrap().is_some());
        bench.with(|cx| pending.cancel(cx));
        drop(pending);
        let deadline = Instant::now() + Duration::from_secs(5);
        while crate::spawn::identity::find(&process).unwrap().is_some() {
            assert!(Instant::now() < deadline, "it stays");
            std::thread::yield_now();
        }
    }
}
