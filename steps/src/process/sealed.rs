//! Keeps the program's own executable out of containers' reach (CVE-2019-5736).
//!
//! A container's init is a copy of the engine, so /proc/PID/exe and a script that begins with `#!/proc/self/exe` lead to the engine's executable. Init
//! is non-dumpable, which keeps out all but those who have CAP_SYS_PTRACE over it, and those whom it executes itself. Therefore the program runs
//! from a place that nobody can write to by way of that link: a mount of its file that is read-only and in no mount namespace, or, for
//! those who may not make mounts, a sealed copy in memory.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use lifecycle_engine::error::EffectError;
use nix::fcntl::AtFlags;
use rustix::fs::{
    CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, fcntl_get_seals, fstatvfs,
    memfd_create, open,
};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys::mount::{MountAttr, RDONLY, mount_setattr};

const OWN: &str = "/proc/self/exe";

/// Executes the program again from where containers cannot write to it, with the same arguments; returns if it runs from there already.
///
/// To be called first of all by what makes containers or enters them, before anything is opened or read.
pub fn run_from_sealed() -> Result<(), EffectError> {
    let failed = |call: &'static str| {
        move |e: io::Error| {
            EffectError::call(call, e)
                .help("the program's own executable cannot be kept out of containers' reach (CVE-2019-5736)")
        }
    };
    let own = open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed("open(/proc/self/exe)")(e.into()))?;
    if is_sealed(&own).map_err(failed("fstatvfs(/proc/self/exe)"))? {
        return Ok(());
    }
    let sealed =
        read_only_mount().or_else(|_| sealed_memory(&own)).map_err(failed("memfd_create(MFD_ALLOW_SEALING)"))?;
    let args =
        std::env::args_os().map(c_string).collect::<io::Result<Vec<_>>>().map_err(failed("read the arguments"))?;
    let env = std::env::vars_os().map(|(name, value)| {
        let mut entry = name;
        entry.push("=");
        entry.push(value);
        c_string(entry)
    });
    let env = env.collect::<io::Result<Vec<_>>>().map_err(failed("read the environment"))?;
    let Err(errno) = nix::unistd::execveat(&sealed, c"", &args, &env, AtFlags::AT_EMPTY_PATH);
    Err(failed("execveat(the sealed executable)")(errno.into()))
}

/// Whether nobody can write to the file by way of a link to this descriptor.
fn is_sealed(file: &OwnedFd) -> io::Result<bool> {
    if fstatvfs(file)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    // EINVAL: a file that cannot be sealed.
    Ok(fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// Costs no copy; needs CAP_SYS_ADMIN and Linux 5.12.
fn read_only_mount() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, OWN, flags)?;
    mount_setattr(&mount, false, &MountAttr { set: RDONLY, ..MountAttr::default() })?;
    checked(mount)
}

fn sealed_memory(own: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A sysctl may forbid memory that can be executed unless that is said (Linux 6.3), and older kernels do not know the word.
    let memory = memfd_create("lifecycle", flags | MemfdFlags::EXEC).or_else(|_| memfd_create("lifecycle", flags))?;
    let (mut from, mut to) = (File::from(own.try_clone()?), File::from(memory));
    from.rewind()?;
    io::copy(&mut from, &mut to)?;
    fcntl_add_seals(&to, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    checked(to.into())
}

/// What is executed must be found sealed afterwards, or it would be executed again for ever.
fn checked(file: OwnedFd) -> io::Result<OwnedFd> {
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let opened = open(link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if is_sealed(&opened)? { Ok(file) } else { Err(io::Error::from(rustix::io::Errno::ROFS)) }
}

fn c_string(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::io::Read;

    #[test]
    fn neither_way_lets_anybody_write_to_the_executable_by_a_link() {
        let own = open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("open");
        assert!(!is_sealed(&own).expect("stat"), "the tests run from a sealed place already");
        let mut ours = Vec::new();
        File::from(own.try_clone().expect("dup")).read_to_end(&mut ours).expect("read");
        for sealed in [read_only_mount().expect("mount"), sealed_memory(&own).expect("memory")] {
            let link = format!("/proc/self/fd/{}", sealed.as_raw_fd());
            // A running executable is busy before its mount is read-only. A sealed copy can be opened, but takes no byte and is not cut.
            for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::WRONLY | OFlags::APPEND] {
                let written = open(&link, flags, Mode::empty()).and_then(|file| rustix::io::write(&file, b"x"));
                let errno = written.expect_err("written to");
                assert!(matches!(errno, Errno::ROFS | Errno::PERM | Errno::TXTBSY), "{flags:?}: {errno}");
            }
            let cut = open(&link, OFlags::WRONLY | OFlags::TRUNC, Mode::empty()).expect_err("cut");
            assert!(matches!(cut, Errno::ROFS | Errno::PERM | Errno::TXTBSY), "{cut}");
            assert!(std::fs::read(&link).expect("read") == ours, "the sealed file is another one");
        }
    }
}
