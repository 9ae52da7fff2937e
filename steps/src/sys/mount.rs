//! mount_setattr(2), statmount(2).

use super::check;
use nix::libc;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What to change of a mount (Linux 5.12). The bits are linux/mount.h's `MOUNT_ATTR_*`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttr<'a> {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear, before the others are set.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`; 0 leaves the propagation as it is.
    pub propagation: u64,
    /// The user namespace whose id maps the mount takes; `MOUNT_ATTR_IDMAP` is set along with it.
    pub id_map: Option<BorrowedFd<'a>>,
}

/// linux/mount.h.
#[repr(C)]
struct RawMountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Read-only.
pub const RDONLY: u64 = 0x1;
/// No set-user-id.
pub const NOSUID: u64 = 0x2;
/// No device nodes.
pub const NODEV: u64 = 0x4;
/// No programs.
pub const NOEXEC: u64 = 0x8;
/// The bits of the access time setting: [`RELATIME`], [`NOATIME`] or [`STRICTATIME`].
pub const ATIME: u64 = 0x70;
/// Access times change when they are old (no bit).
pub const RELATIME: u64 = 0x0;
/// Access times do not change.
pub const NOATIME: u64 = 0x10;
/// Access times always change.
pub const STRICTATIME: u64 = 0x20;
/// Directories' access times do not change.
pub const NODIRATIME: u64 = 0x80;
/// Symlinks are not followed.
pub const NOSYMFOLLOW: u64 = 0x0020_0000;
const IDMAP: u64 = 0x0010_0000;

/// Changes the mount that `dir` is in (`dir` itself being its root), and with `recursive` those below it.
pub fn mount_setattr(dir: impl AsFd, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let raw = RawMountAttr {
        set: attr.set | if attr.id_map.is_some() { IDMAP } else { 0 },
        clear: attr.clear,
        propagation: attr.propagation,
        userns_fd: attr.id_map.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let path: &CStr = c"";
    // SAFETY: the path is a NUL-terminated string, and the structure has the length that is given; both outlive the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const raw,
            size_of::<RawMountAttr>(),
        )
    };
    check(answer).map(drop)
}

/// linux/mount.h: struct mnt_id_req as of Linux 6.8.
#[repr(C)]
struct MountIdRequest {
    size: u32,
    spare: u32,
    id: u64,
    param: u64,
}

/// Whether a mount is attached in the caller's mount namespace, by its number that is never used again. `None` where the kernel does not say
/// (before Linux 6.8, or to a caller whom a filter forbids to ask).
pub fn is_attached(id: u64) -> Option<bool> {
    // Newer than the C library's list, and numbered alike on every architecture but alpha.
    const SYS_STATMOUNT: libc::c_long = 457;
    const STATMOUNT_MNT_BASIC: u64 = 2;
    let request = MountIdRequest { size: size_of::<MountIdRequest>() as u32, spare: 0, id, param: STATMOUNT_MNT_BASIC };
    // struct statmount, without room for strings.
    let mut answer = [0_u64; 64];
    // SAFETY: the request is as long as it says, and the answer has room for as many bytes as are named; both outlive the call.
    let result =
        unsafe { libc::syscall(SYS_STATMOUNT, &raw const request, answer.as_mut_ptr(), size_of_val(&answer), 0) };
    match check(result) {
        Ok(_) => Some(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Some(false),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

    #[test]
    fn an_attached_mount_is_told_from_a_detached_one() {
        let root = std::fs::File::open("/").unwrap();
        let detached = rustix::mount::open_tree(
            &root,
            c"",
            rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE | rustix::mount::OpenTreeFlags::AT_EMPTY_PATH,
        )
        .unwrap();
        assert!(crate::mounts::table::is_attached(&root).unwrap());
        assert!(!crate::mounts::table::is_attached(&detached).unwrap());
        if crate::mounts::table::has_unique_ids() {
            assert_eq!(is_attached(u64::MAX), Some(false));
        }
    }

    #[test]
    fn attributes_of_a_detached_mount_change() {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(&context).unwrap();
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let flags = || rustix::fs::fstatvfs(&mount).unwrap().f_flag;
        assert!(!flags().contains(rustix::fs::StatVfsMountFlags::RDONLY));
        mount_setattr(&mount, true, &MountAttr { set: RDONLY | NOSUID, ..MountAttr::default() }).unwrap();
        assert!(flags().contains(rustix::fs::StatVfsMountFlags::RDONLY | rustix::fs::StatVfsMountFlags::NOSUID));
        mount_setattr(&mount, false, &MountAttr { clear: RDONLY, ..MountAttr::default() }).unwrap();
        assert!(!flags().contains(rustix::fs::StatVfsMountFlags::RDONLY));
    }
}
