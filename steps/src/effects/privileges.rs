//! What a container's process may do: its limits, its user, its capabilities. All of it belongs to init alone, and exec passes it on.

use std::collections::BTreeSet;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{getgroups, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_keep_capabilities, set_no_new_privs,
    set_thread_groups,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::prelude::dies_with_init;
use crate::made::UMASK;
use crate::process::{credentials, denies_setgroups};
use crate::spec::{Capabilities, Rlimit, User};
use crate::sys::rlimit::set_rlimit;

/// Sets one resource limit.
#[derive(Debug, Serialize, Deserialize)]
pub struct SetRlimit {
    /// The limit.
    pub limit: Rlimit,
}

/// Exec gives no more privileges from here on (set-user-id programs, file capabilities).
#[derive(Debug, Serialize, Deserialize)]
pub struct NoNewPrivileges {}

/// Narrows the bounding set: what no exec can give.
#[derive(Debug, Serialize, Deserialize)]
pub struct BoundCapabilities {
    /// The capabilities that stay.
    pub keep: Vec<String>,
}

/// Becomes the container's user. Capabilities are kept across it, for [`SetCapabilities`] to set.
#[derive(Debug, Serialize, Deserialize)]
pub struct BecomeUser {
    /// Whom.
    pub user: User,
}

/// Sets the four other capability sets.
#[derive(Debug, Serialize, Deserialize)]
pub struct SetCapabilities {
    /// The sets. What `bounding` names has been told of already where it is unknown.
    pub sets: Capabilities,
    /// CAP_SYS_ADMIN stays as well, for a filter of system calls: whoever loads that gives it up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_filter: bool,
}

impl EffectDef for SetRlimit {
    const KIND: &'static str = "rlimit";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { limit: Rlimit { kind: crate::spec::RlimitType::Nofile, soft: 256, hard: 512 } }]
    }

    fn describe(&self) -> String {
        let show = |n: u64| if n == u64::MAX { "unlimited".to_owned() } else { n.to_string() };
        format!("{} {} of at most {}", self.limit.kind.name(), show(self.limit.soft), show(self.limit.hard))
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let Rlimit { kind, soft, hard } = self.limit;
        set_rlimit(0, kind.number(), soft, hard).map_err(|e| {
            let errno = e.raw_os_error();
            let failed = EffectError::call(format!("setrlimit({}, {soft}, {hard})", kind.name()), e);
            match errno.map(Errno::from_raw_os_error) {
                Some(Errno::PERM) => failed.help(
                    "raising a hard limit needs CAP_SYS_RESOURCE, and RLIMIT_NOFILE stays below the sysctl fs.nr_open: \
                     lower process.rlimits, or raise the caller's own limit",
                ),
                Some(Errno::INVAL) => failed.help("the soft limit must not exceed the hard one"),
                _ => failed,
            }
        })?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for NoNewPrivileges {
    const KIND: &'static str = "no_new_privileges";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self {}]
    }

    fn describe(&self) -> String {
        "no new privileges from here on".into()
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        set_no_new_privs(true).map_err(|e| EffectError::call("prctl(PR_SET_NO_NEW_PRIVS)", e))?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for BoundCapabilities {
    const KIND: &'static str = "bound_capabilities";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { keep: vec!["CAP_KILL".into()] }]
    }

    fn describe(&self) -> String {
        format!("bounding set: {}", list(&self.keep))
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        warn_of_unknown(self.keep.iter(), cx);
        let keep = known(&self.keep);
        for capability in CapabilitySet::from_bits_retain(u64::MAX >> 1).iter_bits() {
            if keep.contains(capability) {
                continue;
            }
            // It is not asked first whether it is there: a filter may be in force already, and give any answer to that.
            match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // Beyond the last one that the kernel knows.
                Err(Errno::INVAL) if capability.bits() > CapabilitySet::WAKE_ALARM.bits() => break,
                // Without CAP_SETPCAP, which is no harm where there is nothing to take away.
                Err(Errno::PERM) if capability_is_in_bounding_set(capability) == Ok(false) => {}
                Err(e) => {
                    return Err(EffectError::call(format!("prctl(PR_CAPBSET_DROP, {})", name(capability)), e)
                        .help("narrowing the bounding set needs CAP_SETPCAP: run as root, or in a user namespace; a seccomp filter may forbid it"));
                }
            }
        }
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for BecomeUser {
    const KIND: &'static str = "become_user";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { user: User { uid: 1000, gid: 1000, additional_gids: vec![4], umask: Some(0o027), username: None } }]
    }

    fn describe(&self) -> String {
        let User { uid, gid, additional_gids, umask, .. } = &self.user;
        let groups: Vec<String> = additional_gids.iter().map(u32::to_string).collect();
        let groups = if groups.is_empty() { "no more groups".into() } else { format!("groups {}", groups.join(",")) };
        let umask = umask.map_or_else(String::new, |u| format!(", umask {u:04o}"));
        format!("become user {uid}:{gid}, {groups}{umask}")
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let unmapped = "the id maps of the user namespace must map the id; without one, changing ids needs CAP_SETUID and CAP_SETGID";
        set_keep_capabilities(true).map_err(|e| EffectError::call("prctl(PR_SET_KEEPCAPS, 1)", e))?;
        self.set_groups()?;
        credentials::become_user(Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid), unmapped)?;
        umask(self.user.umask.map_or(UMASK, Mode::from_raw_mode));
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl BecomeUser {
    /// Those of the caller go, unless they are asked for (CVE-2022-2995). Where the user namespace denies setgroups(2), they cannot go, and
    /// none can be added.
    fn set_groups(&self) -> Result<(), EffectError> {
        let wanted: Vec<Gid> = self.user.additional_gids.iter().map(|g| Gid::from_raw(*g)).collect();
        let had = getgroups().map_err(|e| EffectError::call("getgroups()", e))?;
        if had.is_empty() && wanted.is_empty() {
            return Ok(());
        }
        match set_thread_groups(&wanted) {
            Ok(()) => Ok(()),
            Err(Errno::PERM) if wanted.is_empty() && denies_setgroups() => Ok(()),
            Err(e) => Err(EffectError::call(format!("setgroups({:?})", self.user.additional_gids), e).help(
                "a user namespace that an ordinary user made for itself has no supplementary groups: \
                 take process.user.additionalGids out, or map the groups with newgidmap",
            )),
        }
    }
}

impl EffectDef for SetCapabilities {
    const KIND: &'static str = "capabilities";

    fn examples(_: &Path) -> Vec<Self> {
        let kill = || vec!["CAP_KILL".to_owned()];
        let sets = || Capabilities { permitted: kill(), effective: kill(), ..Capabilities::default() };
        vec![Self { sets: sets(), for_filter: false }, Self { sets: sets(), for_filter: true }]
    }

    fn describe(&self) -> String {
        let Capabilities { effective, inheritable, permitted, ambient, .. } = &self.sets;
        let rest = [("inheritable", inheritable), ("ambient", ambient)].into_iter().filter(|(_, set)| !set.is_empty());
        let mut sets = vec![("permitted", permitted)];
        if effective != permitted {
            sets.push(("effective", effective));
        }
        let sets: Vec<String> =
            sets.into_iter().chain(rest).map(|(what, set)| format!("{what} {}", list(set))).collect();
        let kept = if self.for_filter { "; CAP_SYS_ADMIN until the filter is loaded" } else { "" };
        format!("capabilities: {}{kept}", sets.join("; "))
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let Capabilities { bounding, effective, permitted, inheritable, ambient } = &self.sets;
        let all = [effective, permitted, inheritable, ambient].into_iter().flatten();
        // The others were told when the bounding set was narrowed.
        warn_of_unknown(all.filter(|name| !bounding.contains(name)), cx);
        let kept = if self.for_filter { own_admin() } else { CapabilitySet::empty() };
        let sets = CapabilitySets {
            effective: known(effective) | kept,
            permitted: known(permitted) | kept,
            inheritable: known(inheritable),
        };
        clear_ambient_capability_set().map_err(|e| EffectError::call("prctl(PR_CAP_AMBIENT_CLEAR_ALL)", e))?;
        credentials::set_capabilities(sets).map_err(|e| refused(sets, e))?;
        for capability in known(ambient).iter_bits() {
            configure_capability_in_ambient_set(capability, true).map_err(|e| {
                EffectError::call(format!("prctl(PR_CAP_AMBIENT_RAISE, {})", name(capability)), e)
                    .help("an ambient capability must be permitted and inheritable too")
            })?;
        }
        Ok(Applied::done())
    }

    dies_with_init!();
}

/// CAP_SYS_ADMIN, if the process has it. Without it the filter will be refused, which says more.
fn own_admin() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |own| own.permitted & CapabilitySet::SYS_ADMIN)
}

/// Which of the capabilities the caller does not have.
fn refused(wanted: CapabilitySets, error: Errno) -> EffectError {
    let failed = EffectError::call("capset()", error);
    let Ok(have) = capabilities(None) else { return failed };
    let lacking = (wanted.permitted | wanted.effective) - have.permitted;
    let lacking: Vec<String> = lacking.iter_bits().map(name).collect();
    if lacking.is_empty() {
        return failed.help("effective must be part of permitted, and inheritable part of the bounding set");
    }
    failed.help(format!(
        "the caller does not have {} itself and cannot give it: take it out of process.capabilities",
        lacking.join(", ")
    ))
}

/// Each capability of a set by itself, those that this program has no name for included.
trait Bits {
    fn iter_bits(self) -> impl Iterator<Item = CapabilitySet>;
}

impl Bits for CapabilitySet {
    fn iter_bits(self) -> impl Iterator<Item = CapabilitySet> {
        let bits = self.bits();
        (0..64).map(|n| 1u64 << n).filter(move |bit| bits & bit != 0).map(CapabilitySet::from_bits_retain)
    }
}

fn name(capability: CapabilitySet) -> String {
    let named = capability.iter_names().next();
    named
        .map_or_else(|| format!("capability {}", capability.bits().trailing_zeros()), |(name, _)| format!("CAP_{name}"))
}

/// A capability by its name; `None` if nobody knows it.
fn capability(name: &str) -> Option<CapabilitySet> {
    name.strip_prefix("CAP_").and_then(CapabilitySet::from_name)
}

/// The set of those of these names that are known.
pub(super) fn known(names: &[String]) -> CapabilitySet {
    names.iter().filter_map(|name| capability(name)).fold(CapabilitySet::empty(), |set, one| set | one)
}

/// config.md, "capabilities": what nobody knows "MUST be logged as a warning by the runtime". Once each, however many sets name it.
fn warn_of_unknown<'a>(names: impl Iterator<Item = &'a String>, cx: &mut Cx) {
    let unknown: BTreeSet<&String> = names.filter(|name| capability(name).is_none()).collect();
    for name in unknown {
        cx.warn(&format!("there is no capability {name}; it is left out"));
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(" ") }
}
