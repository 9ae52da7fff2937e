//! Which cgroup hierarchies there are, and where the caller is in them.

use lifecycle_engine::proc;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cgroup::realtime::Above;
use crate::effects::cgroup::limiting;

/// How the controllers are spread over hierarchies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupMode {
    /// No hierarchy is mounted.
    #[default]
    None,
    /// Controllers in hierarchies of version 1.
    V1,
    /// Version 1, with one of version 2 beside it.
    Hybrid,
    /// The one hierarchy of version 2.
    V2,
}

/// The mounted hierarchies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupLayout {
    /// The kind of layout.
    pub mode: CgroupMode,
    /// Hierarchies of version 1, in the order of their mounts.
    #[serde(default)]
    pub v1: Vec<Hierarchy>,
    /// The hierarchy of version 2.
    #[serde(default)]
    pub v2: Option<Unified>,
}

/// A mounted hierarchy of version 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hierarchy {
    /// Its controllers, or `name=…` for one without.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Whether the caller may make cgroups at its top.
    pub writable: bool,
}

/// The mounted hierarchy of version 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unified {
    /// The controllers that it has to give (`cgroup.controllers` at its top).
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Whether the caller may make cgroups at its top.
    pub writable: bool,
}

impl CgroupLayout {
    /// The hierarchy of version 1 that has the controller.
    pub fn v1_of(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.controllers.iter().any(|name| name == controller))
    }

    /// The hierarchy of version 2, if it has the controller to give.
    pub fn v2_of(&self, controller: &str) -> Option<&Unified> {
        self.v2.as_ref().filter(|unified| unified.controllers.iter().any(|name| name == controller))
    }

    /// Whether the caller may make cgroups in every hierarchy.
    pub fn writable(&self) -> bool {
        match self.mode {
            CgroupMode::None => false,
            CgroupMode::V2 => self.v2.as_ref().is_some_and(|unified| unified.writable),
            CgroupMode::V1 | CgroupMode::Hybrid => self.v1.iter().all(|hierarchy| hierarchy.writable),
        }
    }
}

/// One mount of a cgroup file system, from mountinfo.
struct Mounted {
    v2: bool,
    root: String,
    at: PathBuf,
    /// Of the superblock: where version 1 names its controllers.
    options: Vec<String>,
}

pub(super) fn layout() -> Value {
    let mounts = proc::text("/proc/self/mountinfo").unwrap_or_default();
    let known = proc::text("/proc/cgroups").unwrap_or_default();
    let writable = |at: &Path| access(at, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    let controllers = |at: &Path| {
        let text = std::fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    json!(layout_of(&mounts, &known, &writable, &controllers))
}

/// The same where none may be written to, and version 2 has nothing to give.
pub(crate) fn cgroup_layout(mounts: &str, known: &str) -> CgroupLayout {
    layout_of(mounts, known, &|_| false, &|_| Vec::new())
}

fn layout_of(
    mounts: &str,
    known: &str,
    writable: &dyn Fn(&Path) -> bool,
    controllers: &dyn Fn(&Path) -> Vec<String>,
) -> CgroupLayout {
    let known: Vec<&str> =
        known.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_whitespace().next()).collect();
    let mut layout = CgroupLayout::default();
    for mounted in mounts.lines().filter_map(mounted) {
        let (mount, writable) = (mounted.at.clone(), writable(&mounted.at));
        if mounted.v2 {
            let controllers = controllers(&mounted.at);
            layout.v2.get_or_insert(Unified { controllers, mount, writable });
            continue;
        }
        let is_controller = |o: &&String| o.starts_with("name=") || known.contains(&o.as_str());
        let controllers: Vec<String> = mounted.options.iter().filter(is_controller).cloned().collect();
        // A hierarchy that is mounted twice is one hierarchy.
        if !controllers.is_empty() && !layout.v1.iter().any(|other| other.controllers == controllers) {
            layout.v1.push(Hierarchy { controllers, mount, writable });
        }
    }
    layout.mode = match (layout.v1.is_empty(), layout.v2.is_some()) {
        (true, true) => CgroupMode::V2,
        (true, false) => CgroupMode::None,
        (false, true) => CgroupMode::Hybrid,
        (false, false) => CgroupMode::V1,
    };
    layout
}

/// proc_pid_mountinfo(5): `id parent dev root point options [fields] - type source superblock-options`.
fn mounted(line: &str) -> Option<Mounted> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, at) = (unescape(left.next()?), unescape(left.next()?));
    let mut right = right.split(' ');
    let v2 = match right.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let options = right.nth(1).unwrap_or_default().split(',').map(str::to_owned).collect();
    Some(Mounted { v2, root, at: at.into(), options })
}

/// mountinfo writes blank, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    let mut out = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => out.push(char::from(code)),
            None => out.push('\\'),
        }
        rest = if code.is_some() { &after[3..] } else { after };
    }
    out + rest
}

/// The caller's own cgroup by the hierarchy's mount point, as seen below it. Read only where a relative path is asked for: it differs between
/// two shells on one machine.
pub(super) fn own() -> Value {
    let mounts = proc::text("/proc/self/mountinfo").unwrap_or_default();
    let own = proc::text("/proc/self/cgroup").unwrap_or_default();
    json!(own_of(&mounts, &own))
}

/// A process's cgroup in the hierarchy of certain controllers (none: version 2), from its /proc/PID/cgroup: `HIERARCHY:CONTROLLERS:PATH`,
/// cgroups(7).
///
/// The path may be of any bytes but a line feed, which the kernel lets no cgroup have.
pub(crate) fn cgroup_of(text: &[u8], is_of: impl Fn(&str) -> bool) -> Option<&Path> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
        let controllers = str::from_utf8(fields.next()?).ok()?;
        fields.next().filter(|_| is_of(controllers)).map(|path| Path::new(OsStr::from_bytes(path)))
    })
}

/// The same from these texts of /proc/self/mountinfo and /proc/self/cgroup.
pub(crate) fn own_of(mounts: &str, own: &str) -> BTreeMap<PathBuf, String> {
    let mut paths = BTreeMap::new();
    for mounted in mounts.lines().filter_map(mounted) {
        let has = |controller: &str| mounted.options.iter().any(|option| option == controller);
        let is_of = |controllers: &str| {
            if mounted.v2 { controllers.is_empty() } else { !controllers.is_empty() && controllers.split(',').all(has) }
        };
        let path = cgroup_of(own.as_bytes(), is_of);
        // In a container that shares the host's cgroup namespace only a part of the hierarchy is mounted. Whoever has been moved out of his cgroup
        // namespace is told of a way that leads out of it (`/../..`), and has no cgroup that is mounted.
        let below = path.and_then(|path| path.strip_prefix(&mounted.root).ok());
        let inside = |below: &&Path| below.components().all(|part| matches!(part, Component::Normal(_)));
        if let Some(below) = below.filter(inside) {
            paths.entry(mounted.at).or_insert_with(|| format!("/{}", below.display()));
        }
    }
    paths
}

/// Whether the cgroup above the caller's own, where version 2 is all there is, was delegated to him: he may make cgroups there, move processes
/// and give controllers away (Documentation/admin-guide/cgroup-v2.rst, "Delegation").
pub(super) fn delegated() -> Value {
    let layout: CgroupLayout = serde_json::from_value(layout()).unwrap_or_default();
    let own: BTreeMap<PathBuf, String> = serde_json::from_value(own()).unwrap_or_default();
    let Some(unified) = layout.v2.filter(|_| layout.mode == CgroupMode::V2) else { return json!(false) };
    let Some(path) = own.get(&unified.mount).map(|path| path.trim_start_matches('/')) else { return json!(false) };
    let own = unified.mount.join(path);
    let Some(above) = own.parent().filter(|above| above.starts_with(&unified.mount)) else { return json!(false) };
    let may = |file: &str| access(above.join(file), Access::WRITE_OK).is_ok();
    json!(["", "cgroup.procs", "cgroup.subtree_control"].into_iter().all(may))
}

/// The prefix of the fact's name; the cgroup's directory follows.
pub(crate) const MAY_MAKE: &str = "cgroup.may_make:";

/// Whether the caller may make the cgroup: in the last directory on the way to it that is there. Found out only for a cgroup that is named by
/// somebody who may not make any at the top.
pub(super) fn may_make(at: &Path) -> Value {
    let there = at.ancestors().find(|above| above.is_dir());
    json!(there.is_some_and(|above| access(above, Access::WRITE_OK | Access::EXEC_OK).is_ok()))
}

/// The prefix of the fact's name; the directory of a cgroup of version 1's cpu follows.
pub(crate) const REALTIME: &str = "cgroup.realtime:";

/// What limits the real time of such a cgroup, if runs of ours cannot change it. Found out only for a container that asks for some.
pub(super) fn realtime(at: &Path) -> Value {
    let layout: CgroupLayout = serde_json::from_value(layout()).unwrap_or_default();
    let limiting = layout.v1_of("cpu").and_then(|cpu| limiting(&cpu.mount, at));
    limiting.map_or(Value::Null, |(at, runtime, period)| json!(Above { at, runtime, period }))
}

/// Files that only some kernels have, and that a limit may need.
const NOT_EVERYWHERE: [&str; 16] = [
    "blkio.bfq.weight",
    "blkio.bfq.weight_device",
    "blkio.leaf_weight",
    "blkio.leaf_weight_device",
    "blkio.weight",
    "blkio.weight_device",
    "cpu.cfs_burst_us",
    "cpu.idle",
    "cpu.max.burst",
    "cpu.rt_period_us",
    "cpu.rt_runtime_us",
    "io.bfq.weight",
    "io.weight",
    "memory.kmem.tcp.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.swap.max",
];

/// Which of those files this kernel has not, as far as can be seen: in the caller's own cgroup, or at the top of a hierarchy of version 1, where
/// only BFQ hides some.
pub(super) fn lacks() -> Value {
    let layout: CgroupLayout = serde_json::from_value(layout()).unwrap_or_default();
    let own: BTreeMap<PathBuf, String> = serde_json::from_value(own()).unwrap_or_default();
    let path = |mount: &Path| own.get(mount).map_or("", |path| path.trim_start_matches('/'));
    let lacks = |file: &str| {
        let controller = file.split('.').next().unwrap_or_default();
        if let Some(hierarchy) = layout.v1_of(controller) {
            let path = path(&hierarchy.mount);
            let hidden = path.is_empty() && file.starts_with("blkio.") && !file.contains("leaf");
            return is_of_v1(file) && !hidden && !hierarchy.mount.join(path).join(file).exists();
        }
        layout.v2_of(controller).is_some_and(|unified| {
            let at = unified.mount.join(path(&unified.mount));
            let has = std::fs::read_to_string(at.join("cgroup.controllers")).unwrap_or_default();
            let has = at != unified.mount && has.split_whitespace().any(|name| name == controller);
            (file == "cpu.idle" || !is_of_v1(file)) && has && !at.join(file).exists()
        })
    };
    NOT_EVERYWHERE.into_iter().filter(|file| lacks(file)).collect()
}

/// `cpu.idle` is a name of both versions.
fn is_of_v1(file: &str) -> bool {
    let starts = ["blkio.", "cpu.cfs", "cpu.rt", "memory.kmem", "memory.memsw"];
    file == "cpu.idle" || starts.iter().any(|start| file.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:5 - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 /box /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
28 25 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
29 25 0:26 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw,nsdelegate
30 25 0:24 /box /mnt/again rw - cgroup cgroup rw,memory
";
    const KNOWN: &str =
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\ncpuacct\t1\t1\t1\nmemory\t2\t1\t1\n";

    fn hybrid() -> CgroupLayout {
        layout_of(HYBRID, KNOWN, &|at| at.ends_with("memory"), &|_| vec!["hugetlb".to_owned()])
    }

    #[test]
    fn each_hierarchy_is_found_once_with_its_controllers() {
        let layout = hybrid();
        assert_eq!(layout.mode, CgroupMode::Hybrid);
        let found: Vec<String> = layout.v1.iter().map(|h| h.controllers.join(",")).collect();
        assert_eq!(found, ["cpu,cpuacct", "memory", "name=systemd"]);
        assert_eq!(layout.v1_of("cpuacct").map(|h| h.mount.as_path()), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(layout.v2_of("hugetlb").map(|u| u.mount.as_path()), Some(Path::new("/sys/fs/cgroup/uni fied")));
        assert!(layout.v2_of("memory").is_none());
        assert!(!layout.writable());
    }

    #[test]
    fn the_own_cgroup_is_told_below_the_mount() {
        let own = own_of(HYBRID, "3:cpuacct,cpu:/a/b\n2:memory:/box/me\n1:name=systemd:/\n0::/x\n");
        let at = |mount: &str| own.get(Path::new(mount)).map(String::as_str);
        assert_eq!(at("/sys/fs/cgroup/cpu,cpuacct"), Some("/a/b"));
        assert_eq!(at("/sys/fs/cgroup/memory"), Some("/me"));
        assert_eq!(at("/sys/fs/cgroup/systemd"), Some("/"));
        assert_eq!(at("/sys/fs/cgroup/uni fied"), Some("/x"));
    }

    #[test]
    fn a_cgroup_outside_of_what_is_mounted_is_not_told() {
        let own = own_of(HYBRID, "3:cpu,cpuacct:/../../a\n2:memory:/other\n0::/..\n");
        assert_eq!(own, BTreeMap::new());
    }

    #[test]
    fn the_unified_hierarchy_alone_is_version_2() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let layout = layout_of(mounts, KNOWN, &|_| true, &|_| vec!["cpu".to_owned()]);
        assert_eq!(layout.mode, CgroupMode::V2);
        assert!(layout.writable());
        assert_eq!(layout_of("", KNOWN, &|_| true, &|_| Vec::new()).mode, CgroupMode::None);
    }
}
