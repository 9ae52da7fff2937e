//! Files that the caller names to be written to, and that may lie where others write, too.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// What becomes of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// It is added to.
    Stay,
    /// It begins anew.
    Go,
}

/// Opens a file to write to it, and makes one that is not there. A link is followed if it is the caller's own, or root's, such as /dev/stderr; and
/// nobody waits for whoever is at the other end of a FIFO of somebody else's: what he does not take is an error.
///
/// # Errors
///
/// What open(2) says, and whose the link is.
pub fn open(path: &Path, contents: Contents) -> io::Result<File> {
    let what = if contents == Contents::Stay { OFlags::APPEND } else { OFlags::TRUNC };
    // Never waits for the other end of a FIFO.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | what;
    let mode = Mode::from_raw_mode(0o666);
    let opened = match openat(CWD, path, flags | OFlags::NOFOLLOW, mode) {
        // Asked of a descriptor: by its name it may be exchanged for another one.
        Err(Errno::LOOP) => {
            let link = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            let owner = fstat(&link)?.st_uid;
            if is_anothers(owner) {
                return Err(io::Error::other(format!("it is a symbolic link of uid {owner}")));
            }
            let target = readlinkat(&link, "", Vec::new())?;
            openat(CWD, path.parent().unwrap_or(path).join(OsStr::from_bytes(target.to_bytes())), flags, mode)?
        }
        other => other?,
    };
    let stat = fstat(&opened)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if is_file || !is_anothers(stat.st_uid) {
        fcntl_setfl(&opened, fcntl_getfl(&opened)? - OFlags::NONBLOCK)?;
    }
    Ok(opened.into())
}

fn is_anothers(owner: u32) -> bool {
    owner != 0 && owner != geteuid().as_raw()
}
