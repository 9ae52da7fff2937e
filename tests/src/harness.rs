//! Runs tests, each in a process and, if it needs root, in a lab of its own.
//!
//! What a test needs and the machine lacks is found before it starts; the test is then skipped, and the reason printed with its name.

use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getuid, pidfd_open, pidfd_send_signal};

use crate::lab::{self, Lab};
use crate::machine::{cgroup_directories, remove_cgroup};
use crate::{Error, Result, While, audit, criu, program};

/// What a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The superuser; such a test gets a private lab.
    Root,
    /// A program, by name.
    Program(&'static str),
    /// A file that only some kernels have, and in words what it stands for.
    Kernel(&'static str, &'static str),
    /// Something else that was looked for: whether it is there, and in words what it is.
    Other(bool, &'static str),
}

impl Need {
    /// Why it is not met; none if it is.
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!getuid().is_root()).then(|| "needs root".into()),
            Self::Program(name) => program::find(name).is_none().then(|| format!("needs the program {name}")),
            Self::Other(there, what) => (!there).then(|| format!("needs {what}")),
            Self::Kernel(file, what) => (!Path::new(file).exists()).then(|| format!("needs a kernel with {what}")),
        }
    }
}

/// What a test comes to: an error's text is what is printed.
pub type TestResult = std::result::Result<(), Box<dyn std::error::Error>>;

type Body = dyn Fn(&Lab) -> TestResult + Send + Sync;

/// How many times slower than a real processor the guest's is, at the most.
const SLOWNESS: u32 = 8;

/// Whether this is the guest of `tests/guest`, which says so and whose processor is emulated.
fn in_guest() -> bool {
    std::env::var_os("LIFECYCLE_IN_GUEST").is_some()
}

/// One test.
#[derive(Clone)]
pub struct Test {
    name: String,
    needs: Vec<Need>,
    limit: Duration,
    body: Arc<Body>,
}

impl Test {
    /// A test that is named after the behaviour.
    pub fn new(name: impl Into<String>, body: impl Fn(&Lab) -> TestResult + Send + Sync + 'static) -> Self {
        Self { name: name.into(), needs: Vec::new(), limit: Duration::from_secs(60), body: Arc::new(body) }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same test, named as one of a group.
    pub fn within(mut self, group: &str) -> Self {
        self.name = format!("{group}::{}", self.name);
        self
    }

    /// What it cannot do without.
    pub fn needs(mut self, needs: &[Need]) -> Self {
        self.needs.extend_from_slice(needs);
        self
    }

    /// How long it may take before it is killed and has failed.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    fn missing(&self) -> Option<String> {
        let reasons: Vec<String> = self.needs.iter().filter_map(|need| need.missing()).collect();
        (!reasons.is_empty()).then(|| reasons.join(", "))
    }

    fn private(&self) -> bool {
        self.needs.contains(&Need::Root)
    }
}

/// The tests of one test program, by function.
#[macro_export]
macro_rules! tests {
    ($($(#[needs($($need:expr),*)])? $test:path),* $(,)?) => {
        vec![$($crate::harness::Test::new(stringify!($test).replace(' ', ""), $test)$(.needs(&[$($need),*]))?),*]
    };
}

/// Prints what a passing test wants known, such as how many cases it has tried.
pub fn note(text: impl std::fmt::Display) {
    println!("note: {text}");
}

/// The whole of a test program's `main`.
pub fn main(tests: Vec<Test>) -> ExitCode {
    if let Some(code) = criu::acts() {
        return code;
    }
    match std::env::var(lab::INSIDE) {
        Ok(inside) => run_inside(&inside, &tests).unwrap_or_else(|error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        }),
        Err(_) => run_all(tests),
    }
}

fn run_all(tests: Vec<Test>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A process per test, and little else to wait for: as many as there are processors.
    arguments.test_threads = arguments.test_threads.or(std::thread::available_parallelism().ok().map(Into::into));
    let trials = tests.into_iter().map(|test| {
        let name = test.name.clone();
        Trial::ignorable_test(name, move || match test.missing() {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => run_one(&test).map(|()| Completion::Completed),
        })
    });
    let tests = libtest_mimic::run(&arguments, trials.collect());
    if arguments.list {
        return tests.exit_code();
    }
    let audit = libtest_mimic::run(&Arguments::default(), vec![audit::trial()]);
    if tests.has_failed() { tests.exit_code() } else { audit.exit_code() }
}

/// Every test of every test program on the machine has another token.
fn new_token() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{}{}-{}", audit::PREFIX, std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs one test in a process of its own, and looks after what it leaves.
fn run_one(test: &Test) -> std::result::Result<(), Failed> {
    let token = new_token();
    let outcome = in_process(test, &token);
    let left = cgroup_directories(&[token]).and_then(|left| {
        left.iter().try_for_each(|dir| remove_cgroup(dir))?;
        Ok(left)
    });
    outcome?;
    let left = left.map_err(|error| Failed::from(error.to_string()))?;
    if left.is_empty() {
        return Ok(());
    }
    let left: Vec<String> = left.iter().map(|dir| dir.display().to_string()).collect();
    Err(format!("the test left cgroups behind (removed now):\n{}", left.join("\n")).into())
}

fn in_process(test: &Test, token: &str) -> std::result::Result<(), Failed> {
    let stage = if test.private() { "outside" } else { "inside" };
    let started = || -> Result<_> {
        let output = tempfile::tempfile().when(|| "making a file for the output".into())?;
        let share = || output.try_clone().map(Stdio::from).when(|| "sharing the output file".into());
        let program = std::env::current_exe().when(|| "finding this program".into())?;
        let child = Command::new(program)
            .env(lab::INSIDE, format!("{stage}:{}", test.name))
            .env(lab::TOKEN, token)
            .stdin(Stdio::null())
            .stdout(share()?)
            .stderr(share()?)
            .spawn()
            .when(|| format!("starting {}", test.name))?;
        Ok((child, output))
    };
    let failed = |error: Error| Failed::from(error.to_string());
    let limit = test.limit * if in_guest() { SLOWNESS } else { 1 };
    let (mut child, mut output) = started().map_err(failed)?;
    let late = kill_after(child.id(), limit).map_err(failed)?;
    let status = child.wait().map_err(|error| Failed::from(format!("waiting for the test: {error}")))?;
    let mut text = Vec::new();
    output.rewind().and_then(|()| output.read_to_end(&mut text)).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&text);
    if late {
        return Err(format!("not done after {} s\n{text}", limit.as_secs()).into());
    }
    judge(status, &text, &test.name)
}

fn judge(status: ExitStatus, text: &str, name: &str) -> std::result::Result<(), Failed> {
    if status.success() {
        for line in text.lines().filter_map(|line| line.strip_prefix("note: ")) {
            eprintln!("{name}: {line}");
        }
        return Ok(());
    }
    let how = match status.signal() {
        Some(signal) => format!("killed by signal {signal}\n"),
        None => String::new(),
    };
    Err(format!("{how}{text}").into())
}

/// Waits until the process has ended or its time is up; then kills it. Whether it was late.
fn kill_after(pid: u32, limit: Duration) -> Result<bool> {
    let doing = || format!("waiting for process {pid}");
    let pid = Pid::from_raw(pid.cast_signed()).ok_or_else(|| Error::new(doing(), "no such pid"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).when(doing)?;
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).when(doing)?;
    if ended == 0 {
        // Its lab goes with it: process 1 is tied to it by a parent-death signal.
        pidfd_send_signal(&pidfd, Signal::KILL).when(doing)?;
    }
    Ok(ended == 0)
}

/// In the process that [`in_process`] made, and in process 1 of the lab.
fn run_inside(inside: &str, tests: &[Test]) -> Result<ExitCode> {
    let doing = || format!("finding the test of {inside}");
    let (stage, name) = inside.split_once(':').ok_or_else(|| Error::new(doing(), "no stage"))?;
    let test = tests.iter().find(|test| test.name == name).ok_or_else(|| Error::new(doing(), "no such test"))?;
    if stage == "outside" {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).when(doing)?;
        return lab::enter(&format!("lab:{name}"));
    }
    let private = stage == "lab";
    if private {
        lab::furnish()?;
    } else {
        rustix::process::set_child_subreaper(Pid::from_raw(1)).when(|| "becoming a subreaper".into())?;
    }
    let token = std::env::var(lab::TOKEN).when(|| "reading the lab's token".into())?;
    let lab = Lab::here(token, private)?;
    Ok(match (test.body)(&lab) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}
