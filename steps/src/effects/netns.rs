//! A network namespace that outlives its processes.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Later;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::example_process;
use super::wait::resolve;
use crate::net::netns::{self, Netns};
use crate::outcomes::Process;

/// Pins a process's network namespace by a bind mount on a file in the run's directory: a device in a dying namespace may die with it. Undo
/// takes the mount and the file away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinNetns {
    /// The process.
    pub process: Later<Process>,
    /// The file, a name of ours in the run's directory.
    pub path: PathBuf,
}

impl EffectDef for PinNetns {
    const KIND: &'static str = "netns.pin";

    fn examples(scratch: &Path) -> Vec<Self> {
        vec![Self { process: Later::Handle(example_process()), path: scratch.join("netns") }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        format!("pin the network namespace of {} at {}", self.process, self.path.display())
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let path = self.path.display();
        let netns = Netns::of(&resolve(&self.process, cx)?)?;
        if netns::is_same(netns.net(), netns::own()?)? {
            return Err(EffectError::new("the container shares the network namespace of its caller")
                .help("give the container a network namespace of its own: nothing can be moved from a namespace into the same one"));
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o400).custom_flags(nix::libc::O_NOFOLLOW);
        let file =
            options.open(&self.path).map_err(|e| EffectError::call(format!("open({path}, O_CREAT|O_EXCL)"), e))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = open_tree(netns.net(), "", flags).map_err(|e| {
            EffectError::call("open_tree(network namespace, OPEN_TREE_CLONE)", e)
                .help("pinning a namespace needs CAP_SYS_ADMIN: run as root")
        })?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&mount, "", file.as_fd(), "", flags)
            .map_err(|e| EffectError::call(format!("move_mount(network namespace, {path})"), e))?;
        Ok(Applied::done())
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        let path = self.path.display();
        // The name is ours alone, so whatever namespace is mounted there is too.
        while netns::pinned(&self.path)?.is_some() {
            unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .map_err(|e| EffectError::call(format!("umount2({path}, MNT_DETACH)"), e))?;
        }
        match rustix::fs::unlink(&self.path) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(Undone::Done),
            Err(e) => Err(EffectError::call(format!("unlink({path})"), e)),
        }
    }
}
