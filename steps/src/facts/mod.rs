//! The facts of this machine: one row per fact, found out when it is asked for, and so that nothing is left behind.

pub mod caller;
mod cgroup;
mod criu;
mod kernel;
mod namespace;
mod overlay;
mod resctrl;
mod systemd;
mod whereabouts;

pub use caller::{IdRange, Limit, is_nested};
pub use cgroup::{CgroupLayout, CgroupMode, Hierarchy, Unified};
pub use resctrl::Resctrl;
pub use systemd::Systemd;
pub use whereabouts::followed;

pub(crate) use caller::ranges as id_ranges;
pub(crate) use cgroup::{MAY_MAKE, REALTIME, cgroup_layout, cgroup_of, own_of};
pub use criu::Criu;
pub use namespace::NamespaceFile;

pub(crate) use criu::NAME as CRIU;
pub(crate) use namespace::PREFIX as NAMESPACE;
pub(crate) use whereabouts::{JOINED, instead, members, name as whereabouts_of};

use std::path::Path;
use std::sync::OnceLock;

use lifecycle_engine::facts::Host;
use serde_json::{Value, json};

use crate::effects::inside::Layout;

/// One fact.
struct Fact {
    name: &'static str,
    read: fn() -> Value,
    masked: Mask,
}

/// What a fact is when it is masked.
enum Mask {
    /// As on a host that does not offer it.
    As(fn() -> Value),
    /// It is who the caller is, not what the host offers: there is no host without it.
    Unchanged,
}

/// A fact that says whether something is there.
const fn offers(name: &'static str, read: fn() -> Value) -> Fact {
    Fact { name, read, masked: Mask::As(|| json!(false)) }
}

/// A fact that lists what is there.
const fn lists(name: &'static str, read: fn() -> Value) -> Fact {
    Fact { name, read, masked: Mask::As(|| json!([])) }
}

/// A fact that cannot be masked.
const fn fixed(name: &'static str, read: fn() -> Value) -> Fact {
    Fact { name, read, masked: Mask::Unchanged }
}

/// In the order in which `lifecycle facts` prints them.
const FACTS: &[Fact] = &[
    fixed("uid", || json!(rustix::process::getuid().as_raw())),
    fixed("euid", || json!(rustix::process::geteuid().as_raw())),
    fixed("gid", || json!(rustix::process::getgid().as_raw())),
    lists("caps.effective", caller::effective_capabilities),
    lists("subuid", || caller::subordinate_ids("/etc/subuid")),
    lists("subgid", || caller::subordinate_ids("/etc/subgid")),
    fixed("cwd", caller::working_directory),
    Fact { name: "cache", read: caller::cache, masked: Mask::As(|| Value::Null) },
    offers("terminal", caller::terminal),
    fixed("limits", caller::limits),
    fixed("boot_id", || json!(boot_id())),
    Fact { name: "kernel.release", read: kernel::release, masked: Mask::As(|| json!("5.4.0")) },
    offers("kernel.openat2", kernel::openat2),
    offers("kernel.clone3", kernel::clone3),
    offers("kernel.clone_into_cgroup", kernel::clone_into_cgroup),
    offers("kernel.mount_api", kernel::mount_api),
    offers("kernel.mount_setattr", kernel::mount_setattr),
    offers("kernel.unique_mount_ids", kernel::unique_mount_ids),
    offers("kernel.close_range", kernel::close_range),
    offers("kernel.pidfd", kernel::pidfd),
    offers("kernel.time_namespace", kernel::time_namespace),
    offers("userns.allowed", kernel::user_namespace),
    offers("userns.nested", || json!(is_nested())),
    Fact { name: "overlay.host", read: || overlay::layout(false), masked: Mask::As(|| json!(Layout::ReadOnly)) },
    Fact { name: "overlay.userns", read: || overlay::layout(true), masked: Mask::As(|| json!(Layout::ReadOnly)) },
    lists("seccomp.actions", kernel::seccomp_actions),
    lists("seccomp.flags", kernel::seccomp_flags),
    lists("lsm", kernel::security_modules),
    lists("net.links", kernel::links),
    Fact { name: "cgroup.layout", read: cgroup::layout, masked: Mask::As(|| json!(CgroupLayout::default())) },
    Fact { name: "cgroup.lacks", read: cgroup::lacks, masked: Mask::As(|| json!([])) },
    offers("cgroup.delegated", cgroup::delegated),
    Fact { name: "cgroup.own", read: cgroup::own, masked: Mask::As(|| json!({})) },
    lists("cpu.rdt", resctrl::processor),
    Fact { name: "resctrl", read: resctrl::resctrl, masked: Mask::As(|| Value::Null) },
    offers("systemd.running", || json!(systemd::is_running())),
    Fact { name: "systemd", read: systemd::systemd, masked: Mask::As(|| json!(Systemd::default())) },
];

/// The machine that the program runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Host for Machine {
    fn names(&self) -> &[&'static str] {
        static NAMES: OnceLock<Vec<&'static str>> = OnceLock::new();
        NAMES.get_or_init(|| FACTS.iter().map(|fact| fact.name).collect())
    }

    fn read(&self, name: &str) -> Value {
        if name == criu::NAME {
            return criu::criu();
        }
        if let Some(directory) = name.strip_prefix(MAY_MAKE) {
            return cgroup::may_make(Path::new(directory));
        }
        if let Some(directory) = name.strip_prefix(REALTIME) {
            return cgroup::realtime(Path::new(directory));
        }
        if let Some(found) = whereabouts::read(name) {
            return found;
        }
        if let Some(path) = name.strip_prefix(namespace::PREFIX) {
            return namespace::namespace(path);
        }
        FACTS.iter().find(|fact| fact.name == name).map_or(Value::Null, |fact| (fact.read)())
    }

    fn masked(&self, name: &str) -> Value {
        match FACTS.iter().find(|fact| fact.name == name) {
            None => Value::Null,
            Some(Fact { masked: Mask::As(value), .. }) => value(),
            Some(fact) => (fact.read)(),
        }
    }
}

/// Whether the caller is known to lack a capability, such as `CAP_NET_ADMIN`.
pub fn lacks(facts: &mut lifecycle_engine::facts::Facts, capability: &str) -> bool {
    let all: Option<Vec<String>> = facts.get("caps.effective");
    all.is_some_and(|all| !all.iter().any(|name| name == capability))
}

/// Tells this boot of the kernel from all others; part of every recorded identity, since numbers repeat after a reboot. Empty without procfs.
pub fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim_end().to_owned()
    })
}

/// The words of a file that holds words, none if there is no such file.
fn words(path: &str, separator: char) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().split(separator).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_has_one_row_and_reads_the_same_twice() {
        let mut names = Machine.names().to_vec();
        for name in &names {
            assert_eq!(Machine.read(name), Machine.read(name), "{name}");
        }
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert_eq!(Machine.read("no.such.fact"), Value::Null);
    }

    #[test]
    fn a_masked_feature_is_absent_and_the_caller_stays_who_he_is() {
        for fact in FACTS.iter().filter(|fact| fact.name.starts_with("kernel.") && fact.name != "kernel.release") {
            assert_eq!(Machine.masked(fact.name), json!(false), "{}", fact.name);
        }
        assert_eq!(Machine.masked("caps.effective"), json!([]));
        assert_eq!(Machine.masked("cgroup.layout")["mode"], json!("none"));
        assert_eq!(Machine.masked("uid"), Machine.read("uid"));
    }

    #[test]
    fn reading_every_fact_leaves_no_descriptor() {
        // In a thread with a table of its own, since other tests open descriptors meanwhile.
        let count = || std::fs::read_dir("/proc/thread-self/fd").expect("procfs").count();
        let counted = std::thread::spawn(move || {
            crate::sys::probe::own_descriptors().expect("a table of descriptors");
            let before = count();
            Machine.names().iter().for_each(|name| drop(Machine.read(name)));
            (before, count())
        });
        let (before, after) = counted.join().expect("the thread");
        assert_eq!(before, after);
    }
}
