//! The filter of system calls.

use std::cell::OnceCell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::hook::{Container, OCI_VERSION};
use super::prelude::dies_with_init;
use super::privileges::known;
use crate::process::{AGENT, credentials};
use crate::seccomp::{Handing, Part, compiled};
use crate::spec::{Capabilities, Seccomp, SeccompFlag};
use crate::sys::seccomp::{Filter, NEW_LISTENER};

/// The descriptor that gets the notified calls, between the effects that make it and send it.
pub(crate) const LISTENER: &str = "seccomp-listener";
/// Says of a process that a filter is in force in it: what the profile may not allow has been done by then.
pub(crate) const FILTERED: &str = "filtered";

/// Loads a filter, or a part of one, into the process; nothing takes it away again, and exec passes it on.
///
/// The program is compiled while planning. It is not part of the effect's data: the profile that it comes from says more, and a saved plan gets
/// the filter of the library that runs it.
#[derive(Debug, Serialize, Deserialize)]
pub struct LoadFilter {
    /// The profile.
    pub profile: Seccomp,
    /// Which part of it.
    #[serde(default, skip_serializing_if = "Part::is_whole")]
    pub part: Part,
    /// The program's capabilities, among which there may be no CAP_SYS_ADMIN: it was kept for this, and goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Capabilities>,
    /// What the profile was compiled to.
    #[serde(skip)]
    pub program: OnceCell<Rc<[u8]>>,
}

/// Sends the descriptor that gets the notified calls to the agent, with the container process state (config-linux.md, "The Container Process
/// State").
///
/// Another program sees it. Its counterpart is the kernel's: when the last process under the filter ends, the agent's descriptor hangs up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendListener {
    /// The call that the filter does not notify.
    pub by: Handing,
    /// What the agent is told of the container.
    pub container: Container,
    /// The profile's `listenerMetadata`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

impl EffectDef for LoadFilter {
    const KIND: &'static str = "seccomp_filter";

    fn examples(_: &Path) -> Vec<Self> {
        let rules = |action: &str| {
            format!(
                r#"{{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{ "names": ["kexec_load"], "action": "{action}" }}] }}"#
            )
        };
        // Constants of this program: they parse, or the tests fail.
        let example = |action: &str, part| {
            serde_json::from_str(&rules(action)).map(|profile| Self {
                profile,
                part,
                then: Some(Capabilities::default()).filter(|_| part == Part::Whole),
                program: OnceCell::new(),
            })
        };
        let all = [("SCMP_ACT_ERRNO", Part::Whole), ("SCMP_ACT_NOTIFY", Part::Notifying)];
        all.into_iter().flat_map(|(action, part)| example(action, part)).collect()
    }

    fn describe(&self) -> String {
        let calls = |notified: bool| -> usize {
            let rules = self.profile.syscalls.iter().filter(|rule| rule.notifies() == notified);
            rules.map(|rule| rule.names.len()).sum()
        };
        if self.part == Part::Notifying {
            return format!("seccomp filter that notifies an agent of {} system calls", calls(true));
        }
        let default = serde_json::to_value(self.profile.default_action).unwrap_or_default();
        let default = default.as_str().unwrap_or_default().trim_start_matches("SCMP_ACT_").to_lowercase();
        let rules = self.profile.syscalls.iter().filter(|rule| !rule.notifies()).count();
        format!("seccomp filter: {rules} rules for {} system calls; all others: {default}", calls(false))
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let filter = self.prepared()?;
        let rest = self.then.as_ref().map(without_admin).transpose()?.flatten();
        if let Some(listener) = filter.load().map_err(|e| refused(&filter, e))? {
            cx.fds.put(LISTENER, listener);
        }
        cx.fds.mark(FILTERED);
        if let Some(rest) = rest {
            // A profile may forbid it, as may be: execve gives nobody what is neither ambient nor in the bounding set.
            let _ = credentials::give_up(rest);
        }
        Ok(Applied::done())
    }

    dies_with_init!();
}

/// What is left of the process's capabilities when that is gone which was kept for the filter; `None` where nothing was.
fn without_admin(wanted: &Capabilities) -> Result<Option<CapabilitySets>, EffectError> {
    let had = capabilities(None).map_err(|e| EffectError::call("capget()", e))?;
    let admin = |wanted: &[String]| CapabilitySet::SYS_ADMIN - known(wanted);
    let rest = CapabilitySets {
        effective: had.effective - admin(&wanted.effective),
        permitted: had.permitted - admin(&wanted.permitted),
        ..had
    };
    Ok((rest != had).then_some(rest))
}

impl LoadFilter {
    /// Laid out for the kernel.
    pub(super) fn prepared(&self) -> Result<Filter, EffectError> {
        let program = match self.program.get() {
            Some(program) => program.clone(),
            None => compiled(&self.profile, None).map_err(|e| EffectError::new(e.to_string()))?.program,
        };
        let program = self.part.of(&program);
        Filter::new(&program, self.flags())
            .map_err(|e| EffectError::call(format!("seccomp(SECCOMP_SET_MODE_FILTER, {} bytes)", program.len()), e))
    }

    fn flags(&self) -> u64 {
        let flags = self.profile.flags.iter().fold(0, |all, flag| all | flag.bit());
        match self.part {
            // The process has one thread, so there is nothing to synchronise; and the kernel takes no TSYNC together with a listener.
            Part::Notifying => flags & !SeccompFlag::Tsync.bit() | NEW_LISTENER,
            // Says how notified calls wait, and is refused where none is notified.
            Part::Whole | Part::Rest => flags & !SeccompFlag::WaitKillableRecv.bit(),
        }
    }
}

/// Why seccomp(2) refuses a filter.
pub(super) fn refused(filter: &Filter, e: std::io::Error) -> EffectError {
    let errno = e.raw_os_error().map(Errno::from_raw_os_error);
    let failed = EffectError::call(format!("seccomp(SECCOMP_SET_MODE_FILTER, {} instructions)", filter.length()), e);
    match errno {
        Some(Errno::ACCESS) => failed.help(
            "loading a filter needs no_new_privs or CAP_SYS_ADMIN: set process.noNewPrivileges, or load it before privileges are given up",
        ),
        Some(Errno::INVAL) => failed.help("the kernel lacks seccomp, or one of the profile's flags or actions"),
        Some(Errno::BUSY) => failed.help("a filter that notifies an agent is in force already, around the caller: there can be one"),
        Some(Errno::NOMEM) => failed.help("all filters of a process together may have 32768 instructions"),
        _ => failed,
    }
}

impl SeccompFlag {
    /// Of seccomp(2).
    pub(crate) fn bit(self) -> u64 {
        match self {
            Self::Tsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            Self::Log => libc::SECCOMP_FILTER_FLAG_LOG,
            Self::SpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            Self::WaitKillableRecv => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        }
    }
}

impl EffectDef for SendListener {
    const KIND: &'static str = "seccomp_listener";

    fn examples(scratch: &Path) -> Vec<Self> {
        let container = Container {
            id: "example".into(),
            process: None,
            bundle: scratch.to_owned(),
            annotations: std::collections::BTreeMap::new(),
        };
        vec![Self { by: Handing::Sendmsg, container, metadata: Some("for the agent".into()) }]
    }

    fn class(&self) -> Class {
        Class::Foreign
    }

    fn describe(&self) -> String {
        let metadata = if self.metadata.is_some() { ", with its metadata" } else { "" };
        format!("send the seccomp agent the descriptor of the notified calls{metadata}")
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let listener = cx.fds.take(LISTENER);
        let listener = listener.ok_or_else(|| EffectError::new("there is no descriptor of notified calls to send"))?;
        self.message(cx)?.send(&listener)?;
        Ok(Applied::done())
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

/// What the agent is sent, and by what.
pub(super) struct Message {
    agent: OwnedFd,
    state: Vec<u8>,
    by: Handing,
}

impl Message {
    /// Sends it, with the descriptor that gets the notified calls. Its end follows at once.
    pub(super) fn send(self, listener: &OwnedFd) -> Result<(), EffectError> {
        send(&self.agent, listener, &self.state, self.by).map_err(|e| {
            EffectError::call("sendmsg(the seccomp agent, SCM_RIGHTS)", e)
                .help("whoever listens on linux.seccomp.listenerPath must take the message and the descriptor")
        })
    }
}

impl SendListener {
    /// Takes the connection to the agent.
    pub(super) fn message(&self, cx: &mut Cx) -> Result<Message, EffectError> {
        let agent = cx.fds.take(AGENT).ok_or_else(|| {
            EffectError::new("this process was given no seccomp agent to notify")
                .help("give its process.clone the profile's listenerPath: with: { seccomp_agent: PATH }")
        })?;
        Ok(Message { agent, state: self.state(cx)?.to_string().into_bytes(), by: self.by })
    }

    fn state(&self, cx: &Cx) -> Result<Value, EffectError> {
        let pid = self.container.pid(cx)?;
        let mut state = json!({ "ociVersion": OCI_VERSION, "fds": ["seccompFd"], "pid": pid });
        if let Some(metadata) = &self.metadata {
            state["metadata"] = json!(metadata);
        }
        state["state"] = self.container.state("creating", Some(pid));
        Ok(state)
    }
}

/// One state per connection, the descriptor with its first bytes.
fn send(agent: &OwnedFd, listener: &OwnedFd, state: &[u8], by: Handing) -> std::io::Result<()> {
    let (fds, parts) = ([listener.as_raw_fd()], [std::io::IoSlice::new(state)]);
    let with = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    let sent = loop {
        let sent = match by {
            Handing::Sendmsg => sendmsg::<SockaddrStorage>(agent.as_raw_fd(), &parts, &with, flags, None),
            Handing::Sendmmsg => {
                let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(1, Some(nix::cmsg_space!([RawFd; 1])));
                sendmmsg(agent.as_raw_fd(), &mut headers, [&parts], [None], with, flags)
                    .map(|results| results.map(|result| result.bytes).sum())
            }
        };
        match sent {
            Err(nix::errno::Errno::EINTR) => {}
            answer => break answer?,
        }
    };
    let mut rest = &state[sent..];
    while !rest.is_empty() {
        let n = rustix::io::retry_on_intr(|| rustix::io::write(agent.as_fd(), rest))?;
        rest = &rest[n..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::testing::{Bench, in_child};
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn an_agent_gets_the_state_and_a_descriptor_by_either_call() {
        for by in [Handing::Sendmsg, Handing::Sendmmsg] {
            let (ours, agents) = UnixStream::pair().unwrap();
            let (pipe, end) = rustix::pipe::pipe().unwrap();
            let state = vec![b'x'; 300_000];
            let reader = std::thread::spawn(move || {
                let mut buffer = [0; 100];
                let mut space = nix::cmsg_space!([RawFd; 1]);
                let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
                let flags = MsgFlags::empty();
                let got =
                    nix::sys::socket::recvmsg::<()>(agents.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
                let fds = got
                    .cmsgs()
                    .unwrap()
                    .filter(|m| matches!(m, nix::sys::socket::ControlMessageOwned::ScmRights(fds) if fds.len() == 1));
                let (fds, first) = (fds.count(), got.bytes);
                let mut rest = Vec::new();
                (&agents).read_to_end(&mut rest).unwrap();
                (fds, first + rest.len())
            });
            send(&ours.into(), &end, &state, by).unwrap();
            assert_eq!(reader.join().unwrap(), (1, state.len()));
            drop(pipe);
        }
    }

    /// All that the profile forbids is forbidden, and the call that hands the descriptor over passes all the same.
    #[test]
    fn a_profile_that_forbids_sendmsg_reaches_its_agent() {
        in_child(|| {
            let profile = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                { "names": ["sendmsg", "sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 25 },
                { "names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY" } ] }"#;
            let profile: Seccomp = serde_json::from_str(profile).unwrap();
            let part = |part| LoadFilter { profile: profile.clone(), part, then: None, program: OnceCell::new() };
            let dir = tempfile::tempdir().unwrap();
            let mut bench = Bench::new(dir.path());
            let (init, agent) = UnixStream::pair().unwrap();
            bench.fds.put(AGENT, init.into());
            rustix::thread::set_no_new_privs(true).unwrap();
            bench.apply(&part(Part::Notifying)).1.unwrap();
            bench.apply(&SendListener::examples(dir.path())[0]).1.unwrap();
            bench.apply(&part(Part::Rest)).1.unwrap();
            let mut text = String::new();
            (&agent).read_to_string(&mut text).unwrap();
            let state: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(state["fds"], json!(["seccompFd"]));
            assert_eq!((&state["metadata"], &state["state"]["status"]), (&json!("for the agent"), &json!("creating")));
            assert_eq!(rustix::system::sethostname(b"x"), Err(Errno::NOTTY));
        });
    }
}
