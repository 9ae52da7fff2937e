//! What every test of the program does: run it as a person does, with a state root of its own, and look at what it says and leaves.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::{Change, Part, Scope, Snapshot};
use lifecycle_tests::{Error, PATIENCE, Result, While, program};
use serde_json::Value;

/// The user that owns nothing.
pub const NOBODY: u32 = 65534;

/// The program in a lab.
pub struct Scene<'a> {
    lab: &'a Lab,
    before: Snapshot,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Told {
    /// 128 + n if it was killed by signal n, as a shell says it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Told {
    /// Fails the test unless it ended so.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    /// Fails the test unless it ended with an error.
    #[track_caller]
    pub fn ended_badly(self) -> Self {
        let code = self.code;
        assert!(code > 0, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self.ended(code)
    }

    /// Fails the test unless stderr has all these words.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        // Where a message is broken into lines depends on its length.
        let flat: String = self.err.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(flat.contains(word), "it does not say {word:?}:\n{}", self.err);
        }
        self
    }

    /// Standard error without its verdict, and without the lines that say how long a step took: on a busy machine any step may take noticeable time.
    pub fn problems(&self) -> String {
        let timed = |line: &&str| line.contains(": done in ") || line.contains(": taken back in ");
        let verdict = |line: &&str| line.contains("): ") && line.contains(", exit code ") && line.contains(", after ");
        self.err
            .lines()
            .filter(|line| !timed(line) && !verdict(line))
            .fold(String::new(), |all, line| all + line + "\n")
    }

    /// Fails the test unless stdout has all these words.
    #[track_caller]
    pub fn prints(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.out.contains(word), "it does not print {word:?}:\n{}\nstderr:\n{}", self.out, self.err);
        }
        self
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(128 + status.signal().unwrap_or_default())
}

impl<'a> Scene<'a> {
    /// The lab as it is now is what it has to be at the end.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        Ok(Self { lab, before: lab.snapshot()? })
    }

    /// Takes the machine as it is now for what it has to be at the end: after a test has made what it needs.
    pub fn begins_here(&mut self) -> Result<()> {
        self.before = self.lab.snapshot()?;
        Ok(())
    }

    /// The program with these arguments and the lab's state root.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        // A test without the program has nothing to test.
        let mut command = Command::new(program::lifecycle().unwrap_or_else(|error| panic!("{error}")));
        let mut arguments = arguments.iter();
        // Behind the command's name, and before a `--` of the container's.
        command.args(arguments.by_ref().take(1)).arg("--root").arg(self.lab.state_root()).args(arguments);
        command.current_dir(self.lab.dir()).env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn told<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Told {
        told(&mut self.command(arguments))
    }

    /// Starts it with pipes.
    pub fn start<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Started> {
        Started::new(&mut self.command(arguments))
    }

    /// Fails the test unless the machine is as it was when the scene began.
    pub fn nothing_left(&self) -> Result<()> {
        self.nothing_left_in(&self.lab.scope())
    }

    /// The same in another scope.
    pub fn nothing_left_in(&self, scope: &Scope) -> Result<()> {
        let empty_root = self.lab.state_root().display().to_string();
        let difference = self
            .before
            .returns_within(scope, PATIENCE, |change| change.name == empty_root || self.is_anothers(change))?;
        if difference.is_empty() {
            Ok(())
        } else {
            Err(Error::new("comparing the machine with what it was", difference))
        }
    }

    /// Whether it is a mount in the directory of another test, with which a lab that is not private shares the machine.
    fn is_anothers(&self, change: &Change) -> bool {
        let (own, point) = (self.lab.dir(), Path::new(&change.name));
        let beside = own.parent().and_then(|labs| point.strip_prefix(labs).ok()?.iter().next()?.to_str());
        let is_lab = beside.is_some_and(|name| name.starts_with("lctest-"));
        change.part == Part::Mounts && is_lab && !point.starts_with(own)
    }

    /// Writes a file in the lab's directory.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.lab.dir().join(name);
        std::fs::write(&path, text).when(|| format!("writing {name}"))?;
        Ok(path)
    }

    /// The state of a run, as `runs` tells it; none if it has no such run.
    pub fn state_of(&self, id: &str) -> Result<Option<String>> {
        let runs = self.told(&["runs", "--format", "json"]).ended(0);
        let runs: Value = serde_json::from_str(&runs.out).when(|| format!("parsing {}", runs.out))?;
        let run = runs.as_array().into_iter().flatten().find(|run| run["id"] == id);
        Ok(run.and_then(|run| run["state"].as_str()).map(str::to_owned))
    }
}

/// Runs a command to its end. What it wrote is in files, not in pipes: a container that stays holds its stdout open.
#[track_caller]
pub fn told(command: &mut Command) -> Told {
    told_from(command, Stdio::null())
}

/// The same, with its standard input.
#[track_caller]
pub fn told_from(command: &mut Command, stdin: Stdio) -> Told {
    let shown = format!("{command:?}");
    let started = Started::with(command.stdin(stdin)).and_then(Started::end);
    started.unwrap_or_else(|error| panic!("{shown}: {error}"))
}

/// Lets a command run as the user that owns nothing.
pub fn as_nobody(command: &mut Command) -> &mut Command {
    command.uid(NOBODY).gid(NOBODY)
}

/// A command that is running.
pub struct Started {
    child: std::process::Child,
    stdout: tempfile::NamedTempFile,
    stderr: tempfile::NamedTempFile,
}

impl Started {
    /// Starts it with a pipe to its stdin.
    pub fn new(command: &mut Command) -> Result<Self> {
        Self::with(command.stdin(Stdio::piped()))
    }

    /// Starts it with files behind stdout and stderr that can be looked at while it runs.
    fn with(command: &mut Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let file = || tempfile::NamedTempFile::new_in("/tmp").when(|| "making a file for the output".into());
        let (stdout, stderr) = (file()?, file()?);
        let end =
            |file: &tempfile::NamedTempFile| file.reopen().map(Stdio::from).when(|| "sharing the output file".into());
        command.stdout(end(&stdout)?).stderr(end(&stderr)?);
        let child = command.spawn().when(|| shown)?;
        // The command keeps what it was given open for as long as it lives.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child, stdout, stderr })
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.pid()).ok_or_else(|| Error::new("sending a signal", "no pid"))?;
        rustix::process::kill_process(pid, signal).when(|| format!("sending {signal:?} to {}", self.pid()))
    }

    /// Writes to its stdin, and closes that if it was the last.
    pub fn type_in(&mut self, text: &str, last: bool) -> Result<()> {
        let stdin = self.child.stdin.as_mut().ok_or_else(|| Error::new("writing to stdin", "it is closed"))?;
        stdin.write_all(text.as_bytes()).when(|| "writing to stdin".into())?;
        if last {
            drop(self.child.stdin.take());
        }
        Ok(())
    }

    /// Waits until it has written these words to stdout or stderr.
    pub fn wait_for(&mut self, words: &str) -> Result<()> {
        self.wait_until(words, |out, err| out.contains(words) || err.contains(words))
    }

    fn wait_until(&mut self, what: &str, there: impl Fn(&str, &str) -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let ended = self.child.try_wait().when(|| "waiting for the program".into())?;
            let (out, err) = (read(&self.stdout)?, read(&self.stderr)?);
            if there(&out, &err) {
                return Ok(());
            }
            if ended.is_some() || Instant::now() > deadline {
                let mut why = String::from(if ended.is_some() { "it ended first" } else { "it did not come" });
                let _ = write!(why, "\nstdout:\n{out}\nstderr:\n{err}");
                return Err(Error::new(format!("waiting for {what:?}"), why));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end.
    pub fn end(mut self) -> Result<Told> {
        drop(self.child.stdin.take());
        let status = self.child.wait().when(|| "waiting for the program".into())?;
        let mut err = read(&self.stderr)?;
        // Steps that take long are told of; where the processor is emulated, that is any of them.
        if std::env::var_os("LIFECYCLE_IN_GUEST").is_some() {
            err = err.split_inclusive('\n').filter(|line| !line.contains(": done in ")).collect();
        }
        Ok(Told { code: code(status), out: read(&self.stdout)?, err })
    }
}

fn read(file: &tempfile::NamedTempFile) -> Result<String> {
    let bytes = std::fs::read(file.path()).when(|| format!("reading {}", file.path().display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
