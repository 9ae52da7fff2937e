//! The clone that makes a container's init.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use nix::libc;
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cgroup::{Frozen, Thawing};
use super::stage::Talk;
use crate::outcomes::Process;
use crate::process::{Console, Handover, Stdio, Watched};
use crate::spec::NamespaceType;
use crate::sys::clone::Clone;

/// Makes init: a copy of the engine in new namespaces, inert until the engine's first line.
///
/// Its outcome is the process's identity. Undo kills it, which ends every process in its pid namespace and every namespace that nothing else holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct CloneInit {
    /// The namespaces that are made along with it.
    pub namespaces: Vec<NamespaceType>,
    /// What it is given.
    pub handover: Handover,
    /// The process that has joined namespaces before, and now makes init as its sibling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Handle<Process>>,
}

impl EffectDef for CloneInit {
    const KIND: &'static str = "clone";

    fn examples(_: &Path) -> Vec<Self> {
        let handover = Handover { stdio: Stdio::Null, ..Handover::default() };
        let namespaces = vec![NamespaceType::Pid, NamespaceType::Mount, NamespaceType::Uts, NamespaceType::Ipc];
        vec![
            Self { namespaces, handover: handover.clone(), stage: None },
            Self { namespaces: Vec::new(), handover, stage: None },
        ]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let made: Vec<&str> = self.namespaces.iter().map(|n| n.name()).collect();
        let mut text = match (made.is_empty(), &self.stage) {
            (true, None) => "clone init, sharing every namespace".to_owned(),
            (true, Some(stage)) => format!("clone init out of {stage}"),
            (false, None) => format!("clone init into new namespaces: {}", made.join(", ")),
            (false, Some(stage)) => format!("clone init out of {stage} into new namespaces: {}", made.join(", ")),
        };
        text.push_str(&self.handover.describe());
        text
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        match &self.stage {
            Some(stage) => self.by_stage(stage, cx),
            None => self.directly(cx),
        }
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        // Without an identity in the journal it was never told to begin, and has gone with its engine.
        record.outcome::<Process>().map_or(Ok(Undone::Done), |init| end(&init, cx))
    }

    fn why_ended(&self) -> Option<EffectError> {
        let join = self.handover.cgroup.as_ref()?;
        join.v1.iter().chain(&join.v2).find_map(|at| out_of_memory(at))
    }
}

/// What the kernel says of a cgroup in which it has killed because memory ran out: memory.rst, "memory.oom_control"; cgroup-v2.rst, "memory.events".
fn out_of_memory(at: &Path) -> Option<EffectError> {
    let text = |file: &str| std::fs::read_to_string(at.join(file)).ok().map(|text| text.trim().to_owned());
    let events = text("memory.oom_control").or_else(|| text("memory.events"))?;
    let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    if kills.trim() == "0" {
        return None;
    }
    let first = |files: &[&str]| files.iter().find_map(|file| text(file)).unwrap_or_else(|| "?".into());
    let limit = first(&["memory.limit_in_bytes", "memory.max"]);
    let most = first(&["memory.max_usage_in_bytes", "memory.peak", "memory.current"]);
    let what = format!(
        "the process was killed because memory ran out: the limit of {limit} bytes in {} is too low, {most} bytes were in use",
        at.display()
    );
    Some(EffectError::new(what).help(
        "raise linux.resources.memory.limit: a few MiB are needed to make the container, whatever its program needs",
    ))
}

/// Kills a process that the run made and waits for its end, whether or not its cgroup is frozen.
pub(super) fn end(process: &Process, cx: &Cx) -> Result<Undone, EffectError> {
    // What runs beside a container does not end it.
    let frozen = Frozen::of(process.pid, cx.run.around().is_none(), cx);
    Ok(match process.kill()? {
        Undone::Pending(dying) => Undone::Pending(Box::new(Thawing::new(dying, frozen))),
        ended => ended,
    })
}

impl CloneInit {
    fn directly(&self, cx: &mut Cx) -> Result<Applied, EffectError> {
        let mut ends = self.handover.open(cx)?;
        ends.init.own.clone_from(&self.namespaces);
        let site = cx.site.take();
        // While its id maps are missing, only the owner of a dumpable process may write them.
        let conceal = !self.namespaces.contains(&NamespaceType::User);
        let cgroup = ends.init.cgroup.take();
        let clone =
            Clone { namespaces: flags(&self.namespaces), sibling: false, cgroup: cgroup.as_ref().map(AsFd::as_fd) };
        let (init, fds, outcomes) = (ends.init, &mut *cx.fds, cx.outcomes);
        let child = clone
            .spawn(move || init.live(site.as_ref(), fds, outcomes, conceal))
            .map_err(|e| refused(&self.namespaces, e))?;
        identified(child.pid, Watched::new(child.pidfd), ends.channel, ends.output)
    }

    fn by_stage(&self, stage: &Handle<Process>, cx: &mut Cx) -> Result<Applied, EffectError> {
        let mut talk = Talk::kept(stage, cx)?;
        let channel = Talk::channel(cx)?;
        let output = Talk::output(cx);
        let pid = talk.clone_init(self)?;
        let watched = Process::of(pid).and_then(|p| p.watch());
        match watched {
            Ok(Some(watched)) => identified(pid, watched, channel, output),
            Ok(None) => Err(EffectError::new(format!("init (process {pid}) died before it could begin"))),
            Err(e) => Err(EffectError::call(format!("read /proc/{pid}"), e)),
        }
    }
}

/// A process that cannot be identified could not be undone, so it goes at once.
fn identified(pid: Pid, init: Watched, channel: OwnedFd, output: Vec<OwnedFd>) -> Result<Applied, EffectError> {
    match Process::of(pid) {
        Ok(process) => {
            let outcome = serde_json::to_value(process).map_err(|e| EffectError::new(e.to_string()))?;
            Ok(Applied::Site { outcome, channel, output })
        }
        Err(e) => {
            init.end()?;
            Err(EffectError::call(format!("read /proc/{pid}/stat"), e).help("is /proc mounted?"))
        }
    }
}

impl Handover {
    /// What a dry run says of it, after the clone.
    pub(crate) fn describe(&self) -> String {
        let stdio = match (&self.console, self.stdio) {
            (Some(Console::Engine), _) => Some("terminal relayed".to_owned()),
            (Some(Console::Socket(path)), _) => Some(format!("terminal sent to {path}")),
            (None, Stdio::Inherit) => None,
            (None, Stdio::Log) => Some("output logged".to_owned()),
            (None, Stdio::Null) => Some("stdio /dev/null".to_owned()),
        };
        let dir = self.cgroup.as_ref().and_then(|c| c.v2.as_ref()).filter(|_| self.into_cgroup);
        let cgroup = dir.map(|dir| format!("in cgroup {}", dir.display()));
        let kept = (self.preserve_fds > 0).then(|| format!("{} descriptors kept", self.preserve_fds));
        let mounts = (!self.mounts.is_empty()).then(|| format!("{} mounts handed over", self.mounts.len()));
        let agent = self.seccomp_agent.as_ref().map(|path| format!("seccomp agent at {path}"));
        let parts = stdio.into_iter().chain(cgroup).chain(kept).chain(mounts).chain(agent);
        parts.map(|part| format!("; {part}")).collect::<Vec<_>>().concat()
    }
}

impl NamespaceType {
    /// Its flag for clone(2), unshare(2) and setns(2).
    pub(crate) fn flag(self) -> i32 {
        match self {
            Self::Pid => libc::CLONE_NEWPID,
            Self::Network => libc::CLONE_NEWNET,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::User => libc::CLONE_NEWUSER,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Time => libc::CLONE_NEWTIME,
        }
    }

    /// Those whose flags are set.
    pub(crate) fn in_flags(flags: u64) -> impl Iterator<Item = Self> {
        let all = [Self::Pid, Self::Network, Self::Mount, Self::Ipc, Self::Uts, Self::User, Self::Cgroup, Self::Time];
        all.into_iter().filter(move |kind| flags & kind.flag() as u64 != 0)
    }

    /// Its file in `/proc/PID/ns`.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Network => "net",
            Self::Mount => "mnt",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// The flag's name.
    pub(crate) fn flag_name(self) -> &'static str {
        match self {
            Self::Pid => "CLONE_NEWPID",
            Self::Network => "CLONE_NEWNET",
            Self::Mount => "CLONE_NEWNS",
            Self::Ipc => "CLONE_NEWIPC",
            Self::Uts => "CLONE_NEWUTS",
            Self::User => "CLONE_NEWUSER",
            Self::Cgroup => "CLONE_NEWCGROUP",
            Self::Time => "CLONE_NEWTIME",
        }
    }
}

/// The flags of all of them.
pub(crate) fn flags(namespaces: &[NamespaceType]) -> u64 {
    namespaces.iter().fold(0, |flags, n| flags | n.flag() as u64)
}

/// Why clone(2) or unshare(2) refused to make namespaces.
pub(crate) fn refused(namespaces: &[NamespaceType], error: std::io::Error) -> EffectError {
    let names: Vec<&str> = namespaces.iter().map(|n| n.flag_name()).collect();
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let failed = EffectError::call(format!("clone3({})", names.join("|")), error);
    match errno {
        Some(Errno::PERM) if namespaces.contains(&NamespaceType::User) => failed.help(
            "this host does not let you make user namespaces: see user.max_user_namespaces, kernel.unprivileged_userns_clone \
             and kernel.apparmor_restrict_unprivileged_userns, or run as root",
        ),
        Some(Errno::PERM) => {
            failed.help("namespaces need CAP_SYS_ADMIN: run as root, or let the plan make a user namespace too")
        }
        Some(Errno::NOSPC) => {
            failed.help("a limit of namespaces is reached: see the user.max_*_namespaces sysctls, and namespaces nested more than 32 deep")
        }
        Some(Errno::INVAL) => failed.help("the kernel lacks one of these namespaces"),
        Some(Errno::BUSY) => failed.help("the engine must have one thread when it clones; this is a mistake in the program"),
        Some(Errno::AGAIN) => failed.help("a limit of processes is reached: see pids.max and RLIMIT_NPROC"),
        _ => failed,
    }
}
