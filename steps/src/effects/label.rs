//! What a security module confines the container's program to: AppArmor profiles and SELinux labels, which take effect at exec.

use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use pathrs::error::ErrorKind;
use pathrs::flags::OpenFlags;
use pathrs::procfs::{ProcfsBase, ProcfsHandle};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::prelude::dies_with_init;

/// Sets the AppArmor profile that the next exec changes to.
#[derive(Debug, Serialize, Deserialize)]
pub struct LabelApparmor {
    /// The profile's name, as in /sys/kernel/security/apparmor/profiles, or `unconfined`.
    pub profile: String,
}

/// Sets the SELinux label that the next exec changes to.
#[derive(Debug, Serialize, Deserialize)]
pub struct LabelSelinux {
    /// The label, as `user:role:type:level`.
    pub label: String,
}

impl EffectDef for LabelApparmor {
    const KIND: &'static str = "apparmor_profile";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { profile: "unconfined".into() }]
    }

    fn describe(&self) -> String {
        format!("AppArmor profile {} from exec on", self.profile)
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let command = format!("exec {}", self.profile);
        // attr/exec is whichever module's comes first; AppArmor's own directory is there since Linux 5.1.
        let answer = match write("apparmor/exec", &command) {
            Err(error) if error.errno == Some(Errno::NOENT.raw_os_error()) => write("exec", &command),
            answer => answer,
        };
        answer.map_err(|failed| {
            let errno = failed.errno.map(Errno::from_raw_os_error);
            failed.help(match errno {
                Some(Errno::NOENT) => {
                    "this profile is not loaded: load it with apparmor_parser, or see aa-status for those that are"
                }
                Some(Errno::ACCESS | Errno::PERM) => {
                    "the profile that confines the caller itself does not allow the change"
                }
                _ => "the kernel does not take this profile; take process.apparmorProfile out to run without one",
            })
        })?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for LabelSelinux {
    const KIND: &'static str = "selinux_label";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { label: "system_u:system_r:container_t:s0".into() }]
    }

    fn describe(&self) -> String {
        format!("SELinux label {} from exec on", self.label)
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        write("exec", &self.label).map_err(refused)?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

/// Why SELinux does not take a label.
pub(super) fn refused(failed: EffectError) -> EffectError {
    let errno = failed.errno.map(Errno::from_raw_os_error);
    failed.help(match errno {
        Some(Errno::INVAL) => "the policy does not know this label; `seinfo -t` lists the types, package container-selinux brings those of containers",
        Some(Errno::ACCESS | Errno::PERM) => "the policy does not let the caller's own domain do this (setexec, setkeycreate)",
        _ => "the kernel does not take this label; take process.selinuxLabel out to run without one",
    })
}

/// Writes one of the calling thread's own attributes.
///
/// By a procfs that is made for this or proven to be one: in one that the container has faked, the label would go nowhere, and nobody would know
/// (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881). The kernel wants the whole value in one write.
pub(super) fn write(name: &str, value: &str) -> Result<(), EffectError> {
    let what = format!("/proc/thread-self/attr/{name}");
    let proc = ProcfsHandle::new().map_err(|e| failed(&format!("open({what})"), &e))?;
    let file = proc
        .open(ProcfsBase::ProcThreadSelf, format!("attr/{name}"), OpenFlags::O_WRONLY)
        .map_err(|e| failed(&format!("open({what})"), &e))?;
    // Nothing but a write of no bytes takes an attribute back, and the standard library would not make it.
    match rustix::io::write(&file, value.as_bytes()) {
        Ok(written) if written == value.len() => Ok(()),
        Ok(written) => Err(EffectError::new(format!("write({what}, {value:?}) took {written} bytes only"))),
        Err(e) => Err(EffectError::call(format!("write({what}, {value:?})"), e)),
    }
}

fn failed(what: &str, error: &pathrs::error::Error) -> EffectError {
    match error.kind() {
        ErrorKind::OsError(Some(errno)) => EffectError::call(what, std::io::Error::from_raw_os_error(errno)),
        _ => EffectError::new(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a security module the kernel still has the files, and answers; with one of them it is that one's to say.
    #[test]
    fn an_attribute_is_reached_through_a_procfs_of_our_own() {
        let error = write("no-such-attribute", "x").unwrap_err();
        assert_eq!(error.errno, Some(Errno::NOENT.raw_os_error()), "{error}");
        let listed = std::fs::read_dir("/proc/thread-self/attr").is_ok_and(|dir| dir.count() > 0);
        if listed && crate::process::label::active_for_tests().is_empty() {
            let error = write("exec", "exec x").unwrap_err();
            assert_eq!(error.errno, Some(Errno::INVAL.raw_os_error()), "{error}");
        }
    }
}
