//! The change of root.

use super::hide;
use super::root::{ROOT, Root, open_host};
use crate::process::{leave_host, leave_hosts_null};
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, mount_move, unmount};
use rustix::process::{chdir, chroot, fchdir, pivot_root};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Makes the prepared root the process's own, and lets go of the host's.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootPivot {
    /// Move the new root over the old one, and change to it by chroot(2).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_pivot: bool,
    /// Change to it by chroot(2) alone: the mounts are the caller's as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares_mounts: bool,
}

impl EffectDef for RootPivot {
    const KIND: &'static str = "root.pivot";

    fn examples(_scratch: &Path) -> Vec<Self> {
        [(false, false), (true, false), (false, true)]
            .map(|(no_pivot, shares_mounts)| Self { no_pivot, shares_mounts })
            .into()
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        let how = if self.shares_mounts {
            "change to the new root, in the caller's mounts"
        } else if self.no_pivot {
            "move the new root over the host's, and change to it"
        } else {
            "change to the new root and detach the host's"
        };
        how.to_owned()
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let call = |name: &str| {
            let name = name.to_owned();
            move |errno: Errno| EffectError::call(name, errno)
        };
        fchdir(Root::of(cx)?.fd()).map_err(call("fchdir(the new root)"))?;
        if self.shares_mounts {
            chroot(c".").map_err(call("chroot(\".\")"))?;
            return arrive(cx);
        }
        if self.no_pivot {
            return move_over(cx);
        }
        let old = open_host(Path::new("/"))?;
        pivot_root(c".", c".").map_err(|errno| {
            EffectError::call("pivot_root(\".\", \".\")", errno).help(match errno {
                Errno::INVAL => "the host's root is an initramfs, which cannot be exchanged, or the mount around the new root is shared",
                Errno::BUSY => "the new root is the old one",
                Errno::PERM => "it needs CAP_SYS_ADMIN in the mount namespace's user namespace",
                _ => "the root cannot be changed",
            })
        })?;
        // The old root now lies on the new one, and `.` is still the new one, whose mounts keep the propagation that they were given.
        fchdir(&old).map_err(call("fchdir(the old root)"))?;
        // Unmounted while it still passes events on, it would be unmounted on the host too.
        mount_change(c".", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
            .map_err(call("mount(\".\", MS_REC | MS_SLAVE)"))?;
        unmount(c".", UnmountFlags::DETACH).map_err(call("umount2(\".\", MNT_DETACH)"))?;
        arrive(cx)
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

/// For a root that cannot be exchanged. The old root stays below the new one, out of reach of whoever may not mount.
fn move_over(cx: &mut Cx) -> Result<Applied, EffectError> {
    let call = |name: &str| {
        let name = name.to_owned();
        move |errno: Errno| EffectError::call(name, errno)
    };
    hide::hide_pseudo_file_systems(Root::of(cx)?.fd())?;
    mount_move(c".", c"/").map_err(call("mount(\".\", \"/\", MS_MOVE)"))?;
    chroot(c".").map_err(call("chroot(\".\")"))?;
    arrive(cx)
}

/// In the new root, to which the process has just changed.
pub(super) fn arrive(cx: &mut Cx) -> Result<Applied, EffectError> {
    chdir(c"/").map_err(|errno| EffectError::call("chdir(\"/\")", errno))?;
    leave_hosts_null()?;
    cx.fds.put(ROOT, open_host(Path::new("/"))?);
    leave_host(cx.fds);
    Ok(Applied::done())
}
