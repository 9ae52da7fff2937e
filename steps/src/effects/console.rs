//! A container's terminal: opened inside from the container's own devpts, its master handed out.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use rustix::fs::{FileType, Mode, OFlags, fchown, fstat, fstatfs, open, openat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::Uid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::prelude::dies_with_init;
use crate::mounts::api::label_file;
use crate::process::{CONSOLE, descriptor};
use crate::spec::ConsoleSize;

/// linux/magic.h.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// Major and minor number of the multiplexer, in every devpts.
const PTMX: (u32, u32) = (5, 2);
/// What comes with the master on the socket; the spec wants at least a byte, and runc sends this.
const NAME: &[u8] = b"/dev/ptmx";

/// Opens a terminal, makes it the process's own (stdio, controlling terminal, /dev/console) and sends its master out.
#[derive(Debug, Serialize, Deserialize)]
pub struct OpenConsole {
    /// Its size in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ConsoleSize>,
    /// Who owns it: the user of the container's program.
    pub uid: u32,
    /// Its SELinux context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// It is bound on the container's /dev/console.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub console: bool,
}

fn yes() -> bool {
    true
}

impl EffectDef for OpenConsole {
    const KIND: &'static str = "console";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { size: Some(ConsoleSize { height: 24, width: 80 }), uid: 0, console: true, label: None }]
    }

    fn describe(&self) -> String {
        let size = self.size.map_or_else(String::new, |s| format!(" of {} by {} characters", s.width, s.height));
        let bound = if self.console { "; bound on /dev/console" } else { "" };
        format!("terminal{size} from the container's /dev/pts, owned by {}{bound}", self.uid)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let socket = cx.fds.take(CONSOLE).ok_or_else(|| {
            EffectError::new("this process was given nobody to send its terminal to")
                .help("set terminal in the with: of its process.clone")
        })?;
        let (master, terminal) = open_terminal()?;
        if let Some(size) = self.size {
            tcsetwinsize(&master, winsize(size)).map_err(|e| EffectError::call("ioctl(TIOCSWINSZ)", e))?;
        }
        fchown(&terminal, Some(Uid::from_raw(self.uid)), None)
            .map_err(|e| EffectError::call(format!("fchown(terminal, {})", self.uid), e))?;
        if let Some(label) = &self.label {
            label_file(&terminal, label, Path::new("/dev/console"))?;
        }
        wear(&terminal)?;
        if self.console {
            bind_console(&terminal)?;
        }
        send(&socket, &master)?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

/// The spec's size; one that does not fit the kernel's 16 bits is cut to them.
fn winsize(size: ConsoleSize) -> Winsize {
    let cells = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    Winsize { ws_row: cells(size.height), ws_col: cells(size.width), ws_xpixel: 0, ws_ypixel: 0 }
}

/// The terminal by its multiplexer. /dev and what is in it are the image's, so no name in it is believed (CVE-2025-52565): the file system must be
/// a devpts, the multiplexer its own, and the terminal comes from that by descriptor.
fn open_terminal() -> Result<(OwnedFd, OwnedFd), EffectError> {
    let no_devpts = "a terminal needs a devpts on /dev/pts: config.json has it among its mounts";
    let failed = |call: &str| {
        let call = call.to_owned();
        move |e: Errno| EffectError::call(call, e).help(no_devpts)
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pts = open("/dev/pts", flags, Mode::empty()).map_err(failed("open(/dev/pts)"))?;
    let file_system = fstatfs(&pts).map_err(failed("fstatfs(/dev/pts)"))?;
    if file_system.f_type as i64 != DEVPTS_SUPER_MAGIC {
        return Err(EffectError::new("/dev/pts is not a devpts").help(no_devpts));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let master = openat(&pts, "ptmx", flags, Mode::empty()).map_err(failed("open(/dev/pts/ptmx)"))?;
    let stat = fstat(&master).map_err(failed("fstat(/dev/pts/ptmx)"))?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_device || number != PTMX {
        return Err(EffectError::new("/dev/pts/ptmx is not the terminal multiplexer").help(no_devpts));
    }
    unlockpt(&master).map_err(failed("ioctl(TIOCSPTLCK)"))?;
    let terminal = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .map_err(failed("ioctl(TIOCGPTPEER)"))?;
    Ok((master, terminal))
}

/// Makes it the controlling terminal and stdio.
fn wear(terminal: &OwnedFd) -> Result<(), EffectError> {
    match setsid() {
        // The process leads a session since it was made.
        Ok(_) | Err(Errno::PERM) => {}
        Err(e) => return Err(EffectError::call("setsid()", e)),
    }
    ioctl_tiocsctty(terminal).map_err(|e| EffectError::call("ioctl(TIOCSCTTY)", e))?;
    dup2_stdin(terminal)
        .and_then(|()| dup2_stdout(terminal))
        .and_then(|()| dup2_stderr(terminal))
        .map_err(|e| EffectError::call("dup2(terminal)", e))
}

/// By descriptors on both sides: nothing that the image put at /dev/console is followed.
fn bind_console(terminal: &OwnedFd) -> Result<(), EffectError> {
    let failed = |call: &str| {
        let call = call.to_owned();
        move |e: Errno| EffectError::call(call, e)
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dev = open("/dev", flags, Mode::empty()).map_err(failed("open(/dev)"))?;
    let make = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match openat(&dev, "console", make, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(e) => return Err(EffectError::call("open(/dev/console, O_CREAT)", e)),
    }
    let there = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let console = openat(&dev, "console", there, Mode::empty()).map_err(failed("open(/dev/console)"))?;
    let kind = fstat(&console).map(|s| FileType::from_raw_mode(s.st_mode)).map_err(failed("fstat(/dev/console)"))?;
    if !matches!(kind, FileType::RegularFile | FileType::CharacterDevice) {
        return Err(EffectError::new("/dev/console in the container is neither a file nor a device")
            .help("take it out of the image, or mount a tmpfs on /dev"));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(terminal, "", flags).map_err(failed("open_tree(terminal, OPEN_TREE_CLONE)"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&mount, "", &console, "", flags).map_err(failed("move_mount(terminal, /dev/console)"))
}

/// Sends the master to whoever takes terminals.
pub(super) fn send(socket: &OwnedFd, master: &OwnedFd) -> Result<(), EffectError> {
    descriptor::send(socket, master.as_fd(), NAME).map_err(|e| {
        EffectError::call("sendmsg(console socket, SCM_RIGHTS)", e)
            .help("whoever takes the terminal has closed its end")
    })
}
