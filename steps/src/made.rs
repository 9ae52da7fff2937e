//! Files and directories that are made where somebody else may write too: in a volume, or in another user's directory.
//!
//! What has just been made under a name, such a one can exchange for a link to a file of the host, or for another file. So a file gets its
//! permissions from the very call that makes it, and an owner only by a descriptor that is shown to lead to what was made. clippy.toml forbids
//! the calls that take a name for that.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use lifecycle_engine::error::EffectError;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, mknodat, openat, statat};
use rustix::io::Errno;
use rustix::process::{geteuid, umask};
use rustix::thread::{Gid, Uid};

/// A user and a group.
pub type Owner = (u32, u32);

/// The umask of the programs, and of a container's processes unless its config says otherwise: as runc has it, whatever the caller's.
pub const UMASK: Mode = Mode::WGRP.union(Mode::WOTH);

/// Makes something with just the permissions that the call in `make` asks for.
///
/// The umask is the whole process's, so the caller must have one thread, as whatever makes containers has.
pub fn unmasked<T>(make: impl FnOnce() -> T) -> T {
    let mask = umask(Mode::empty());
    let made = make();
    umask(mask);
    made
}

/// Makes a device node or a FIFO, with these permissions whatever the umask; its number is 0 where it has none.
pub fn node(
    dir: BorrowedFd,
    name: &Path,
    kind: FileType,
    number: u64,
    mode: Mode,
    owner: Option<Owner>,
) -> Result<(), EffectError> {
    unmasked(|| mknodat(dir, name, kind, mode, number)).map_err(|errno| {
        EffectError::call(format!("mknodat(\"{}\", {kind:?})", name.display()), errno).help(match errno {
            Errno::PERM => "device nodes need CAP_MKNOD, and cannot be made in a user namespace",
            Errno::ACCESS => "the directory around it cannot be written by this user",
            _ => "the node cannot be made",
        })
    })?;
    owner.map_or(Ok(()), |owner| own(dir, name, kind, number, owner))
}

/// Makes a directory, with these permissions whatever the umask.
pub fn directory(dir: BorrowedFd, name: &Path, mode: Mode, owner: Option<Owner>) -> Result<(), EffectError> {
    unmasked(|| mkdirat(dir, name, mode)).map_err(|errno| {
        EffectError::call(format!("mkdirat(\"{}\")", name.display()), errno).help(match errno {
            Errno::ACCESS | Errno::PERM => "the directory around it cannot be written by this user",
            Errno::ROFS => "the file system is read-only",
            Errno::NOSPC | Errno::DQUOT => "the file system is full",
            _ => "the directory cannot be made",
        })
    })?;
    // mkdir(2) leaves them out.
    let special = mode.intersects(Mode::SUID | Mode::SGID);
    if owner.is_none() && !special {
        return Ok(());
    }
    let made = enter(dir, name)?;
    if let Some(owner) = owner {
        give(&made, name, owner)?;
    }
    if !special {
        return Ok(());
    }
    fchmod(&made, mode).map_err(|errno| EffectError::call(format!("fchmod(\"{}\")", name.display()), errno))
}

/// Opens a directory that the caller has just made under this name.
pub fn enter(dir: BorrowedFd, name: &Path) -> Result<OwnedFd, EffectError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(dir, name, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOTDIR | Errno::LOOP => exchanged(name),
        errno => EffectError::call(format!("open(\"{}\", O_DIRECTORY | O_NOFOLLOW)", name.display()), errno),
    })?;
    let is_empty = || {
        let mut entries = Dir::read_from(&made)?;
        // `.` and `..`.
        entries.try_fold(0, |count, entry| entry.map(|_| count + 1)).map(|count| count == 2)
    };
    let failed = |errno| EffectError::call(format!("read the directory \"{}\"", name.display()), errno);
    let is_ours = fstat(&made).map_err(failed)?.st_uid == geteuid().as_raw();
    if is_ours && is_empty().map_err(failed)? { Ok(made) } else { Err(exchanged(name)) }
}

/// Gives what the caller has just made under this name an owner. It is no directory; its number is 0 where it is no device.
pub fn own(dir: BorrowedFd, name: &Path, kind: FileType, number: u64, owner: Owner) -> Result<(), EffectError> {
    let failed = |errno| EffectError::call(format!("stat(\"{}\")", name.display()), errno);
    // A look by name does no harm, and mostly there is nothing else to do.
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    if (stat.st_uid, stat.st_gid) == owner {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(dir, name, flags, Mode::empty())
        .map_err(|errno| EffectError::call(format!("open(\"{}\", O_PATH | O_NOFOLLOW)", name.display()), errno))?;
    if !could_be_new(&fstat(&made).map_err(failed)?, kind, number) {
        return Err(exchanged(name));
    }
    give(&made, name, owner)
}

/// Whether it is no other file than one that the caller could have made a moment ago: then it does not matter which of them it is.
fn could_be_new(stat: &Stat, kind: FileType, number: u64) -> bool {
    let device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    FileType::from_raw_mode(stat.st_mode) == kind
        && stat.st_nlink == 1
        && stat.st_uid == geteuid().as_raw()
        && (!device || stat.st_rdev == number)
}

/// fchown(2), which takes no O_PATH descriptor, by its newer form. The name is for the message.
#[expect(clippy::disallowed_methods, reason = "with AT_EMPTY_PATH and without a name it goes to the descriptor")]
pub fn give(made: impl AsFd, name: &Path, (uid, gid): Owner) -> Result<(), EffectError> {
    let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(made, c"", user, group, AtFlags::EMPTY_PATH).map_err(|errno| {
        EffectError::call(format!("fchownat(\"{}\", {uid}, {gid})", name.display()), errno)
            .help("giving a file away needs CAP_CHOWN, and ids that the user namespace maps")
    })
}

fn exchanged(name: &Path) -> EffectError {
    EffectError::new(format!("\"{}\" became something else when it had just been made", name.display()))
        .help("somebody with access to the directory, such as another container with the same volume, exchanges it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    const OWNER: Owner = (1234, 4321);

    #[test]
    fn permissions_and_owner_are_what_is_asked_for_whatever_the_umask() {
        crate::effects::testing::in_child(|| {
            umask(Mode::from_raw_mode(0o077));
            let scratch = tempfile::tempdir().unwrap();
            let dir = File::open(scratch.path()).unwrap();
            for (mode, owner) in [(0o777, None), (0o1777, Some(OWNER)), (0o2775, None), (0o2770, Some(OWNER))] {
                let name = format!("{mode:o}");
                directory(dir.as_fd(), Path::new(&name), Mode::from_raw_mode(mode), owner).unwrap();
                node(dir.as_fd(), Path::new("fifo"), FileType::Fifo, 0, Mode::from_raw_mode(0o666), owner).unwrap();
                let made = fs::metadata(scratch.path().join(&name)).unwrap();
                let fifo = fs::metadata(scratch.path().join("fifo")).unwrap();
                assert_eq!((made.permissions().mode() & 0o7777, fifo.permissions().mode() & 0o7777), (mode, 0o666));
                for stat in [made, fifo] {
                    assert_eq!((stat.uid(), stat.gid()), owner.unwrap_or((0, 0)));
                }
                fs::remove_file(scratch.path().join("fifo")).unwrap();
            }
            // The caller's own stays.
            assert_eq!(umask(Mode::empty()), Mode::from_raw_mode(0o077));
        });
    }

    #[test]
    fn what_is_not_what_was_made_gets_no_owner_and_is_not_entered() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let dir = File::open(scratch.path()).unwrap();
        fs::write(at("file"), "").unwrap();
        fs::write(at("linked"), "").unwrap();
        fs::hard_link(at("linked"), at("again")).unwrap();
        fs::create_dir_all(at("used/sub")).unwrap();
        symlink(at("used"), at("link")).unwrap();
        for name in ["file", "linked", "link", "used"] {
            let refused = own(dir.as_fd(), Path::new(name), FileType::Fifo, 0, OWNER).unwrap_err();
            assert!(refused.what.contains("became something else"), "{name}: {refused}");
            let refused = enter(dir.as_fd(), Path::new(name)).unwrap_err();
            assert!(refused.what.contains("became something else"), "{name}: {refused}");
            assert_eq!(fs::symlink_metadata(at(name)).unwrap().uid(), 0);
        }
        let refused = own(dir.as_fd(), Path::new("linked"), FileType::RegularFile, 0, OWNER).unwrap_err();
        assert!(refused.what.contains("became something else"), "{refused}");
        own(dir.as_fd(), Path::new("file"), FileType::RegularFile, 0, OWNER).unwrap();
        own(dir.as_fd(), Path::new("link"), FileType::Symlink, 0, OWNER).unwrap();
        assert_eq!((fs::metadata(at("used")).unwrap().uid(), fs::metadata(at("file")).unwrap().uid()), (0, 1234));
    }
}
