//! What a process does before it becomes the container's program: it goes where the program starts, and sees to what the program is passed on.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Fds, Record, Undone};
use lifecycle_engine::error::EffectError;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{chdir, getcwd};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exec::CANNOT_EXECUTE;
use super::prelude::dies_with_init;
use crate::sys;

/// Says of a process that it is where its program starts already.
const ENTERED: &str = "entered";
/// Says of a process that it is ready for exec but for SIGPIPE.
pub(super) const READY: &str = "ready";

/// Goes to the directory that the program starts in while the process has its maker's privileges, as far as they go: its user may not be allowed to
/// enter it. Where they do not go far enough, the user's own may, and are tried later.
#[derive(Debug, Serialize, Deserialize)]
pub struct EnterDirectory {
    /// The directory, in the container.
    pub cwd: PathBuf,
}

impl EffectDef for EnterDirectory {
    const KIND: &'static str = "enter_directory";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { cwd: "/".into() }]
    }

    fn describe(&self) -> String {
        format!("enter {}", self.cwd.display())
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        if chdir(&self.cwd).is_ok() {
            is_inside(&self.cwd)?;
            cx.fds.mark(ENTERED);
        }
        Ok(Applied::done())
    }

    dies_with_init!();
}

/// Changes to the directory that the program starts in, with the privileges that the process has now; or stays in it.
pub(super) fn enter(directory: &Path, fds: &Fds) -> Result<(), EffectError> {
    match chdir(directory) {
        Ok(()) => {}
        Err(Errno::ACCESS | Errno::PERM) if fds.is_marked(ENTERED) => {}
        Err(e) => {
            return Err(EffectError::call(format!("chdir({})", directory.display()), e)
                .help("the working directory must be there in the container, and its user must be allowed to enter it")
                .exit(CANNOT_EXECUTE));
        }
    }
    is_inside(directory)
}

/// CVE-2024-21626: a directory outside the root, by way of a leaked descriptor.
fn is_inside(directory: &Path) -> Result<(), EffectError> {
    match getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(Errno::NOENT) => {
            let what = format!("{} is not inside the container's root", directory.display());
            Err(EffectError::new(what).exit(CANNOT_EXECUTE))
        }
        Err(e) => Err(EffectError::call("getcwd()", e).exit(CANNOT_EXECUTE)),
    }
}

/// The program gets this many descriptors from 3 on, and no others.
pub(super) fn pass_descriptors(preserve: u32) -> Result<(), EffectError> {
    let first = 3 + preserve as RawFd;
    sys::fd::close_on_exec_from(first)
        .map_err(|e| EffectError::call(format!("close_range({first}, ~0, CLOSE_RANGE_CLOEXEC)"), e))?;
    for fd in 3..first {
        sys::fd::inherited(fd).and_then(|fd| Ok(fcntl_setfd(fd, FdFlags::empty())?)).map_err(|e| {
            EffectError::call(format!("fcntl({fd}, F_SETFD, 0)"), e)
                .help("more descriptors are to be preserved than the caller has passed")
        })?;
    }
    Ok(())
}
