//! Replacing a container's init by the container's program.

use std::ffi::{CStr, CString};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Sensitive, Text};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{chdir, getcwd, getpid, getuid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::find::not_found;
use crate::sys;

/// The exit code where the program cannot be executed, as shells have it.
const CANNOT_EXECUTE: i32 = 126;
/// The exit code where it is not there.
pub(super) const NOT_FOUND: i32 = 127;
/// Where a program is looked for when the environment has no PATH.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of the container's /etc/passwd is read: it is the enemy's, and may be endless (CVE-2025-4437).
const PASSWD: u64 = 1 << 20;

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
        vec![Self { args, env: vec![Sensitive("PATH=/bin".into())], cwd: "/".into(), preserve_fds: 0, listen: None }]
    }

    fn class(&self) -> Class {
        Class::Commit
    }

    fn describe(&self) -> String {
        let args: Vec<String> = self.args.iter().map(|a| quoted(&a.to_string())).collect();
        let names = self.env.iter().map(|e| name_of(&e.0)).collect::<Vec<_>>().join(" ");
        let env = if names.is_empty() { String::new() } else { format!("; env {names}") };
        let cwd = if self.cwd == Path::new("/") { String::new() } else { format!("; in {}", self.cwd.display()) };
        format!("exec {}{cwd}{env}", args.join(" "))
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let args = self.args.iter().map(|a| c_string(cx.text(a)?)).collect::<Result<Vec<_>, _>>()?;
        let mut env = self.env.iter().map(|e| cx.text(&e.0)).collect::<Result<Vec<_>, _>>()?;
        if value_of(&env, "HOME").is_none() {
            env.push(format!("HOME={}", own_home()));
        }
        if let Some(listen) = &self.listen {
            listen.tell(&mut env);
        }
        self.pass_descriptors()?;
        sys::signal::reset(None).map_err(|e| EffectError::call("sigaction(SIG_DFL)", e))?;
        let path = path_of(&env).to_owned();
        let env = env.into_iter().map(c_string).collect::<Result<Vec<_>, _>>()?;
        // Last of all, so that nothing is done by a path between the proof that it is inside and execve.
        enter(&self.cwd)?;
        // Only a failure comes back.
        Err(exec(&args, &env, &path))
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        // The process that became the program is its maker's to undo.
        Ok(Undone::Done)
    }
}

impl Exec {
    fn pass_descriptors(&self) -> Result<(), EffectError> {
        let first = 3 + self.preserve_fds as RawFd;
        sys::fd::close_on_exec_from(first)
            .map_err(|e| EffectError::call(format!("close_range({first}, ~0, CLOSE_RANGE_CLOEXEC)"), e))?;
        for fd in 3..first {
            sys::fd::inherited(fd)
                .and_then(|fd| Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?))
                .map_err(|e| {
                    EffectError::call(format!("fcntl({fd}, F_SETFD, 0)"), e)
                        .help("more descriptors are to be preserved than the caller has passed")
                })?;
        }
        Ok(())
    }
}

/// Changes to the directory that the program starts in.
pub(super) fn enter(directory: &Path) -> Result<(), EffectError> {
    let cwd = directory.display();
    chdir(directory).map_err(|e| {
        EffectError::call(format!("chdir({cwd})"), e)
            .help("the working directory must be there in the container, and its user must be allowed to enter it")
            .exit(CANNOT_EXECUTE)
    })?;
    // CVE-2024-21626: a directory outside the root, by way of a leaked descriptor.
    match getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(Errno::NOENT) => {
            Err(EffectError::new(format!("{cwd} is not inside the container's root")).exit(CANNOT_EXECUTE))
        }
        Err(e) => Err(EffectError::call("getcwd()", e).exit(CANNOT_EXECUTE)),
    }
}

/// Where the environment has programs looked for.
pub(super) fn path_of(env: &[String]) -> &str {
    value_of(env, "PATH").unwrap_or(USUAL_PATH)
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

fn value_of<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().find_map(|e| e.split_once('=').filter(|(n, _)| *n == name).map(|(_, value)| value))
}

fn c_string(text: String) -> Result<CString, EffectError> {
    CString::new(text)
        .map_err(|_| EffectError::new("an argument or environment variable holds a NUL byte").exit(CANNOT_EXECUTE))
}

/// The home directory of the process's user by the container's own /etc/passwd; `/` where that has none.
fn own_home() -> String {
    // It may be a FIFO, too, that nobody writes to.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = open("/etc/passwd", flags, Mode::empty()).map(std::fs::File::from) else { return "/".into() };
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return "/".into();
    }
    home(file.take(PASSWD), getuid().as_raw())
}

/// A user's home directory by a passwd file, whose text is anybody's.
pub fn home(passwd: impl Read, uid: u32) -> String {
    let uid = uid.to_string();
    let lines = BufReader::new(passwd).lines().map_while(Result::ok);
    let mut homes = lines.filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [_, _, id, _, _, home, ..] if *id == uid && home.starts_with('/') => Some((*home).to_owned()),
            _ => None,
        }
    });
    // CVE-2022-4318: what becomes part of an environment must not be able to become a line of a file.
    homes.find(|home| !home.chars().any(char::is_control)).unwrap_or_else(|| "/".into())
}

/// Tries each place where the program may be. Answers with the error that says most.
fn exec(args: &[CString], env: &[CString], path: &str) -> EffectError {
    let Some(program) = args.first().map(|a| a.to_string_lossy().into_owned()) else {
        return EffectError::new("there is no program to execute: args is empty").exit(CANNOT_EXECUTE);
    };
    let mut found = None;
    for candidate in candidates(&program, path) {
        let Ok(candidate) = CString::new(candidate) else { continue };
        match execve(&candidate, args, env) {
            Errno::NOENT | Errno::NOTDIR if !program.contains('/') => {}
            errno => {
                found.get_or_insert((candidate.to_string_lossy().into_owned(), errno));
            }
        }
    }
    match found {
        Some((candidate, errno)) => explain(&candidate, errno),
        None => not_found(&program, path),
    }
}

fn execve(program: &CStr, args: &[CString], env: &[CString]) -> Errno {
    let Err(errno) = nix::unistd::execve(program, args, env);
    Errno::from_raw_os_error(errno as i32)
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
