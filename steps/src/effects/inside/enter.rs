//! Into the root of a container that has it by chroot(2) alone.

use super::pivot::arrive;
use crate::effects::example_process;
use crate::effects::wait::resolve;
use crate::outcomes::Process;
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{chroot, fchdir};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Changes to the root of another process. Where that has a mount namespace of its own, joining that does it.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootEnter {
    /// The container's process.
    pub process: Later<Process>,
}

impl EffectDef for RootEnter {
    const KIND: &'static str = "root.enter";

    fn examples(_scratch: &Path) -> Vec<Self> {
        vec![Self { process: Later::Handle(example_process()) }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("change to the root of {}", self.process)
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = resolve(&self.process, cx)?;
        let path = format!("/proc/{}/root", process.pid);
        // The directory of a process stands for that very process: once it has ended, nothing in it opens.
        let directory =
            process.directory().map_err(|e| EffectError::call(format!("open(/proc/{})", process.pid), e))?;
        let directory =
            directory.ok_or_else(|| EffectError::new(format!("{process}, whose root was to be entered, has ended")))?;
        let root = openat(&directory, c"root", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| EffectError::call(format!("open(\"{path}\")"), errno))?;
        fchdir(&root).map_err(|errno| EffectError::call(format!("fchdir(\"{path}\")"), errno))?;
        chroot(c".").map_err(|errno| EffectError::call("chroot(\".\")", errno).help("it needs CAP_SYS_CHROOT"))?;
        drop((root, directory));
        arrive(cx)
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}
