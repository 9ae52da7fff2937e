//! What the kernel offers. Each probe is a call that the kernel answers without doing anything.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde_json::{Value, json};

use super::words;
use crate::net::netlink::Rtnl;
use crate::spec::SeccompFlag;
use crate::sys::probe;

/// As uname(2) tells it.
pub(super) fn release() -> Value {
    json!(rustix::system::uname().release().to_string_lossy())
}

/// openat2(2), Linux 5.6.
pub(super) fn openat2() -> Value {
    json!(rustix::fs::openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT).is_ok())
}

/// clone3(2), Linux 5.3.
pub(super) fn clone3() -> Value {
    json!(probe::clone3())
}

/// clone3(2) into a cgroup of version 2, Linux 5.7.
pub(super) fn clone_into_cgroup() -> Value {
    json!(probe::clone_into_cgroup())
}

/// fsopen(2), open_tree(2), move_mount(2) and their family, Linux 5.2.
pub(super) fn mount_api() -> Value {
    json!(probe::mount_api())
}

/// mount_setattr(2), Linux 5.12.
pub(super) fn mount_setattr() -> Value {
    json!(probe::mount_setattr())
}

/// Numbers of mounts that are never used again, statx(2), Linux 6.8.
pub(super) fn unique_mount_ids() -> Value {
    json!(crate::mounts::table::has_unique_ids())
}

/// close_range(2) that can also mark descriptors close-on-exec, Linux 5.11.
pub(super) fn close_range() -> Value {
    json!(probe::close_range())
}

/// pidfd_open(2), Linux 5.3; its polling is the reason why 5.3 is the floor.
pub(super) fn pidfd() -> Value {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    json!(pidfd_open(getpid(), PidfdFlags::empty()).is_ok())
}

/// Time namespaces, Linux 5.6.
pub(super) fn time_namespace() -> Value {
    json!(Path::new("/proc/self/ns/time").exists())
}

/// Whether this caller may make a user namespace and become its root. Sysctls and security modules forbid it in several ways, some of them
/// only when the id map is written, so a process tries it.
pub(super) fn user_namespace() -> Value {
    json!(probe::user_namespace())
}

/// The actions of seccomp(2) filters, such as `kill_process` and `user_notif`.
pub(super) fn seccomp_actions() -> Value {
    json!(words("/proc/sys/kernel/seccomp/actions_avail", ' '))
}

/// The flags of seccomp(2) filters that a profile may name.
pub(super) fn seccomp_flags() -> Value {
    SeccompFlag::ALL.into_iter().filter(|flag| probe::seccomp_flag(flag.bit())).map(|flag| json!(flag.name())).collect()
}

/// The names of the network devices in the caller's network namespace.
pub(super) fn links() -> Value {
    let links = Rtnl::open().ok().and_then(|mut rtnl| rtnl.links().ok()).unwrap_or_default();
    // A config names none that is not text.
    let mut names: Vec<String> = links.into_iter().filter_map(|link| link.name.into_string().ok()).collect();
    names.sort_unstable();
    json!(names)
}

/// Security modules in force. securityfs has the list; where it is not mounted, the two that a container's config can name are looked for.
pub(super) fn security_modules() -> Value {
    let listed = words("/sys/kernel/security/lsm", ',');
    if !listed.is_empty() {
        return json!(listed);
    }
    let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.trim() == "Y");
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    let found = [("apparmor", apparmor), ("selinux", selinux)];
    found.iter().filter(|(_, on)| *on).map(|(name, _)| json!(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The floor of the program: whatever runs these tests has at least this.
    #[test]
    fn a_kernel_of_today_has_what_a_kernel_of_today_has() {
        let version = |text: &str| text.split(['.', '-']).take(2).filter_map(|n| n.parse().ok()).collect::<Vec<u32>>();
        let release = release();
        let running = version(release.as_str().expect("text"));
        let has = [
            (vec![5, 6], openat2()),
            (vec![5, 3], clone3()),
            (vec![5, 7], clone_into_cgroup()),
            (vec![5, 2], mount_api()),
            (vec![5, 12], mount_setattr()),
            (vec![6, 8], unique_mount_ids()),
            (vec![5, 11], close_range()),
            (vec![5, 3], pidfd()),
        ];
        for (since, answer) in has {
            assert_eq!(answer, json!(running >= since), "of Linux {since:?}, on {release}");
        }
    }

    #[test]
    fn a_user_namespace_is_tried_without_a_trace() {
        let before = std::fs::read_link("/proc/self/ns/user").expect("procfs");
        assert!(user_namespace().is_boolean());
        assert_eq!(std::fs::read_link("/proc/self/ns/user").expect("procfs"), before);
    }
}
