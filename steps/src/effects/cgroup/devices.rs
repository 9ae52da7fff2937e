//! Device rules of a cgroup of version 2: an eBPF program that the kernel asks at each open and mknod.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Handle, HandleRef};
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Cgroup, open_directory};
use crate::cgroup::devices::DeviceRules;
use crate::sys::bpf;

/// Attaches the rules to a cgroup. The program lives as long as the cgroup does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceFilter {
    /// The cgroup's directory.
    pub at: PathBuf,
    /// The cgroup as it was made.
    pub cgroup: Handle<Cgroup>,
    /// What is allowed.
    pub rules: DeviceRules,
}

/// The program: known before it is attached, so that a cgroup which was there before can always be rid of it.
#[derive(Serialize, Deserialize)]
struct Attached {
    /// The kernel's number for it, unique in one boot.
    program: u32,
}

impl DeviceFilter {
    fn failed(&self, what: &str, errno: std::io::Error) -> EffectError {
        let error = EffectError::call(format!("{what} for {}", self.at.display()), errno);
        match error.errno {
            Some(nix::libc::EPERM) => error.help("device rules need CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN"),
            Some(nix::libc::EINVAL | nix::libc::ENOSYS) => error.help("the kernel needs CONFIG_CGROUP_BPF"),
            _ => error,
        }
    }
}

impl EffectDef for DeviceFilter {
    const KIND: &'static str = "cgroup.devices";

    fn examples(scratch: &Path) -> Vec<Self> {
        let cgroup = HandleRef { step: "cgroup".into(), effect: 0, field: "".into() };
        vec![Self { at: super::example_v2(scratch), cgroup: Handle::new(cgroup), rules: DeviceRules::default() }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("attach device rules to {}: {}", self.at.display(), self.rules)
    }

    fn apply(&self, _before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        let cgroup = openat(CWD, &self.at, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| self.failed("open the cgroup", e.into()))?;
        let program =
            bpf::load_device_program(&self.rules.program()).map_err(|e| self.failed("load the device rules", e))?;
        let id = bpf::program_id(&program).map_err(|e| self.failed("ask for the device rules' number", e))?;
        Ok(Applied::Pending(Box::new(Attaching { filter: self.clone(), cgroup, program, id })))
    }

    /// A cgroup that the run made takes the program with it.
    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        let Some(attached) = record.outcome::<Attached>() else { return Ok(Undone::Done) };
        let cgroup = cx.resolve(&self.cgroup)?;
        if cgroup.made || cgroup.open(&self.at).map_err(|e| self.failed("open the cgroup", e.into()))?.is_none() {
            return Ok(Undone::Done);
        }
        let path = open_directory(CWD, &self.at).map_err(|e| self.failed("open the cgroup", e.into()))?;
        let directory = openat(&path, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| self.failed("open the cgroup", e.into()))?;
        bpf::detach_device_program(directory.as_fd(), attached.program)
            .map_err(|e| self.failed("detach the device rules", e))?;
        Ok(Undone::Done)
    }
}

/// Loaded and recorded, and not yet attached.
struct Attaching {
    filter: DeviceFilter,
    cgroup: OwnedFd,
    program: OwnedFd,
    id: u32,
}

impl Pending for Attaching {
    fn started(&self) -> Value {
        json!(Attached { program: self.id })
    }

    fn release(&mut self, _cx: &mut Cx) -> Result<(), EffectError> {
        bpf::attach_device_program(&self.cgroup, &self.program)
            .map_err(|e| self.filter.failed("attach the device rules", e))
    }

    fn interest(&self, _wants: &mut Vec<Interest>) {}

    fn advance(&mut self, _cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        Ok(Some(self.started()))
    }

    fn cancel(&mut self, _cx: &mut Cx) {}
}
