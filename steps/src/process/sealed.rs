//! Keeps the program's own executable out of containers' reach (CVE-2019-5736).
//!
//! A container's init is a copy of the engine, so /proc/PID/exe and a script that begins with `#!/proc/self/exe` lead to the engine's executable. Init
//! is non-dumpable, which keeps out all but those who have CAP_SYS_PTRACE over it, and those whom it executes itself. Therefore the program runs
//! from a place that nobody can write to by way of that link, now or later: a mount of its file that is read-only and in no mount namespace, or,
//! for those who may not make mounts, a sealed copy in memory. A read-only mount that somebody has attached is no such place: whoever may, makes
//! it writable for the next upgrade, while a container still holds what it once saw.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use lifecycle_engine::error::EffectError;
use nix::fcntl::AtFlags;
use rustix::fs::{
    CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, fcntl_get_seals, fstatvfs,
    memfd_create, open,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::mounts::table;
use crate::sys;
use crate::sys::mount::{MountAttr, RDONLY, mount_setattr};

const OWN: &str = "/proc/self/exe";
/// What a copy in memory must have to stay as it is: the last one is that no seal can be added or taken away.
const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// Executes the program again from where containers cannot write to it, with the same arguments; returns if it runs from there already.
///
/// To be called first of all by what makes containers or enters them, before anything is opened or read.
pub fn run_from_sealed() -> Result<(), EffectError> {
    let from = sys::fd::executed_from();
    let own = open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed("open(/proc/self/exe)")(e.into()))?;
    if from.as_ref().is_some_and(|from| is_own_mount(from, &own)) {
        // With its last descriptor, which is closed here, the mount is in no namespace at all.
        return Ok(());
    }
    // If it is not ours, it is the caller's, who may want it passed on.
    let by_descriptor = from.map(IntoRawFd::into_raw_fd).is_some();
    if is_sealed_memory(&own) {
        return Ok(());
    }
    // Where a mount of ours does not prove to be one after exec, it would not do so the next time, and so on for ever.
    let mount = if by_descriptor { Err(io::Error::from(Errno::NOTSUP)) } else { read_only_mount(Path::new(OWN)) };
    let sealed = mount.or_else(|_| sealed_memory(&own)).map_err(failed("memfd_create(MFD_ALLOW_SEALING)"))?;
    execute(&sealed)
}

/// With the same arguments and environment.
fn execute(sealed: &OwnedFd) -> Result<(), EffectError> {
    let args =
        std::env::args_os().map(c_string).collect::<io::Result<Vec<_>>>().map_err(failed("read the arguments"))?;
    let env = std::env::vars_os().map(|(name, value)| {
        let mut entry = name;
        entry.push("=");
        entry.push(value);
        c_string(entry)
    });
    let env = env.collect::<io::Result<Vec<_>>>().map_err(failed("read the environment"))?;
    let Err(errno) = nix::unistd::execveat(sealed, c"", &args, &env, AtFlags::AT_EMPTY_PATH);
    Err(failed("execveat(the sealed executable)")(errno.into()))
}

fn failed(call: &'static str) -> impl Fn(io::Error) -> EffectError {
    move |e| {
        EffectError::call(call, e)
            .help("the program's own executable cannot be kept out of containers' reach (CVE-2019-5736)")
    }
}

/// Whether it is a copy in memory that nobody can change. Files that cannot be sealed answer EINVAL.
fn is_sealed_memory(file: &OwnedFd) -> bool {
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS))
}

/// Whether the program was executed from a read-only mount that is attached nowhere. `from` is what it was executed by: as long as that is open,
/// the kernel tells such a mount from others. It is in no mount namespace that anybody has, and yet its attributes can be set, which is refused for
/// a mount of another namespace.
fn is_own_mount(from: &OwnedFd, own: &OwnedFd) -> bool {
    let read_only = || fstatvfs(own).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    let same = || table::mount_id(own, false).is_ok_and(|id| table::mount_id(from, false).is_ok_and(|from| from == id));
    let detached = || table::is_attached(from).is_ok_and(|attached| !attached);
    // A change that changes nothing.
    let can_be_set = || mount_setattr(from, false, &MountAttr { set: RDONLY, ..MountAttr::default() }).is_ok();
    read_only() && same() && detached() && can_be_set()
}

/// Costs no copy; needs CAP_SYS_ADMIN and Linux 5.12. Its descriptor outlives exec: it is the proof.
fn read_only_mount(file: &Path) -> io::Result<OwnedFd> {
    let mount = open_tree(CWD, file, OpenTreeFlags::OPEN_TREE_CLONE)?;
    mount_setattr(&mount, false, &MountAttr { set: RDONLY, ..MountAttr::default() })?;
    Ok(mount)
}

fn sealed_memory(own: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A sysctl may forbid memory that can be executed unless that is said (Linux 6.3), and older kernels do not know the word.
    let memory = memfd_create("lifecycle", flags | MemfdFlags::EXEC).or_else(|_| memfd_create("lifecycle", flags))?;
    let (mut from, mut to) = (File::from(own.try_clone()?), File::from(memory));
    from.rewind()?;
    io::copy(&mut from, &mut to)?;
    fcntl_add_seals(&to, SEALS)?;
    let sealed = OwnedFd::from(to);
    // What is executed must be found sealed afterwards, or it would be executed again for ever.
    if is_sealed_memory(&sealed) { Ok(sealed) } else { Err(io::Error::from(Errno::PERM)) }
}

fn c_string(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    fn opened(fd: &OwnedFd) -> OwnedFd {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        open(link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("open")
    }

    #[test]
    fn a_mount_of_ours_is_told_from_every_other_read_only_mount() {
        crate::effects::testing::in_mount_namespace(|| {
            // In a namespace that is made later, the link leads to a mount of the one before.
            let file = std::env::current_exe().expect("path");
            let mount = read_only_mount(&file).expect("mount");
            assert!(is_own_mount(&mount, &opened(&mount)));
            // Of the same file, and of another mount that is as good.
            let own = open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("open");
            assert!(!is_own_mount(&mount, &own));
            assert!(!is_own_mount(&read_only_mount(&file).expect("mount"), &opened(&mount)));
            // One that can be written.
            let writable = open_tree(CWD, &file, OpenTreeFlags::OPEN_TREE_CLONE).expect("mount");
            assert!(!is_own_mount(&writable, &opened(&writable)));
            // The administrator's.
            let attached = tempfile::NamedTempFile::new().expect("file");
            let target = open(attached.path(), OFlags::PATH, Mode::empty()).expect("open");
            crate::mounts::api::attach(&mount, &target, attached.path()).expect("attach");
            assert!(!is_own_mount(&mount, &opened(&mount)));
            // One of another mount namespace, which nobody here sees in a list.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
            assert!(!is_own_mount(&mount, &opened(&mount)));
        });
    }

    #[test]
    fn a_copy_in_memory_counts_with_all_seals_alone() {
        for seal in [SealFlags::WRITE, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK] {
            let memory = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memory");
            fcntl_add_seals(&memory, seal).expect("seal");
            assert!(!is_sealed_memory(&memory), "{seal:?}");
        }
    }

    #[test]
    fn neither_way_lets_anybody_write_to_the_executable_by_a_link() {
        let own = open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("open");
        assert!(!is_sealed_memory(&own), "the tests run from a sealed place already");
        let mut ours = Vec::new();
        File::from(own.try_clone().expect("dup")).read_to_end(&mut ours).expect("read");
        for sealed in [read_only_mount(Path::new(OWN)).expect("mount"), sealed_memory(&own).expect("memory")] {
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
