//! Every change of the calling process's credentials, none of which opens the process to others.
//!
//! With other ids, and with capabilities that it did not have (setresuid(2), setresgid(2), capset(2), setns(2) into a user namespace), the kernel
//! makes a process as dumpable as the sysctl fs.suid_dumpable says (`commit_creds`), whatever prctl(2) has said before. It may say: entirely.
//! So each function here conceals the process once more. What lies between the two calls is open to nobody: a process is closed to whoever
//! has fewer capabilities, and they are given up last.

use std::os::fd::AsFd;

use lifecycle_engine::error::EffectError;
use nix::sched::CloneFlags;
use rustix::io::{self, Errno};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySets, Gid, Uid};

/// Makes the process non-dumpable: whoever shares its pid namespace cannot reach the engine's executable and descriptors through its /proc
/// directory (CVE-2019-5736, CVE-2016-9962). Exec ends it.
pub(crate) fn conceal() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Becomes user and group; `help` says what that needs.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn become_user(uid: Uid, gid: Gid, help: &str) -> Result<(), EffectError> {
    let failed = |call: &str, id: u32, e: Errno| EffectError::call(format!("{call}({id}, {id}, {id})"), e).help(help);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|e| failed("setresgid", gid.as_raw(), e))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|e| failed("setresuid", uid.as_raw(), e))?;
    conceal().map_err(|e| EffectError::call("prctl(PR_SET_DUMPABLE, 0)", e))
}

/// Sets the permitted, effective and inheritable capabilities.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn set_capabilities(sets: CapabilitySets) -> io::Result<()> {
    rustix::thread::set_capabilities(None, sets)?;
    conceal()
}

/// Gives up capabilities that the process has, in one call: who loses some alone stays as dumpable as he was.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn give_up(rest: CapabilitySets) -> io::Result<()> {
    rustix::thread::set_capabilities(None, rest)
}

/// Moves the process, which has one thread, into a namespace. One of users is entered concealed: its root may trace what is not.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn enter_namespace(namespace: impl AsFd, kind: CloneFlags) -> io::Result<()> {
    let of_users = kind.contains(CloneFlags::CLONE_NEWUSER);
    if of_users {
        conceal()?;
    }
    nix::sched::setns(namespace, kind).map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    if of_users { conceal() } else { Ok(()) }
}
