//! `linux.resources` as files of cgroups and what is written into each: config-linux.md, "Control groups".

use std::path::Path;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::Facts;
use lifecycle_engine::step::Planning;

use super::{v1, v2};
use crate::effects::Warning;
use crate::effects::cgroup::{Alternative, Version};
use crate::facts::CgroupLayout;
use crate::spec::{BlockIo, Cpu, Memory, Network, Resources};

/// One limit: one file and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// Which field of the config asks for it, below `resources`.
    pub(super) field: String,
    /// The hierarchy's version.
    pub(super) version: Version,
    /// The controller that has the file.
    pub(super) controller: String,
    /// The file.
    pub(super) file: String,
    /// What is written.
    pub(super) value: String,
    /// The file's other name.
    pub(super) otherwise: Option<Alternative>,
    /// See `WriteLimit::optional`.
    pub(super) optional: bool,
}

impl Limit {
    pub(super) fn new(version: Version, field: &str, file: impl Into<String>, value: impl ToString) -> Self {
        let (file, value) = (file.into(), value.to_string());
        // Every file has its controller's name in front; `cgroup.` is every cgroup's.
        let controller = file.split('.').next().unwrap_or_default().to_owned();
        Self { field: format!("resources.{field}"), version, controller, file, value, otherwise: None, optional: false }
    }

    /// The names that the file may have.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.file.as_str()).chain(self.otherwise.iter().map(|other| other.file.as_str()))
    }

    pub(super) fn or(mut self, file: &str, value: impl ToString) -> Self {
        self.otherwise = Some(Alternative { file: file.to_owned(), value: value.to_string() });
        self
    }

    pub(super) fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// The limits that are found so far, and where controllers are.
pub(super) struct Limits<'a> {
    layout: &'a CgroupLayout,
    pub(super) found: Vec<Limit>,
}

impl Limits<'_> {
    /// The version of the hierarchy that has the controller; `name_v2` is what version 2 calls it.
    fn version(&self, field: &str, name: &str, name_v2: Option<&str>) -> Result<Version, PlanError> {
        if self.layout.v1_of(name).is_some() {
            return Ok(Version::V1);
        }
        match name_v2 {
            Some(name) if self.layout.v2_of(name).is_some() => Ok(Version::V2),
            None if self.layout.v2.is_some() && self.layout.v1.is_empty() => {
                Err(PlanError::new(field, "exists only in cgroup v1, and this host has cgroup v2")
                    .help("remove the limit"))
            }
            _ => Err(PlanError::new(field, format!("this host has no cgroup controller `{name}`"))
                .help("remove the limit, or mount the controller's hierarchy (see `lifecycle facts`)")),
        }
    }
}

/// All limits but the device rules, in the order in which they have to be written.
pub(super) fn limits(resources: &Resources, layout: &CgroupLayout) -> Result<Vec<Limit>, PlanError> {
    let mut limits = Limits { layout, found: Vec::new() };
    let out = &mut limits;
    if let Some(memory) = resources.memory.as_ref().filter(|memory| **memory != Memory::default()) {
        match out.version("resources.memory", "memory", Some("memory"))? {
            Version::V1 => v1::memory(memory, &mut out.found)?,
            Version::V2 => v2::memory(memory, &mut out.found)?,
        }
    }
    if let Some(cpu) = &resources.cpu {
        cpu_limits(cpu, out)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        let version = out.version("resources.pids", "pids", Some("pids"))?;
        // 0 cannot be told apart from "no limit" in older configs, and a container without a process is none: the smallest limit is 1.
        let value = if limit < 0 { "max".to_owned() } else { limit.max(1).to_string() };
        out.found.push(Limit::new(version, "pids.limit", "pids.max", value));
    }
    if let Some(io) = resources.block_io.as_ref().filter(|io| **io != BlockIo::default()) {
        match out.version("resources.blockIO", "blkio", Some("io"))? {
            Version::V1 => v1::block_io(io, &mut out.found),
            Version::V2 => v2::block_io(io, &mut out.found)?,
        }
    }
    for limit in &resources.hugepage_limits {
        match out.version("resources.hugepageLimits", "hugetlb", Some("hugetlb"))? {
            Version::V1 => v1::huge_pages(limit, &mut out.found),
            Version::V2 => v2::huge_pages(limit, &mut out.found),
        }
    }
    for (device, rdma) in &resources.rdma {
        let version = out.version("resources.rdma", "rdma", Some("rdma"))?;
        let handles = rdma.hca_handles.map(|n| format!(" hca_handle={n}"));
        let objects = rdma.hca_objects.map(|n| format!(" hca_object={n}"));
        let value = format!("{device}{}{}", handles.unwrap_or_default(), objects.unwrap_or_default());
        out.found.push(Limit::new(version, &format!("rdma.{device}"), "rdma.max", value));
    }
    if let Some(network) = &resources.network {
        network_limits(network, out)?;
    }
    v2::unified(&resources.unified, layout, &mut out.found)?;
    Ok(limits.found)
}

/// Says what does nothing here although callers still ask for it: "NOT RECOMMENDED" (config-linux.md, "Memory"), and dropped by Linux 5.16.
pub(super) fn warn(resources: &Resources, layout: &CgroupLayout, cx: &mut Planning) {
    let Some(memory) = &resources.memory else { return };
    let no_tcp = layout.v1_of("memory").is_none();
    let ignored = [("kernel", memory.kernel, true), ("kernelTCP", memory.kernel_tcp, no_tcp)];
    for (field, _, _) in ignored.iter().filter(|(_, limit, does_nothing)| limit.is_some_and(|n| n > 0) && *does_nothing)
    {
        let text = format!(
            "resources.memory.{field} does nothing: this kernel limits no kernel memory by itself, it counts towards resources.memory.limit"
        );
        cx.effect(Warning { text });
    }
}

/// Refuses a limit whose file this kernel does not have, as far as that can be known before anything is touched.
pub(super) fn there(resources: &Resources, limits: &[Limit], facts: &mut Facts) -> Result<(), PlanError> {
    if limits.is_empty() {
        return Ok(());
    }
    let lacks: Vec<String> = facts.get("cgroup.lacks").unwrap_or_default();
    let missing = |limit: &&Limit| !limit.optional && limit.files().all(|file| lacks.iter().any(|name| name == file));
    if let Some(limit) = limits.iter().find(missing) {
        let message = format!("needs `{}`, which this kernel does not have", limit.file);
        return Err(PlanError::new(limit.field.clone(), message)
            .help("remove the limit, or run a kernel that has it (`lifecycle facts`: cgroup.lacks)"));
    }
    for (index, pages) in resources.hugepage_limits.iter().enumerate() {
        let Some(kilobytes) = kilobytes(&pages.page_size) else { continue };
        let directory = format!("/sys/kernel/mm/hugepages/hugepages-{kilobytes}kB");
        if facts.kind(Path::new(&directory)).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            let message = format!("this kernel has no pages of {}", pages.page_size);
            return Err(PlanError::new(format!("resources.hugepageLimits.{index}.pageSize"), message)
                .help("`ls /sys/kernel/mm/hugepages` lists those that it has"));
        }
    }
    Ok(())
}

/// The size of a page such as `2MB`, in KiB.
fn kilobytes(size: &str) -> Option<u64> {
    let units = [("KB", 1), ("MB", 1 << 10), ("GB", 1 << 20)];
    units.iter().find_map(|(unit, factor)| size.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(*factor))
}

fn cpu_limits(cpu: &Cpu, out: &mut Limits) -> Result<(), PlanError> {
    let placed = cpu.cpus.is_some() || cpu.mems.is_some();
    let timed = Cpu { cpus: None, mems: None, ..cpu.clone() };
    if timed != Cpu::default() {
        match out.version("resources.cpu", "cpu", Some("cpu"))? {
            Version::V1 => v1::cpu(&timed, &mut out.found),
            Version::V2 => v2::cpu(&timed, &mut out.found)?,
        }
    }
    if placed {
        let version = out.version("resources.cpu.cpus", "cpuset", Some("cpuset"))?;
        let files = [("cpu.cpus", "cpuset.cpus", &cpu.cpus), ("cpu.mems", "cpuset.mems", &cpu.mems)];
        let given = files.into_iter().filter_map(|(field, file, list)| Some((field, file, list.as_ref()?)));
        out.found.extend(given.map(|(field, file, list)| Limit::new(version, field, file, list)));
    }
    Ok(())
}

fn network_limits(network: &Network, out: &mut Limits) -> Result<(), PlanError> {
    if let Some(class) = network.class_id {
        let version = out.version("resources.network.classID", "net_cls", None)?;
        out.found.push(Limit::new(version, "network.classID", "net_cls.classid", class));
    }
    for priority in &network.priorities {
        let version = out.version("resources.network.priorities", "net_prio", None)?;
        let value = format!("{} {}", priority.name, priority.priority);
        out.found.push(Limit::new(version, "network.priorities", "net_prio.ifpriomap", value));
    }
    Ok(())
}
