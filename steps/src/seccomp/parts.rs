//! A filter that notifies an agent, in two parts.
//!
//! The descriptor that gets the notified calls has to reach the agent by sendmsg(2), from the very process that the filter now holds. A profile
//! that forbids sendmsg must not forbid that. So the filter is loaded in two parts which together answer as the whole one does, since the kernel
//! takes the strictest answer: first the part that does nothing but notify, with the descriptor; then, when the agent has that, the rest.

use std::rc::Rc;

use nix::libc;
use serde::{Deserialize, Serialize};

use crate::spec::{Seccomp, SeccompAction};
use lifecycle_engine::types::HostPath;

/// Which part of a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// All of it: no call is notified.
    #[default]
    Whole,
    /// What it notifies; everything else passes.
    Notifying,
    /// Everything else; what was notified passes.
    Rest,
}

impl Part {
    /// Whether it is the usual one; effects leave it out of their JSON then.
    pub fn is_whole(&self) -> bool {
        *self == Self::Whole
    }

    /// The program of this part.
    pub(crate) fn of(self, program: &Rc<[u8]>) -> Rc<[u8]> {
        let keeps: fn(u32) -> bool = match self {
            Self::Whole => return program.clone(),
            Self::Notifying => |action| action == libc::SECCOMP_RET_USER_NOTIF,
            Self::Rest => |action| action != libc::SECCOMP_RET_USER_NOTIF,
        };
        let mut part = program.to_vec();
        for instruction in part.as_chunks_mut::<8>().0 {
            let [c0, c1, _, _, k0, k1, k2, k3] = *instruction;
            // libseccomp returns constants alone.
            let returns = u32::from(u16::from_ne_bytes([c0, c1])) == libc::BPF_RET | libc::BPF_K;
            let answer = u32::from_ne_bytes([k0, k1, k2, k3]);
            if returns && !keeps(answer & libc::SECCOMP_RET_ACTION_FULL) {
                instruction[4..].copy_from_slice(&libc::SECCOMP_RET_ALLOW.to_ne_bytes());
            }
        }
        part.into()
    }
}

/// The call that hands the descriptor over: one that the profile does not notify, or the process would wait for an agent that has nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handing {
    /// sendmsg(2).
    Sendmsg,
    /// sendmmsg(2).
    Sendmmsg,
}

impl Seccomp {
    /// Whether it notifies an agent of any call.
    pub fn notifies(&self) -> bool {
        self.default_action == SeccompAction::Notify || self.notified().next().is_some()
    }

    /// The socket of the agent that it notifies. config-linux.md: "If the SCMP_ACT_NOTIFY action is not used this value is ignored."
    pub fn agent(&self) -> Option<HostPath> {
        self.listener_path.clone().filter(|_| self.notifies()).map(HostPath)
    }

    /// The names of the calls that an agent is notified of.
    fn notified(&self) -> impl Iterator<Item = &str> {
        let rules = self.syscalls.iter().filter(|rule| rule.action == SeccompAction::Notify);
        rules.flat_map(|rule| rule.names.iter().map(String::as_str))
    }

    /// How the descriptor can be handed over, if it can.
    pub(crate) fn handing(&self) -> Option<Handing> {
        let notifies = |call: &str| self.notified().any(|name| name == call);
        match (notifies("sendmsg"), notifies("sendmmsg")) {
            (false, _) => Some(Handing::Sendmsg),
            (true, false) => Some(Handing::Sendmmsg),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_parts_answer_what_the_whole_does() {
        let ret = |k: u32| {
            let [c0, c1] = ((libc::BPF_RET | libc::BPF_K) as u16).to_ne_bytes();
            let [k0, k1, k2, k3] = k.to_ne_bytes();
            [c0, c1, 0, 0, k0, k1, k2, k3]
        };
        let (allow, notify) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_USER_NOTIF);
        let errno = libc::SECCOMP_RET_ERRNO | 1;
        let whole: Rc<[u8]> = [ret(allow), ret(notify), ret(errno), ret(0)].concat().into();
        assert_eq!(Part::Whole.of(&whole), whole);
        assert_eq!(*Part::Notifying.of(&whole), *[ret(allow), ret(notify), ret(allow), ret(allow)].concat());
        assert_eq!(*Part::Rest.of(&whole), *[ret(allow), ret(allow), ret(errno), ret(0)].concat());
    }

    #[test]
    fn the_descriptor_goes_by_a_call_that_is_not_notified() {
        let profile = |names: &str| -> Seccomp {
            let text = format!(
                r#"{{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                     {{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }}, {{ "names": [{names}], "action": "SCMP_ACT_NOTIFY" }}] }}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(profile(r#""mkdir""#).handing(), Some(Handing::Sendmsg));
        assert_eq!(profile(r#""sendmsg""#).handing(), Some(Handing::Sendmmsg));
        assert_eq!(profile(r#""sendmsg", "sendmmsg""#).handing(), None);
        assert!(profile(r#""mkdir""#).notifies() && !profile("").notifies());
    }
}
