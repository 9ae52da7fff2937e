//! What init does first of all, before the steps in its site: none of it outlives the process.

use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;
use rustix::process::{getpid, getsid, setsid};
use rustix::thread::{Gid, Uid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cgroup::Version;
use super::clone::refused;
use crate::outcomes::CgroupJoin;
use crate::process::{CGROUP, credentials};
use crate::spec::NamespaceType;

/// Makes init non-dumpable: see [`credentials::conceal`]. Exec ends it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Conceal {}

/// Joins the cgroup: writes `0` into files that were opened on the host. The kernel moves the writer at once, without the grace period that a
/// write of another process's id costs.
#[derive(Debug, Serialize, Deserialize)]
pub struct EnterCgroup {
    /// Where; the files come with the descriptors that init took over.
    pub cgroup: CgroupJoin,
}

/// Makes a new cgroup namespace, whose root is the cgroup that init is in by now.
#[derive(Debug, Serialize, Deserialize)]
pub struct UnshareCgroup {}

/// Becomes root of the user namespace that init is in.
#[derive(Debug, Serialize, Deserialize)]
pub struct BecomeRoot {}

/// Starts a session without a terminal: a container must not be able to type into its caller's (TIOCSTI).
#[derive(Debug, Serialize, Deserialize)]
pub struct NewSession {}

/// The parts of [`EffectDef`] that all of them share.
macro_rules! dies_with_init {
    () => {
        fn class(&self) -> Class {
            Class::Scoped
        }

        fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
            Ok(Undone::Done)
        }
    };
}
pub(super) use dies_with_init;

impl EffectDef for Conceal {
    const KIND: &'static str = "conceal";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self {}]
    }

    fn describe(&self) -> String {
        "make init non-dumpable until exec".into()
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        credentials::conceal().map_err(|e| EffectError::call("prctl(PR_SET_DUMPABLE, 0)", e))?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for EnterCgroup {
    const KIND: &'static str = "enter_cgroup";

    fn examples(scratch: &Path) -> Vec<Self> {
        let (dir, version) = super::cgroup::example(scratch);
        let cgroup = match version {
            Version::V1 => CgroupJoin { v1: vec![dir], ..CgroupJoin::default() },
            Version::V2 => CgroupJoin { v2: Some(dir), ..CgroupJoin::default() },
        };
        vec![Self { cgroup }]
    }

    fn describe(&self) -> String {
        let v1 = self.cgroup.v1.iter().map(|d| format!("{}/tasks", d.display()));
        let v2 = self.cgroup.v2.iter().map(|d| format!("{}/cgroup.procs", d.display()));
        format!("write 0 to {}", v1.chain(v2).collect::<Vec<_>>().join(", "))
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        for (i, dir) in self.cgroup.v1.iter().chain(&self.cgroup.v2).enumerate() {
            let failed = |e| {
                EffectError::call(format!("write(0) to join cgroup {}", dir.display()), e).help(match e {
                    Errno::NOSPC => "a cpuset cgroup needs cpuset.cpus and cpuset.mems before a process can join",
                    Errno::BUSY => "a v2 cgroup with controllers enabled for its children takes no processes itself",
                    Errno::INVAL => "the kernel lets no process join it: it may be a threaded or an invalid domain",
                    _ => "joining needs write access to the cgroup and to the nearest common parent",
                })
            };
            let file = cx.fds.take(&format!("{CGROUP}{i}")).ok_or_else(|| {
                EffectError::new(format!("the file to join cgroup {} was not handed to this process", dir.display()))
            })?;
            rustix::io::write(&file, b"0").map_err(failed)?;
        }
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for UnshareCgroup {
    const KIND: &'static str = "unshare_cgroup";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self {}]
    }

    fn describe(&self) -> String {
        "new cgroup namespace, rooted where init is".into()
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|e| refused(&[NamespaceType::Cgroup], e.into()))?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for BecomeRoot {
    const KIND: &'static str = "become_root";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self {}]
    }

    fn describe(&self) -> String {
        "become root of the user namespace".into()
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let help = "the id maps must map the container's id 0, for users and for groups";
        credentials::become_user(Uid::ROOT, Gid::ROOT, help)?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for NewSession {
    const KIND: &'static str = "new_session";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self {}]
    }

    fn describe(&self) -> String {
        "new session, without a terminal".into()
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        match setsid() {
            // It leads a session already.
            Err(Errno::PERM) if getsid(None) == Ok(getpid()) => Ok(Applied::done()),
            Err(e) => Err(EffectError::call("setsid()", e)),
            Ok(_) => Ok(Applied::done()),
        }
    }

    dies_with_init!();
}
