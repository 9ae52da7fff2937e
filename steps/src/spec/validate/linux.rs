//! `linux`, without its resources.

use super::{Problem, Problems};
use crate::spec::{
    Device, DeviceType, IdMapping, Linux, MemoryPolicy, MemoryPolicyFlag, MemoryPolicyMode, NamespaceType, Seccomp,
    SeccompAction, Spec, User, number_list,
};
use std::path::Path;

pub(super) fn check(spec: &Spec, problems: &mut Problems) {
    let linux = &spec.linux;
    namespaces(linux, problems);
    user_mappings(spec, problems);
    time_offsets(spec, problems);
    for (index, device) in linux.devices.iter().enumerate() {
        check_device(&format!("linux.devices[{index}]"), device, &linux.devices[..index], problems);
    }
    net_devices(spec, problems);
    sysctls(spec, problems);
    paths(spec, problems);
    if let Some(seccomp) = &linux.seccomp {
        check_seccomp(seccomp, problems);
    }
    if let Some(rdt) = &linux.intel_rdt {
        if rdt.clos_id.as_deref().is_some_and(|id| id != "/" && (id.contains('/') || id == "." || id == "..")) {
            problems
                .add("linux.intelRdt.closID", "is a directory's name, or `/` for the class that all are in at first");
        }
        if rdt.mem_bw_schema.as_deref().is_some_and(|line| !line.starts_with("MB:") || line.contains('\n')) {
            problems.add("linux.intelRdt.memBwSchema", "must be one line that begins with `MB:`");
        }
    }
    if let Some(policy) = &linux.memory_policy {
        problems.within("linux.memoryPolicy", check_memory_policy(policy));
    }
    problems.without_nul("linux.cgroupsPath", linux.cgroups_path.as_deref().unwrap_or_default().as_bytes());
    if linux.mount_label.as_deref().is_some_and(|label| label.chars().any(|c| c.is_control() || c == '"')) {
        problems.add("linux.mountLabel", "cannot contain a quotation mark or a control character");
    }
    if linux.personality.as_ref().is_some_and(|personality| !personality.flags.is_empty()) {
        problems.add("linux.personality.flags", "the runtime-spec defines none");
    }
}

fn namespaces(linux: &Linux, problems: &mut Problems) {
    let users = linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceType::User);
    // Its root may mount nothing in the caller's.
    if users && linux.shares_mounts() {
        problems.add("linux.namespaces", "has a user namespace and no mount namespace; add {\"type\": \"mount\"}");
    }
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        if linux.namespaces[..index].iter().any(|earlier| earlier.kind == namespace.kind) {
            problems
                .add(format!("linux.namespaces[{index}].type"), format!("`{}` is listed twice", namespace.kind.name()));
        }
        if let Some(path) = &namespace.path {
            problems.absolute(format!("linux.namespaces[{index}].path"), path);
        }
    }
}

fn user_mappings(spec: &Spec, problems: &mut Problems) {
    let linux = &spec.linux;
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    match spec.namespace(NamespaceType::User) {
        None if mapped => {
            problems.add("linux.uidMappings", "need a user namespace; add {\"type\": \"user\"} to linux.namespaces");
        }
        Some(namespace) if namespace.path.is_some() && mapped => {
            problems.add(
                "linux.uidMappings",
                "the user namespace that is joined has its own; leave uidMappings and gidMappings out",
            );
        }
        Some(namespace) if namespace.path.is_none() => {
            for (field, list) in [("uidMappings", &linux.uid_mappings), ("gidMappings", &linux.gid_mappings)] {
                if list.is_empty() {
                    problems.add(
                        format!("linux.{field}"),
                        "a new user namespace has no ids without them; map at least id 0",
                    );
                }
            }
        }
        _ => {}
    }
    mappings("linux.uidMappings", &linux.uid_mappings, problems);
    mappings("linux.gidMappings", &linux.gid_mappings, problems);
    if let Some(process) = spec.process.as_ref().filter(|_| mapped) {
        unmapped_ids(&process.user, linux, problems);
    }
}

/// What the program runs as must be ids of its user namespace: setresuid(2) takes no others.
fn unmapped_ids(user: &User, linux: &Linux, problems: &mut Problems) {
    let mut check = |field: String, id: u32, name: &str, map: &[IdMapping]| {
        let holds = |range: &IdMapping| id >= range.container_id && id - range.container_id < range.size;
        if !map.is_empty() && !map.iter().any(holds) {
            problems.add(
                format!("process.user.{field}"),
                format!("{id} is no id of the container; add it to linux.{name}"),
            );
        }
    };
    check("uid".into(), user.uid, "uidMappings", &linux.uid_mappings);
    check("gid".into(), user.gid, "gidMappings", &linux.gid_mappings);
    for (at, gid) in user.additional_gids.iter().enumerate() {
        check(format!("additionalGids[{at}]"), *gid, "gidMappings", &linux.gid_mappings);
    }
}

/// The kernel's rules for /proc/PID/uid_map, user_namespaces(7).
pub(super) fn mappings(field: &str, list: &[IdMapping], problems: &mut Problems) {
    if list.len() > 340 {
        problems.add(field, format!("has {} entries; the kernel takes 340", list.len()));
    }
    for (index, mapping) in list.iter().enumerate() {
        let fits = |first: u32| u32::try_from(u64::from(first) + u64::from(mapping.size)).is_ok();
        if mapping.size == 0 {
            problems.add(format!("{field}[{index}].size"), "must be greater than zero");
        } else if !fits(mapping.container_id) || !fits(mapping.host_id) {
            problems.add(format!("{field}[{index}].size"), "runs past the last id, 4294967294");
        }
    }
    // Sorted, so that a list of the greatest length costs no 340 × 340 comparisons.
    for (side, first) in [("containerID", (|m| m.container_id) as fn(&IdMapping) -> u32), ("hostID", |m| m.host_id)] {
        let mut sorted: Vec<&IdMapping> = list.iter().collect();
        sorted.sort_by_key(|mapping| first(mapping));
        let overlaps =
            |pair: &[&IdMapping]| u64::from(first(pair[0])) + u64::from(pair[0].size) > u64::from(first(pair[1]));
        if sorted.windows(2).any(overlaps) {
            problems.add(field, format!("two ranges overlap in {side}"));
        }
    }
}

fn time_offsets(spec: &Spec, problems: &mut Problems) {
    let offsets = &spec.linux.time_offsets;
    if offsets.is_empty() {
        return;
    }
    match spec.namespace(NamespaceType::Time) {
        None => {
            problems.add("linux.timeOffsets", "need a time namespace; add {\"type\": \"time\"} to linux.namespaces");
        }
        Some(namespace) if namespace.path.is_some() => {
            problems.add("linux.timeOffsets", "cannot be changed in a time namespace that is joined");
        }
        Some(_) => {}
    }
    for (clock, offset) in offsets {
        if clock != "monotonic" && clock != "boottime" {
            problems.add(format!("linux.timeOffsets.{clock}"), "no such clock; there are `monotonic` and `boottime`");
        }
        if offset.nanosecs >= 1_000_000_000 {
            problems.add(
                format!("linux.timeOffsets.{clock}.nanosecs"),
                "must lie below 1000000000; put whole seconds into `secs`",
            );
        }
    }
}

fn check_device(field: &str, device: &Device, earlier: &[Device], problems: &mut Problems) {
    problems.absolute(format!("{field}.path"), &device.path);
    for (name, _) in [("uid", device.uid), ("gid", device.gid)].into_iter().filter(|(_, id)| *id == Some(u32::MAX)) {
        problems.add(format!("{field}.{name}"), "must lie below 4294967295, which stands for no id");
    }
    match device.kind {
        DeviceType::A => problems.add(format!("{field}.type"), "`a` is for cgroup rules; write `b`, `c`, `u` or `p`"),
        DeviceType::P => {}
        DeviceType::B | DeviceType::C | DeviceType::U => {
            for (name, number) in [("major", device.major), ("minor", device.minor)] {
                if !number.is_some_and(|number| (0..=i64::from(u32::MAX)).contains(&number)) {
                    problems.add(format!("{field}.{name}"), "is required for a device, and cannot be negative");
                }
            }
        }
    }
    if earlier.iter().any(|other| {
        other.path == device.path && (other.kind, other.major, other.minor) != (device.kind, device.major, device.minor)
    }) {
        problems.add(format!("{field}.path"), format!("{} is listed twice, as two devices", device.path.display()));
    }
}

fn net_devices(spec: &Spec, problems: &mut Problems) {
    if !spec.linux.net_devices.is_empty() && spec.namespace(NamespaceType::Network).is_none() {
        problems.add("linux.netDevices", "need a network namespace; add {\"type\": \"network\"} to linux.namespaces");
    }
    // The kernel's dev_valid_name().
    let valid = |name: &str| {
        !name.is_empty()
            && name.len() < 16
            && name != "."
            && name != ".."
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
    };
    let mut inside: Vec<&str> = Vec::new();
    for (name, device) in &spec.linux.net_devices {
        let field = format!("linux.netDevices.{name}");
        let called = device.name.as_deref().unwrap_or(name);
        if name == "lo" || called == "lo" {
            problems
                .add(&field, "`lo` belongs to its network namespace, and every one has its own; it cannot be moved");
        }
        if called.contains('%') && (called.matches('%').count() > 1 || !called.contains("%d")) {
            problems.add(
                &field,
                format!("`{called}`: one `%d` stands for a free number, and there is no other use of `%`"),
            );
        } else if !called.contains('%') && inside.contains(&called) {
            problems.add(&field, format!("`{called}` is the name of another device in the container, too"));
        }
        inside.push(called);
        for candidate in std::iter::once(name).chain(&device.name) {
            if !valid(candidate) {
                problems.add(
                    &field,
                    format!("`{candidate}` is not a network device's name (1 to 15 bytes, no `/`, `:` or space)"),
                );
            }
        }
    }
}

/// The namespace that holds a kernel parameter, if one does. The rest belong to the host.
fn sysctl_namespace(name: &str) -> Option<NamespaceType> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        Some(NamespaceType::Ipc)
    } else if name.starts_with("net.") {
        Some(NamespaceType::Network)
    } else if name == "kernel.domainname" || name == "kernel.hostname" {
        Some(NamespaceType::Uts)
    } else if name.starts_with("user.max_") {
        Some(NamespaceType::User)
    } else {
        None
    }
}

fn sysctls(spec: &Spec, problems: &mut Problems) {
    for (name, value) in &spec.linux.sysctl {
        let field = format!("linux.sysctl.{name}");
        // Both spellings of sysctl(8): the first separator decides whether `.` or `/` separates.
        let dotted = match name.find(['.', '/']) {
            Some(at) if name.as_bytes()[at] == b'/' => {
                name.replace('.', "\u{1}").replace('/', ".").replace('\u{1}', "/")
            }
            _ => name.clone(),
        };
        if dotted.split('.').any(|part| part.is_empty() || part.starts_with('/') || part.contains('\0')) {
            problems.add(&field, "is not a parameter's name");
            continue;
        }
        match sysctl_namespace(&dotted) {
            None => {
                problems.add(&field, "belongs to the whole host, not to a namespace; it cannot be set for a container");
            }
            Some(kind) if spec.namespace(kind).is_none() => problems.add(
                &field,
                format!("needs a {} namespace, or it would change the host's; add it to linux.namespaces", kind.name()),
            ),
            Some(_) => {}
        }
        if dotted == "kernel.hostname" && spec.hostname.is_some() {
            problems.add(&field, "conflicts with `hostname`; leave one of them out");
        }
        if dotted == "kernel.domainname" && spec.domainname.is_some() {
            problems.add(&field, "conflicts with `domainname`; leave one of them out");
        }
        // CVE-2022-0811: a value that a tool on the way splits at `+` sets another parameter.
        if value.contains('\0') || value.contains('\n') || (value.contains('+') && value.contains('=')) {
            problems.add(&field, "its value has a NUL, a line break or `+…=`, which no parameter takes");
        }
    }
}

fn paths(spec: &Spec, problems: &mut Problems) {
    for (field, list) in [("maskedPaths", &spec.linux.masked_paths), ("readonlyPaths", &spec.linux.readonly_paths)] {
        for (index, path) in list.iter().enumerate() {
            let field = format!("linux.{field}[{index}]");
            problems.absolute(&field, path);
            if path == Path::new("/") {
                problems.add(&field, "cannot be the root itself; `root.readonly` makes that read-only");
            }
        }
    }
}

fn check_seccomp(seccomp: &Seccomp, problems: &mut Problems) {
    use SeccompAction::{Errno, Notify, Trace};
    let notifies = |action: SeccompAction| action == Notify;
    if notifies(seccomp.default_action) {
        problems.add(
            "linux.seccomp.defaultAction",
            "cannot be SCMP_ACT_NOTIFY: the agent's own calls would wait for the agent",
        );
    }
    if seccomp.syscalls.iter().any(|rule| notifies(rule.action)) && seccomp.listener_path.is_none() {
        problems.add("linux.seccomp.listenerPath", "is required where an action is SCMP_ACT_NOTIFY");
    }
    if let Some(path) = &seccomp.listener_path {
        problems.absolute("linux.seccomp.listenerPath", path);
    }
    if seccomp.handing().is_none() {
        problems.add(
            "linux.seccomp.syscalls",
            "`sendmsg` and `sendmmsg` cannot both be notified: the agent gets its descriptor by one of them",
        );
    }
    if seccomp.listener_metadata.is_some() && seccomp.listener_path.is_none() {
        problems.add("linux.seccomp.listenerMetadata", "has no meaning without listenerPath");
    }
    // The kernel caps the value at MAX_ERRNO without a word.
    let errno = |field: String, value: Option<u32>, action: SeccompAction, problems: &mut Problems| {
        if value.is_some() && !matches!(action, Errno | Trace) {
            problems.add(field, "applies to SCMP_ACT_ERRNO and SCMP_ACT_TRACE alone");
        } else if value.is_some_and(|value| value > 4095) {
            problems.add(field, "must lie between 0 and 4095");
        }
    };
    errno("linux.seccomp.defaultErrnoRet".into(), seccomp.default_errno_ret, seccomp.default_action, problems);
    for (index, rule) in seccomp.syscalls.iter().enumerate() {
        let field = format!("linux.seccomp.syscalls[{index}]");
        if rule.names.is_empty() {
            problems.add(format!("{field}.names"), "must have at least one entry");
        }
        if notifies(rule.action) && rule.names.iter().any(|name| name == "write") {
            problems.add(format!("{field}.names"), "`write` cannot be notified: the runtime reports through it");
        }
        errno(format!("{field}.errnoRet"), rule.errno_ret, rule.action, problems);
        for (at, arg) in rule.args.iter().enumerate() {
            if arg.index > 5 {
                problems.add(format!("{field}.args[{at}].index"), "must lie between 0 and 5");
            }
        }
    }
}

/// What is wrong with a memory policy, by its fields.
pub fn check_memory_policy(policy: &MemoryPolicy) -> Vec<Problem> {
    use MemoryPolicyFlag::{NumaBalancing, RelativeNodes, StaticNodes};
    use MemoryPolicyMode::{Bind, Default, Local, Preferred, PreferredMany};
    let mut problems = Problems::default();
    match policy.mode {
        Default | Local if policy.nodes.is_some() => {
            problems.add("nodes", "must be absent for this mode");
        }
        Default | Local | Preferred => {}
        _ if policy.nodes.is_none() => problems.add("nodes", "is required for this mode"),
        _ => {}
    }
    if let Some(Err(message)) = policy.nodes.as_deref().map(number_list) {
        problems.add("nodes", message);
    }
    if policy.flags.contains(&RelativeNodes) && policy.flags.contains(&StaticNodes) {
        problems.add("flags", "MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES exclude each other");
    }
    if policy.flags.contains(&NumaBalancing) && !matches!(policy.mode, Bind | PreferredMany) {
        problems.add("flags", "MPOL_F_NUMA_BALANCING needs MPOL_BIND or MPOL_PREFERRED_MANY");
    }
    problems.found
}
