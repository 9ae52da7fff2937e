//! The calls that make, change and attach mounts.

use super::tree::remount_below;
use super::{Bind, Options};
use crate::sys::mount::{MountAttr, mount_setattr};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::facts::Facts;
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, XattrFlags, fstatvfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    fspick, mount, mount_change, mount_remount, move_mount, open_tree,
};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The family of calls, chosen from the facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// fsopen, open_tree, mount_setattr, move_mount (Linux 5.12).
    #[default]
    Detached,
    /// mount(2).
    Classic,
}

impl Api {
    /// The one to use here.
    pub fn choose(facts: &mut Facts) -> Self {
        let offered = facts.has("kernel.mount_api") && facts.has("kernel.mount_setattr");
        if offered { Self::Detached } else { Self::Classic }
    }

    /// The one that works here, for who has no facts yet.
    pub fn probe() -> Self {
        let offered = crate::sys::probe::mount_api() && crate::sys::probe::mount_setattr();
        if offered { Self::Detached } else { Self::Classic }
    }

    /// Whether it is the usual one; effects leave it out of their JSON then.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The longest value that fsconfig takes, in bytes.
const LONGEST_VALUE: usize = 255;

/// A new file system, mounted nowhere yet, with the options that are the mount's own.
pub fn new_file_system(kind: &str, source: Option<&str>, options: &Options) -> Result<OwnedFd, EffectError> {
    let failed = |call: String, errno: Errno| EffectError::call(call, errno).help(explain_file_system(kind, errno));
    let context =
        fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| failed(format!("fsopen(\"{kind}\")"), errno))?;
    let set = |key: &str, value: Option<&str>| {
        let answer = match value {
            Some(value) if value.len() > LONGEST_VALUE => Err(Errno::TOOBIG),
            Some(value) => fsconfig_set_string(context.as_fd(), key, value),
            None => fsconfig_set_flag(context.as_fd(), key),
        };
        answer.map_err(|errno| {
            let log = last_message(context.as_fd());
            let value = value.map_or(String::new(), |value| format!(", \"{value}\""));
            let error = EffectError::call(format!("fsconfig({kind}, \"{key}\"{value})"), errno);
            error.help(log.unwrap_or_else(|| format!("{kind} does not know this option, or refuses its value")))
        })
    };
    if let Some(source) = source {
        set("source", Some(source))?;
        // A journal would be replayed on a disk that is only marked read-only at the mount.
        if source.starts_with('/') && options.set & crate::sys::mount::RDONLY != 0 {
            set("ro", None)?;
        }
    }
    for flag in &options.super_flags {
        set(flag, None)?;
    }
    if let Some(context) = &options.context {
        set("context", Some(context))?;
    }
    for option in &options.data {
        match option.split_once('=') {
            Some((key, value)) => set(key, Some(value))?,
            None => set(option, None)?,
        }
    }
    fsconfig_create(context.as_fd()).map_err(|errno| {
        let error = EffectError::call(format!("fsconfig({kind}, create)"), errno);
        error.help(last_message(context.as_fd()).unwrap_or_else(|| explain_file_system(kind, errno)))
    })?;
    let mut set = options.set;
    if options.copy_up {
        set &= !crate::sys::mount::RDONLY;
    }
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(set as u32))
        .map_err(|errno| failed(format!("fsmount({kind})"), errno))
}

/// The kernel's own words about a failed fsconfig: its messages can be read from the context's descriptor.
fn last_message(context: BorrowedFd) -> Option<String> {
    let mut last = None;
    let mut buffer = [0u8; 1024];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        // Each begins with its level: `e`, `w` or `i`, and a space.
        let text = String::from_utf8_lossy(&buffer[..length]);
        last = Some(format!("the kernel says: {}", text.trim_end().get(2..).unwrap_or_default()));
    }
    last
}

fn explain_file_system(kind: &str, errno: Errno) -> String {
    match errno {
        Errno::NODEV => format!("this kernel has no {kind} file system; load its module, or use another type"),
        Errno::PERM if kind == "proc" || kind == "sysfs" => format!(
            "in a user namespace {kind} needs a namespace of its own (pid for proc, network for sysfs), and a host whose own {kind} is not \
             covered in part; bind-mount the host's instead"
        ),
        Errno::PERM => {
            format!("mounting {kind} needs CAP_SYS_ADMIN; in a user namespace only some file systems are allowed")
        }
        Errno::BUSY => format!("the source is in use by a {kind} mount with other options"),
        Errno::INVAL => format!("{kind} refuses one of the options"),
        _ => format!("the {kind} file system cannot be made"),
    }
}

/// A copy of the mount that `source` is in, from `source` on, attached nowhere yet.
pub fn clone_tree(source: impl AsFd, what: &Path, bind: Bind) -> Result<OwnedFd, EffectError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, bind == Bind::Recursive);
    open_tree(source.as_fd(), c"", flags).map_err(|errno| {
        EffectError::call(format!("open_tree(\"{}\")", what.display()), errno).help(explain_bind(errno))
    })
}

fn explain_bind(errno: Errno) -> &'static str {
    match errno {
        Errno::INVAL => {
            "the mount is unbindable, or bound alone it would show a user namespace what the mounts in it cover: use rbind"
        }
        Errno::PERM => {
            "binding needs CAP_SYS_ADMIN in the mount namespace's user namespace, and a mount below that is unbindable cannot be left out there"
        }
        Errno::NOTDIR => "a directory can only be mounted on a directory, and a file on a file",
        _ => "it cannot be bound",
    }
}

/// Opens a path of the host as the source of a bind mount.
pub fn open_source(path: &Path) -> Result<OwnedFd, EffectError> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        EffectError::call(format!("open(\"{}\")", path.display()), errno).help(match errno {
            Errno::NOENT => "the source of the bind mount does not exist; make it, or leave the mount out",
            Errno::ACCESS => "the container's user namespace may not look there; open the directories on the way (o+x)",
            _ => "the source of the bind mount cannot be opened",
        })
    })
}

/// Sets attributes, id maps and propagation of a mount that is attached nowhere.
pub fn configure(mount: impl AsFd, options: &Options, id_map: Option<BorrowedFd>) -> Result<(), EffectError> {
    set_attributes(mount.as_fd(), options, id_map)?;
    set_propagation(mount, options)
}

/// Its attributes and id maps alone.
pub fn set_attributes(mount: impl AsFd, options: &Options, id_map: Option<BorrowedFd>) -> Result<(), EffectError> {
    if let (Some(recursive), Some(_)) = (options.id_map, id_map) {
        set(&mount, "idmap", recursive, &MountAttr { id_map, ..MountAttr::default() })?;
    }
    if options.recursive_set | options.recursive_clear != 0 {
        let (attr_set, clear) = (options.recursive_set, options.recursive_clear);
        set(&mount, "recursive attributes", true, &MountAttr { set: attr_set, clear, ..MountAttr::default() })?;
    }
    if options.set | options.clear != 0 {
        set(
            &mount,
            "attributes",
            false,
            &MountAttr { set: options.set, clear: options.clear, ..MountAttr::default() },
        )?;
    }
    Ok(())
}

/// Its propagation alone.
pub fn set_propagation(mount: impl AsFd, options: &Options) -> Result<(), EffectError> {
    options.propagation.iter().try_for_each(|(kind, recursive)| {
        set(&mount, "propagation", *recursive, &MountAttr { propagation: kind.flag(), ..MountAttr::default() })
    })
}

fn set(mount: impl AsFd, what: &str, recursive: bool, attr: &MountAttr) -> Result<(), EffectError> {
    mount_setattr(mount, recursive, attr).map_err(|error| {
        let help = explain_attributes(&error);
        EffectError::call(format!("mount_setattr({what})"), error).help(help)
    })
}

fn explain_attributes(error: &std::io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM) => {
            "in a user namespace what the host's mount forbids (ro, nosuid, nodev, noexec, atime) cannot be allowed again"
        }
        Some(Errno::INVAL) => "the file system does not support it (idmap: Linux 5.12 for ext4 and xfs, 6.3 for tmpfs)",
        _ => "the mount's attributes cannot be changed",
    }
}

/// Moves a mount that is attached nowhere onto `target`.
pub fn attach(mount: impl AsFd, target: impl AsFd, what: &Path) -> Result<(), EffectError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_fd(), c"", target.as_fd(), c"", flags).map_err(|errno| {
        EffectError::call(format!("move_mount(\"{}\")", what.display()), errno).help(match errno {
            Errno::NOTDIR => "a directory can only be mounted on a directory, and a file on a file",
            Errno::NOENT => "the mountpoint was removed meanwhile",
            Errno::PERM => "attaching a mount needs CAP_SYS_ADMIN in the mount namespace's user namespace",
            _ => "the mount cannot be attached there",
        })
    })
}

/// A path that leads to an open descriptor, for calls that take nothing else, and for as long as it is open: lend it, do not give it away.
pub fn magic_link(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// mount(2): a new file system on `target`.
pub fn classic_file_system(
    kind: &str,
    source: Option<&str>,
    options: &Options,
    target: impl AsFd,
    what: &Path,
) -> Result<(), EffectError> {
    let data = classic_data(options)?;
    let mut flags = options.flags(MountFlags::empty()) | options.super_flags();
    if options.copy_up {
        flags.remove(MountFlags::RDONLY);
    }
    mount(source.unwrap_or(kind), magic_link(target.as_fd()), kind, flags, Some(data.as_c_str())).map_err(|errno| {
        EffectError::call(format!("mount(\"{kind}\", \"{}\", \"{}\")", what.display(), options.data.join(",")), errno)
            .help(explain_file_system(kind, errno))
    })
}

/// A new file system on `target`, by either family.
pub fn file_system_on(
    api: Api,
    kind: &str,
    source: &str,
    options: &Options,
    target: impl AsFd,
    what: &Path,
) -> Result<(), EffectError> {
    match api {
        Api::Detached => attach(new_file_system(kind, Some(source), options)?, target, what),
        Api::Classic => classic_file_system(kind, Some(source), options, target, what),
    }
}

/// The options for the file system itself as one text. A label may have commas, so it is quoted, as security modules read it.
fn classic_data(options: &Options) -> Result<CString, EffectError> {
    let context = options.context.iter().map(|context| format!("context=\"{context}\""));
    let data: Vec<String> = context.chain(options.data.iter().cloned()).collect();
    CString::new(data.join(",")).map_err(|_| EffectError::new("a mount option contains a NUL byte"))
}

/// Changes the options of the file system that is mounted at `top`.
pub fn reconfigure_file_system(api: Api, top: impl AsFd, options: &Options, what: &Path) -> Result<(), EffectError> {
    let failed = |call: &str, errno: Errno, log: Option<String>| {
        let error = EffectError::call(format!("{call}(\"{}\")", what.display()), errno);
        error.help(log.unwrap_or_else(|| "its file system cannot change these options while it is mounted".into()))
    };
    if api == Api::Classic {
        let present = present_flags(top.as_fd())?;
        let flags = options.flags(present) | options.super_flags();
        let data = classic_data(options)?;
        return mount_remount(magic_link(top.as_fd()), flags, data.as_c_str())
            .map_err(|errno| failed("mount(remount)", errno, None));
    }
    let context = fspick(top.as_fd(), c"", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)
        .map_err(|errno| failed("fspick", errno, None))?;
    let log = || last_message(context.as_fd());
    for option in options.super_flags.iter().copied().chain(options.data.iter().map(String::as_str)) {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(context.as_fd(), key, value),
            None => fsconfig_set_flag(context.as_fd(), option),
        }
        .map_err(|errno| failed(&format!("fsconfig({option})"), errno, log()))?;
    }
    fsconfig_reconfigure(context.as_fd()).map_err(|errno| failed("fsconfig(reconfigure)", errno, log()))
}

/// Gives an open file its label, fsetxattr(2): the root of a file system that knows no `context=`, or a terminal.
pub fn label_file(top: impl AsFd, label: &str, what: &Path) -> Result<(), EffectError> {
    // The kernel takes a label with its NUL.
    let mut value = label.as_bytes().to_vec();
    value.push(0);
    rustix::fs::fsetxattr(top, "security.selinux", &value, XattrFlags::empty()).map_err(|errno| {
        EffectError::call(format!("fsetxattr(\"{}\", security.selinux, {label:?})", what.display()), errno)
            .help("the policy does not know this label, or does not let the caller set it (relabelto)")
    })
}

/// mount(2): a bind of `source` on `target`.
pub fn classic_bind(source: impl AsFd, bind: Bind, target: impl AsFd, what: &Path) -> Result<(), EffectError> {
    let mut flags = MountFlags::BIND;
    flags.set(MountFlags::REC, bind == Bind::Recursive);
    mount(magic_link(source.as_fd()), magic_link(target.as_fd()), c"", flags, None).map_err(|errno| {
        EffectError::call(format!("mount(bind, \"{}\")", what.display()), errno).help(explain_bind(errno))
    })
}

/// mount(2): attributes and propagation of the mount whose root `top` is.
pub fn classic_configure(top: impl AsFd, options: &Options, what: &Path) -> Result<(), EffectError> {
    if options.recursive_set | options.recursive_clear != 0 {
        remount_below(top.as_fd(), options)?;
    }
    if options.has_attributes() {
        remount(top.as_fd(), options, what)?;
    }
    for (kind, recursive) in &options.propagation {
        classic_propagation(&magic_link(top.as_fd()), *kind, *recursive)?;
    }
    Ok(())
}

/// mount(2): attributes of the mount whose root `top` is, and of no other.
pub(super) fn remount(top: BorrowedFd, options: &Options, what: &Path) -> Result<(), EffectError> {
    let flags = options.flags(present_flags(top)?) | MountFlags::BIND;
    mount_remount(magic_link(top), flags, c"").map_err(|errno| {
        EffectError::call(format!("mount(remount, \"{}\", {flags:?})", what.display()), errno)
            .help("in a user namespace what the host's mount forbids cannot be allowed again")
    })
}

/// mount(2): how mount events travel through the mount at `path`.
pub fn classic_propagation(path: &Path, kind: super::Propagation, recursive: bool) -> Result<(), EffectError> {
    let mut flags = MountPropagationFlags::from_bits_retain(kind.flag());
    flags.set(MountPropagationFlags::REC, recursive);
    mount_change(path, flags).map_err(|errno| {
        EffectError::call(format!("mount(\"{}\", {flags:?})", path.display()), errno)
            .help("changing propagation needs a mountpoint, and CAP_SYS_ADMIN in the mount namespace's user namespace")
    })
}

/// The flags that a mount has, so that a remount keeps them.
fn present_flags(top: BorrowedFd) -> Result<MountFlags, EffectError> {
    let stat = fstatvfs(top).map_err(|errno| EffectError::call("fstatvfs", errno))?.f_flag;
    let pairs = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
        (NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
    ];
    let mut flags: MountFlags =
        pairs.into_iter().filter(|(have, _)| stat.contains(*have)).map(|(_, flag)| flag).collect();
    // The one that is not told, and not kept beside another flag about access times.
    flags.set(MountFlags::STRICTATIME, !flags.intersects(MountFlags::NOATIME | MountFlags::RELATIME));
    Ok(flags)
}

/// linux/statfs.h (Linux 5.10).
const NOSYMFOLLOW: StatVfsMountFlags = StatVfsMountFlags::from_bits_retain(0x2000);
