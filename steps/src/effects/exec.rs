//! Replacing a container's init by the container's program.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Sensitive, Text};
use rustix::io::Errno;
use rustix::process::{Signal, getpid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::find::{find, not_found};
use super::ready::{READY, enter, pass_descriptors};
use super::seccomp::{FILTERED, LoadFilter, Message, SendListener, refused};
use crate::process::environment;
use crate::sys;
use crate::sys::exec::Program;
use crate::sys::seccomp::Filter;

/// The exit code where the program cannot be executed, as shells have it.
pub(super) const CANNOT_EXECUTE: i32 = 126;
/// The exit code where it is not there.
pub(super) const NOT_FOUND: i32 = 127;
/// Becomes the container's program.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exec {
    /// Its argv.
    pub args: Vec<Text>,
    /// Its whole environment, as `NAME=value`.
    pub env: Vec<Sensitive<Text>>,
    /// The directory that it starts in.
    pub cwd: PathBuf,
    /// How many descriptors from 3 on it gets.
    #[serde(default)]
    pub preserve_fds: u32,
    /// Those among them that are sockets of socket activation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenFds>,
    /// The filter of system calls that it runs under, where that can be loaded last of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<LastFilter>,
}

/// A filter that is the last thing before execve(2): it has to allow that, and what the program itself calls, and nothing that the runtime calls.
#[derive(Debug, Serialize, Deserialize)]
pub struct LastFilter {
    /// Its parts, in order.
    pub parts: Vec<LoadFilter>,
    /// Goes to the agent when the part that notifies is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<SendListener>,
}

/// The first descriptors from 3 on are open sockets, as the caller had them: sd_listen_fds(3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenFds {
    /// How many.
    pub count: u32,
    /// Their names, joined by colons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
}

impl ListenFds {
    /// Only the process itself knows its id in the container, and a program takes the sockets for its own by that alone.
    fn tell(&self, env: &mut Vec<String>) {
        env.retain(|entry| {
            !["LISTEN_FDS=", "LISTEN_PID=", "LISTEN_FDNAMES="].iter().any(|name| entry.starts_with(name))
        });
        env.push(format!("LISTEN_FDS={}", self.count));
        env.push(format!("LISTEN_PID={}", getpid().as_raw_nonzero()));
        env.extend(self.names.iter().map(|names| format!("LISTEN_FDNAMES={names}")));
    }
}

impl EffectDef for Exec {
    const KIND: &'static str = "exec";

    fn examples(_: &Path) -> Vec<Self> {
        let args = ["/bin/echo", "hello"].map(Text::from).to_vec();
        vec![Self {
            args,
            env: vec![Sensitive("PATH=/bin".into())],
            cwd: "/".into(),
            preserve_fds: 0,
            listen: None,
            filter: None,
        }]
    }

    fn class(&self) -> Class {
        Class::Commit
    }

    fn describe(&self) -> String {
        let args: Vec<String> = self.args.iter().map(|a| quoted(&a.to_string())).collect();
        let names = self.env.iter().map(|e| name_of(&e.0)).collect();
        let names = environment::last_of_each(names, String::as_str).join(" ");
        let env = if names.is_empty() { String::new() } else { format!("; env {names}") };
        let cwd = if self.cwd == Path::new("/") { String::new() } else { format!("; in {}", self.cwd.display()) };
        let filter = self.filter.as_ref().map_or_else(String::new, LastFilter::describe);
        format!("exec {}{cwd}{env}{filter}", args.join(" "))
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let args = self.args.iter().map(|a| cx.text(a)).collect::<Result<Vec<_>, _>>()?;
        let env = self.env.iter().map(|e| cx.text(&e.0)).collect::<Result<Vec<_>, _>>()?;
        let mut env = environment::of_process(env);
        if let Some(listen) = &self.listen {
            listen.tell(&mut env);
        }
        let path = environment::path_of(&env).to_owned();
        let program = args
            .first()
            .cloned()
            .ok_or_else(|| EffectError::new("there is no program to execute: args is empty").exit(CANNOT_EXECUTE))?;
        let mut laid_out = Program::new(c_strings(candidates(&program, &path))?, c_strings(args)?, c_strings(env)?);
        let is_ready = cx.fds.is_marked(READY);
        sys::signal::reset_to_default(if is_ready { Some(Signal::PIPE) } else { None })
            .map_err(|e| EffectError::call("sigaction(SIG_DFL)", e))?;
        // What has been done before a filter was loaded needs nothing of it any more.
        if !(is_ready && cx.fds.is_marked(FILTERED)) {
            pass_descriptors(self.preserve_fds)?;
            // After all else, so that nothing is done by a path between the proof that it is inside and execve.
            enter(&self.cwd, cx.fds)?;
        }
        let Some(filter) = &self.filter else { return Err(failure(&mut laid_out, &program, &path)) };
        // Once the filter is there, nobody can be sure to hear of a failure.
        find(&program, &path)?;
        let mut filter = filter.ready(cx)?;
        filter.load()?;
        Err(failure(&mut laid_out, &program, &path))
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        // The process that became the program is its maker's to undo.
        Ok(Undone::Done)
    }
}

impl LastFilter {
    fn describe(&self) -> String {
        self.parts.iter().map(|part| format!("; {}", part.describe())).collect::<Vec<_>>().concat()
    }

    /// All that loading takes.
    fn ready(&self, cx: &mut Cx) -> Result<ReadyFilter, EffectError> {
        let parts = self.parts.iter().map(LoadFilter::prepared).collect::<Result<_, _>>()?;
        let message = self.listener.as_ref().map(|listener| listener.message(cx)).transpose()?;
        Ok(ReadyFilter { parts, message })
    }
}

/// Not to be dropped between the last part and execve: giving memory back is a system call.
struct ReadyFilter {
    parts: Vec<Filter>,
    message: Option<Message>,
}

impl ReadyFilter {
    fn load(&mut self) -> Result<(), EffectError> {
        for part in &self.parts {
            let listener: Option<OwnedFd> = part.load().map_err(|e| refused(part, e))?;
            // The agent must be alone with it, and see the end of the message, before it has to answer.
            if let (Some(listener), Some(message)) = (listener, self.message.take()) {
                message.send(&listener)?;
            }
        }
        Ok(())
    }
}

/// Each place where a program may be. A name with a slash is a path, and is not looked for.
pub(super) fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let dirs = path.split(':').filter(|_| !program.is_empty()).map(|dir| if dir.is_empty() { "." } else { dir });
    dirs.map(|dir| format!("{}/{program}", dir.trim_end_matches('/'))).collect()
}

/// An argument as it would be typed.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./=:,@%+‹›".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut out = text.replace('\'', r"'\''");
    if out.chars().any(char::is_control) {
        out = out.escape_default().to_string();
    }
    format!("'{out}'")
}

/// The name of an environment variable; its value is nobody's business.
fn name_of(entry: &Text) -> String {
    let known = entry.to_string();
    match entry.known() {
        Some(text) => text.split('=').next().unwrap_or("").to_owned(),
        None => known.split('=').next().unwrap_or("").to_owned(),
    }
}

fn c_strings(texts: Vec<String>) -> Result<Vec<CString>, EffectError> {
    let of = |text| {
        CString::new(text)
            .map_err(|_| EffectError::new("an argument or environment variable holds a NUL byte").exit(CANNOT_EXECUTE))
    };
    texts.into_iter().map(of).collect()
}

/// Executes the program, and answers with the error that says most where it cannot be executed.
fn failure(laid_out: &mut Program, program: &str, path: &str) -> EffectError {
    let nowhere = |errno: &Errno| matches!(*errno, Errno::NOENT | Errno::NOTDIR) && !program.contains('/');
    match laid_out.execute().find(|(_, errno)| !nowhere(errno)) {
        Some((candidate, errno)) => explain(&candidate.to_string_lossy(), errno),
        None => not_found(program, path),
    }
}

pub(super) fn explain(program: &str, errno: Errno) -> EffectError {
    let code = if errno == Errno::NOENT { NOT_FOUND } else { CANNOT_EXECUTE };
    // The kernel's answer for a directory is EACCES, whose words callers match on; where it is told apart, it is told besides.
    let what = if errno == Errno::ISDIR { ": permission denied" } else { "" };
    EffectError::call(format!("execve({program:?}){what}"), errno).exit(code).help(match errno {
        Errno::NOENT => "it is not there in the container, or the interpreter that it names (#! or ELF loader) is not",
        Errno::ACCESS => {
            "it must be a file with the execute bit, readable by the container's user, on a mount without noexec"
        }
        Errno::ISDIR => "name a program, not a directory",
        Errno::NOEXEC => "it is no program for this machine: a script needs a #! line, a binary the right architecture",
        Errno::PERM => "a seccomp filter may forbid execve, or the file is set-user-id where that is not allowed",
        Errno::TOOBIG => "arguments and environment together exceed the kernel's limit, which RLIMIT_STACK lowers",
        Errno::TXTBSY => "it is open for writing",
        _ => "see execve(2)",
    })
}
