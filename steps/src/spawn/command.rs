//! A program of the host, run as a child: a command or a hook.

use std::ffi::CString;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lifecycle_engine::effect::{Cx, Interest, Pending, Said};
use lifecycle_engine::error::EffectError;
use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value;

use crate::outcomes::CgroupJoin;
use crate::sys::child::ignore_pipe;

use super::Exit;
use super::child::{Child, Session};
use super::output::{Secrets, Stream, Tail, keep};

/// A program to run.
#[derive(Clone, Default)]
pub struct Command {
    /// How messages name it: `hook /usr/bin/x`, `command touch`.
    pub what: String,
    /// The program. Without a slash it is searched for in the engine's PATH.
    pub program: PathBuf,
    /// Its argv, the name at index 0 included.
    pub args: Vec<String>,
    /// Its whole environment as `NAME=value`; `None` is the engine's own.
    pub env: Option<Vec<String>>,
    /// Its working directory; `None` is the engine's own.
    pub cwd: Option<PathBuf>,
    /// What it reads from standard input.
    pub stdin: Vec<u8>,
    /// It has the engine's own standard input instead.
    pub own_stdin: bool,
    /// Keep what it prints on standard output apart.
    pub capture: bool,
    /// Killed after this time, counted from its release.
    pub limit: Option<Duration>,
    /// Whose session it is in.
    pub session: Session,
    /// The cgroup that it joins before it begins.
    pub cgroup: CgroupJoin,
    /// It has a new session keyring instead of the caller's.
    pub new_keyring: bool,
    /// Descriptors of the engine that it has under their own numbers.
    pub pass: Vec<RawFd>,
    /// A write that nobody can read any more is an error to it, instead of its end by SIGPIPE.
    pub outlives_pipes: bool,
    /// Must not appear in what is shown of its output.
    pub secrets: Secrets,
}

/// How a program ended, and what it printed.
#[derive(Clone, Debug)]
pub struct Ended {
    /// [`Command::what`].
    pub what: String,
    /// How.
    pub exit: Exit,
    /// Standard output, trimmed, if it was captured; at most [`super::output::CAPTURED`] bytes.
    pub stdout: String,
    /// The end of what it printed.
    pub tail: Vec<String>,
}

impl Ended {
    /// The failure that this end is.
    pub fn error(self) -> EffectError {
        EffectError { output: self.tail, ..EffectError::new(format!("{} {}", self.what, self.exit)) }
    }
}

type Finish = Box<dyn FnOnce(Ended) -> Result<Value, EffectError>>;

/// A program that has been started, or waits for its release.
pub struct Running {
    what: String,
    child: Child,
    status: OwnedFd,
    stdout: Stream,
    stderr: Stream,
    tail: Tail,
    secrets: Secrets,
    limit: Option<Duration>,
    deadline: Option<Instant>,
    timed_out: bool,
    finish: Option<Finish>,
}

impl Command {
    /// Starts it, inert. `finish` turns its end into the effect's outcome.
    pub fn start(
        self,
        finish: impl FnOnce(Ended) -> Result<Value, EffectError> + 'static,
    ) -> Result<Running, EffectError> {
        let exec = Exec::of(&self)?;
        let stdin = if self.own_stdin { None } else { Some(sealed(&self.stdin)) };
        let stdin = stdin.transpose().map_err(|e| EffectError::call("memfd_create(\"stdin\")", e))?;
        let pipe = |what| pipe_with(PipeFlags::CLOEXEC).map_err(|e| EffectError::call(format!("pipe2({what})"), e));
        let (out_read, out) = pipe("stdout")?;
        let (err_read, err) = pipe("stderr")?;
        let (status, tell) = pipe("status")?;
        for fd in [&out_read, &err_read, &status] {
            let flags = fcntl_getfl(fd).map_err(|e| EffectError::call("fcntl(F_GETFL)", e))?;
            fcntl_setfl(fd, flags | OFlags::NONBLOCK)
                .map_err(|e| EffectError::call("fcntl(F_SETFL, O_NONBLOCK)", e))?;
        }
        let mut keep = [&out, &err, &tell].map(AsRawFd::as_raw_fd).to_vec();
        keep.extend(stdin.iter().map(AsRawFd::as_raw_fd).chain(self.pass.iter().copied()));
        let (cgroup, pass, outlives_pipes, new_keyring) =
            (self.cgroup, self.pass, self.outlives_pipes, self.new_keyring);
        let child = Child::fork(self.session, &keep, |ready| {
            let ready = ready.and_then(|_gate| join(&cgroup)).and_then(|()| hand_on(&pass));
            let ready = ready.and_then(|()| if outlives_pipes { ignore_pipe() } else { Ok(()) });
            let ready = ready.and_then(|()| if new_keyring { leave_keyring() } else { Ok(()) });
            let failed = ready.and_then(|()| exec.run(stdin.as_ref(), &out, &err));
            // Only a failure comes back, and the engine may have gone meanwhile.
            let _ = failed.map_err(|e| rustix::io::write(&tell, &e.raw_os_error().unwrap_or(0).to_ne_bytes()));
            NOT_STARTED
        })?;
        Ok(Running {
            what: self.what,
            child,
            status,
            stdout: Stream::new(out_read, self.capture),
            stderr: Stream::new(err_read, false),
            tail: Tail::default(),
            secrets: self.secrets,
            limit: self.limit,
            deadline: None,
            timed_out: false,
            finish: Some(Box::new(finish)),
        })
    }
}

/// The exit code of a child that could not become the program, as in a shell.
const NOT_STARTED: i32 = 126;

/// `0` is whoever writes it.
fn join(cgroup: &CgroupJoin) -> std::io::Result<()> {
    let v1 = cgroup.v1.iter().map(|dir| dir.join("tasks"));
    let v2 = cgroup.v2.iter().map(|dir| dir.join("cgroup.procs"));
    v1.chain(v2).try_for_each(|file| std::fs::write(file, "0"))
}

fn leave_keyring() -> std::io::Result<()> {
    match crate::sys::keyring::new_session_keyring() {
        // A kernel without keys has none of the caller's either.
        Err(e) if e.raw_os_error() == Some(nix::errno::Errno::ENOSYS as i32) => Ok(()),
        joined => joined.map(drop),
    }
}

fn hand_on(pass: &[RawFd]) -> std::io::Result<()> {
    pass.iter().try_for_each(|fd| {
        let fd = crate::sys::fd::inherited(*fd)?;
        Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
    })
}

/// All that exec needs, made before the fork.
struct Exec {
    program: CString,
    args: Vec<CString>,
    env: Option<Vec<CString>>,
    cwd: Option<PathBuf>,
}

impl Exec {
    fn of(command: &Command) -> Result<Self, EffectError> {
        let c = |text: &str| {
            CString::new(text).map_err(|_| EffectError::new(format!("{}: an argument holds a null byte", command.what)))
        };
        let program = CString::new(command.program.as_os_str().as_encoded_bytes())
            .map_err(|_| EffectError::new(format!("{}: its path holds a null byte", command.what)))?;
        let args = command.args.iter().map(|a| c(a)).collect::<Result<_, _>>()?;
        let env = command.env.as_ref().map(|env| env.iter().map(|e| c(e)).collect::<Result<_, _>>()).transpose()?;
        Ok(Self { program, args, env, cwd: command.cwd.clone() })
    }

    /// Becomes the program. Comes back only with an error.
    fn run(&self, stdin: Option<&OwnedFd>, stdout: &OwnedFd, stderr: &OwnedFd) -> std::io::Result<()> {
        stdin.map(rustix::stdio::dup2_stdin).transpose()?;
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)?;
        if let Some(cwd) = &self.cwd {
            rustix::process::chdir(cwd)?;
        }
        match &self.env {
            Some(env) => nix::unistd::execvpe(&self.program, &self.args, env)?,
            None => nix::unistd::execvp(&self.program, &self.args)?,
        };
        Ok(())
    }
}

/// A memory file with the bytes, to be read from the start: unlike a pipe it never makes the writer wait.
fn sealed(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("stdin", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}

/// What is left to another effect of the same engine.
pub(crate) struct Left {
    /// Readable once the program has ended.
    pub pidfd: OwnedFd,
    /// What it prints, if it still can.
    pub stdout: Option<OwnedFd>,
    /// As `stdout`.
    pub stderr: Option<OwnedFd>,
}

impl Running {
    /// Leaves the program to another effect, which sees to its end.
    pub(crate) fn leave(mut self) -> std::io::Result<Left> {
        Ok(Left { pidfd: self.child.leave()?, stdout: self.stdout.leave(), stderr: self.stderr.leave() })
    }

    fn read(&mut self, cx: &mut Cx) -> Result<(), EffectError> {
        let Self { stdout, stderr, tail, secrets, .. } = self;
        let mut line = |text: String| keep(tail, secrets, &mut |line| (cx.output)(Said::Line(line)), &text);
        let what = |name| move |e| EffectError::call(format!("read({name} of a child)"), e);
        stdout.read(&mut line).map_err(what("stdout"))?;
        stderr.read(&mut line).map_err(what("stderr"))
    }

    /// The program that could not be started at all: what `run` in the child has left in the pipe.
    fn not_started(&self) -> Option<EffectError> {
        let mut errno = [0u8; 4];
        match rustix::io::read(&self.status, &mut errno) {
            Ok(4) => Some(refused(&self.what, i32::from_ne_bytes(errno))),
            _ => None,
        }
    }

    fn ended(&mut self, exit: Exit, cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        // The program is gone; a process that it left behind may hold the pipes open for ever, so their end is not waited for.
        self.read(cx)?;
        let Self { stdout, stderr, tail, secrets, .. } = self;
        let mut line = |text: String| keep(tail, secrets, &mut |line| (cx.output)(Said::Line(line)), &text);
        stdout.finish(&mut line);
        stderr.finish(&mut line);
        if let Some(error) = self.not_started() {
            return Err(error);
        }
        let exit = match self.limit.filter(|_| self.timed_out) {
            Some(limit) => Exit::TimedOut(limit),
            None => exit,
        };
        let stdout = self.secrets.scrub(&self.stdout.captured());
        let ended = Ended { what: self.what.clone(), exit, stdout, tail: self.tail.lines() };
        match self.finish.take() {
            Some(finish) => finish(ended).map(Some),
            None => Err(EffectError::new(format!("{} has already ended", self.what))),
        }
    }
}

fn refused(what: &str, errno: i32) -> EffectError {
    let error =
        EffectError::call(format!("{what} could not be started: execve"), std::io::Error::from_raw_os_error(errno));
    match errno {
        nix::libc::ENOENT => error.help("The program, its interpreter or its working directory does not exist."),
        nix::libc::EACCES => error.help("The program is not executable, or lies on a file system mounted noexec."),
        nix::libc::ENOEXEC => {
            error.help("The program is neither a binary for this machine nor a script that begins with `#!`.")
        }
        _ => error,
    }
}

impl Pending for Running {
    fn started(&self) -> Value {
        self.child.identity().ok().and_then(|p| serde_json::to_value(p).ok()).unwrap_or_default()
    }

    fn release(&mut self, _cx: &mut Cx) -> Result<(), EffectError> {
        self.child.release()?;
        self.child.forget_gate();
        self.deadline = self.limit.and_then(|limit| Instant::now().checked_add(limit));
        Ok(())
    }

    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(Interest::read(self.child.pidfd().as_raw_fd()));
        wants.extend([&self.stdout, &self.stderr].into_iter().filter_map(Stream::fd).map(Interest::read));
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn advance(&mut self, cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        self.read(cx)?;
        if let Some(exit) = self.child.exit()? {
            return self.ended(exit, cx);
        }
        if self.deadline.is_some_and(|at| at <= Instant::now()) {
            self.deadline = None;
            self.timed_out = true;
            self.child.kill()?;
        }
        Ok(None)
    }

    fn cancel(&mut self, _cx: &mut Cx) {
        // What cannot be killed now is found by its identity in undo, which reports it.
        let _ = self.child.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity;
    use super::super::testing::{Bench, drive};
    use super::*;
    use crate::outcomes::Process;
    use serde_json::json;

    fn shell(script: &str) -> Command {
        Command {
            what: "command sh".into(),
            program: "/bin/sh".into(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: Some(vec!["PATH=/usr/bin:/bin".into()]),
            capture: true,
            ..Command::default()
        }
    }

    fn end(bench: &mut Bench, command: Command) -> Result<Ended, EffectError> {
        let end = std::rc::Rc::new(std::cell::RefCell::new(None));
        let keep = end.clone();
        let running = command.start(move |ended| {
            *keep.borrow_mut() = Some(ended);
            Ok(json!(true))
        })?;
        bench.with(|cx| drive(Box::new(running), cx))?;
        Ok(end.take().unwrap())
    }

    #[test]
    fn a_program_gets_its_input_and_its_output_comes_back() {
        let mut bench = Bench::new();
        let mut command = shell("read word; echo got $word; echo trouble >&2; exit 3");
        command.stdin = b"hello\n".to_vec();
        let ended = end(&mut bench, command).unwrap();
        assert_eq!(ended.exit, Exit::Code(3));
        assert_eq!(ended.stdout, "got hello");
        assert_eq!(bench.lines, ["got hello", "trouble"]);
        let error = ended.error();
        assert_eq!(error.what, "command sh exited with status 3");
        assert_eq!(error.output, ["got hello", "trouble"]);
    }

    #[test]
    fn a_program_has_no_descriptor_of_ours_and_a_session_of_its_own() {
        let mut bench = Bench::new();
        let leak = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 200).unwrap();
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
        // The fourth is the directory that ls reads.
        let ended = end(&mut bench, shell("ls /proc/self/fd; cut -d' ' -f1,5,6 /proc/$$/stat")).unwrap();
        let mut lines = ended.stdout.lines();
        assert!(lines.by_ref().take(4).eq(["0", "1", "2", "3"]), "{}", ended.stdout);
        let ids: Vec<_> = lines.next().unwrap().split(' ').collect();
        assert_eq!((ids[0], ids[0]), (ids[1], ids[2]));
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_the_kernels_answer() {
        let command =
            Command { what: "hook /nonexistent/hook".into(), program: "/nonexistent/hook".into(), ..shell("") };
        let error = end(&mut Bench::new(), command).unwrap_err();
        assert_eq!(error.errno, Some(nix::libc::ENOENT));
        assert_eq!(error.what, "hook /nonexistent/hook could not be started: execve");
    }

    #[test]
    fn a_time_limit_ends_the_whole_group() {
        let mut command = shell("sleep 60 & echo $!; wait");
        command.limit = Some(Duration::from_millis(200));
        let ended = end(&mut Bench::new(), command).unwrap();
        assert_eq!(ended.exit, Exit::TimedOut(Duration::from_millis(200)));
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", ended.stdout)).unwrap_or_else(|_| ") Z".into());
        let deadline = Instant::now() + Duration::from_secs(5);
        while !stat().contains(") Z") {
            assert!(Instant::now() < deadline, "it stays: {}", stat());
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_left_in_the_background_does_not_hold_up_the_end() {
        let ended = end(&mut Bench::new(), shell("sleep 600 & echo $!")).unwrap();
        // It is there still.
        let pid = rustix::process::Pid::from_raw(ended.stdout.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn without_its_release_a_program_never_runs_and_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ran");
        let running = shell(&format!("touch {}", file.display())).start(|_| Ok(Value::Null)).unwrap();
        let started: Process = serde_json::from_value(running.started()).unwrap();
        assert!(identity::find(&started).unwrap().is_some());
        drop(running);
        let deadline = Instant::now() + Duration::from_secs(5);
        while identity::find(&started).unwrap().is_some() {
            assert!(Instant::now() < deadline, "it stays");
            std::thread::yield_now();
        }
        assert!(!file.exists());
    }
}
