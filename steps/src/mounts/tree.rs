//! The mounts below one mount, for mount(2), which changes no more than one at a time.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use lifecycle_engine::error::EffectError;
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::Options;
use super::api::remount;
use super::table::{self, Mount};

/// Gives every mount below the one that `top` is in the recursive attributes. What is covered by another one is out of reach, and left out.
pub(super) fn remount_below(top: BorrowedFd, options: &Options) -> Result<(), EffectError> {
    let (recursive_set, recursive_clear) = (options.recursive_set, options.recursive_clear);
    let recursive = Options { recursive_set, recursive_clear, ..Options::default() };
    let Some(top) = table::containing(top)? else {
        return Err(EffectError::new("a mount that is attached nowhere cannot be changed by mount(2)"));
    };
    let all = table::read()?;
    let mut found = Vec::new();
    collect(&all, &top, &mut found);
    found.into_iter().try_for_each(|mount| remount_again(mount, &recursive))
}

/// The mounts below `top` that can be reached, by what is mounted on what: a path alone does not tell.
fn collect<'a>(all: &'a [Mount], top: &Mount, found: &mut Vec<&'a Mount>) {
    let children: Vec<&Mount> = all.iter().filter(|mount| mount.parent == top.id).collect();
    let covers = |path: &Path| children.iter().any(|other| other.target != path && path.starts_with(&other.target));
    for child in children.iter().filter(|child| !covers(&child.target)) {
        if all.iter().all(|other| other.parent != child.id || other.target != child.target) {
            found.push(child);
        }
        collect(all, child, found);
    }
}

/// Finds the mount by its path once more. Whoever has access to a volume can bend that meanwhile, and would keep the mount as it is.
fn remount_again(mount: &Mount, options: &Options) -> Result<(), EffectError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(CWD, &mount.target, flags, Mode::empty())
        .map_err(|errno| EffectError::call(format!("open(\"{}\")", mount.target.display()), errno).help(BENT))?;
    if table::number(&fd)? != mount.id {
        return Err(
            EffectError::new(format!("\"{}\" leads to another mount by now", mount.target.display())).help(BENT)
        );
    }
    remount(fd.as_fd(), options, &mount.target)
}

const BENT: &str = "the mount there cannot be given its attributes: somebody with access to the volume bends its path while it is used";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::testing::in_mount_namespace;
    use rustix::fs::{StatVfsMountFlags, statvfs};
    use std::fs;
    use std::path::PathBuf;

    fn tmpfs(at: &Path) {
        fs::create_dir_all(at).unwrap();
        rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    }

    fn read_only(at: &Path) -> bool {
        statvfs(at).unwrap().f_flag.contains(StatVfsMountFlags::RDONLY)
    }

    fn rro() -> Options {
        Options::parse(&["rbind".to_owned(), "rro".to_owned()]).unwrap()
    }

    /// A volume with mounts in it, one of them below another, and one that is covered.
    fn volume(dir: &Path) -> PathBuf {
        let top = dir.join("volume");
        for name in ["", "way/below", "way/below/deeper", "covered", "covered/inner"] {
            tmpfs(&top.join(name));
        }
        tmpfs(&top.join("covered"));
        top
    }

    #[test]
    fn every_mount_below_is_changed_and_none_beside() {
        let dir = tempfile::tempdir().unwrap();
        in_mount_namespace(|| {
            // Below the volume, by its path alone.
            tmpfs(&dir.path().join("volume"));
            tmpfs(&dir.path().join("volume/below"));
            let top = volume(dir.path());
            tmpfs(&dir.path().join("volume beside"));
            remount_below(fs::File::open(&top).unwrap().as_fd(), &rro()).unwrap();
            for name in ["way/below", "way/below/deeper", "covered"] {
                assert!(read_only(&top.join(name)), "{name}");
            }
            assert!(!read_only(&top) && !read_only(&dir.path().join("volume beside")));
            rustix::mount::unmount(top.join("covered"), rustix::mount::UnmountFlags::DETACH).unwrap();
            assert!(!read_only(&top.join("covered")));
        });
    }

    #[test]
    fn a_mount_whose_path_is_bent_meanwhile_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        in_mount_namespace(|| {
            let top = volume(dir.path());
            let (way, away) = (top.join("way"), top.join("away"));
            let listed = table::read().unwrap();
            let below = listed.iter().find(|mount| mount.target == way.join("below")).unwrap();
            fs::rename(&way, &away).unwrap();
            let missing = remount_again(below, &rro()).unwrap_err();
            assert!(missing.errno.is_some(), "{missing}");
            fs::create_dir_all(way.join("below")).unwrap();
            let other = remount_again(below, &rro()).unwrap_err();
            assert!(other.what.contains("another mount"), "{other}");
            fs::remove_dir_all(&way).unwrap();
            std::os::unix::fs::symlink(top.join("covered"), &way).unwrap();
            remount_again(below, &rro()).unwrap_err();
            assert!(!read_only(&top) && !read_only(&top.join("covered")));
            fs::remove_file(&way).unwrap();
            fs::rename(&away, &way).unwrap();
            remount_again(below, &rro()).unwrap();
            assert!(read_only(&way.join("below")));
        });
    }
}
