//! A container's cgroup as systemd makes it: a transient scope.
//!
//! A scope is made around a process that is there. So `cgroup.create` only says what the scope shall be, and makes the cgroups of the
//! hierarchies that systemd leaves alone; `process.clone` has the scope made around init, while that is inert. systemd moves it there,
//! which an ordinary user could not do where his own cgroup is not below that of his instance of systemd.

use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::Planning;
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::create::{Input, Made, Output, device_rules, output, ways_down, write_limits};
use super::devices::DeviceRules;
use super::limits::{Limit, limits};
use super::realtime;
use super::translate::{of_annotations, of_devices, of_limits};
use super::unit::Unit;
use crate::dbus::{Address, Value};
use crate::effects::cgroup::{AdoptCgroup, Alternative, Cgroup, DeviceFilter, EnableControllers, Freezer, MakeCgroup};
use crate::effects::cgroup::{Slices, StartScope, Version, WriteLimit};
use crate::facts::{CgroupLayout, CgroupMode, Systemd};
use crate::outcomes::{CgroupJoin, Process};
use crate::spec::Resources;
use crate::systemd::Property;

/// The oldest systemd with all that is asked of it here: AllowedCPUs, CPUQuotaPeriodUSec, DeviceAllow by number.
const OLDEST: u32 = 244;

/// The hierarchies of version 1 in which systemd makes cgroups (its CGROUP_MASK_V1, and its own).
const MANAGED: [&str; 7] = ["name=systemd", "cpu", "cpuacct", "blkio", "memory", "devices", "pids"];

/// The controllers of version 2 that systemd gives to whom it delegates.
const DELEGATED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// A scope to be made around a process, and what is written into its cgroups then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeJoin {
    /// Its name.
    pub unit: String,
    /// Where systemd listens.
    pub manager: Address,
    /// Its cgroup, below the top of each hierarchy, with a leading slash.
    pub control_group: String,
    /// What it is to be like.
    pub properties: Vec<Property>,
    /// The slices that it is in.
    #[serde(default)]
    pub slices: Slices,
    /// Its cgroups.
    pub cgroups: Vec<ScopeCgroup>,
    /// Version 1's freezer, which systemd leaves alone: nothing dies in it unless thawed.
    #[serde(default)]
    pub freezer: Option<Freezer>,
}

/// A scope's cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeCgroup {
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// Its directory.
    pub at: PathBuf,
    /// Its version.
    pub version: Version,
    /// Controllers of version 2 that systemd does not know, and the limits need.
    #[serde(default)]
    pub enable: Vec<String>,
    /// Device rules of version 2.
    #[serde(default)]
    pub devices: Option<DeviceRules>,
    /// What is written, in order.
    #[serde(default)]
    pub writes: Vec<ScopeWrite>,
}

/// A value for a file of a cgroup; see `WriteLimit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeWrite {
    /// Which field of the config asks for it, for messages.
    #[serde(default)]
    pub field: String,
    /// The file.
    pub file: String,
    /// What is written into it.
    pub value: String,
    /// What to write where the kernel has no such file.
    #[serde(default)]
    pub otherwise: Option<Alternative>,
    /// A kernel without the file is no error.
    #[serde(default)]
    pub optional: bool,
}

/// What the caller's systemd is, or why there is none to use.
fn manager(layout: &CgroupLayout, cx: &mut Planning) -> Result<(Systemd, Address), PlanError> {
    let refuse = |why: &str, help: &str| Err(PlanError::new("systemd", why).help(help));
    let found: Systemd = cx.facts.get("systemd").unwrap_or_default();
    if !found.running {
        return refuse(
            "systemd does not run on this machine: there is no /run/systemd/system",
            "leave --systemd-cgroup out (podman: --cgroup-manager=cgroupfs; containerd: SystemdCgroup = false)",
        );
    }
    let Some(address) = found.address.clone() else {
        if found.user {
            return refuse(
                "the caller has no instance of systemd of his own that answers",
                "log in so that $XDG_RUNTIME_DIR is set (`loginctl enable-linger` keeps the instance), or use cgroupfs",
            );
        }
        return refuse("systemd does not answer at /run/systemd/private", "see `systemctl status`");
    };
    if found.version < OLDEST {
        let why = format!("needs systemd {OLDEST} or newer, and this is {}", found.version);
        return refuse(&why, "leave --systemd-cgroup out");
    }
    if found.user && layout.mode != CgroupMode::V2 {
        return refuse("an ordinary user's systemd makes no cgroups of version 1", "run as root, or without limits");
    }
    Ok((found, address))
}

/// Plans what comes before the process, and says what comes around it.
pub(super) fn plan(input: Input, layout: &CgroupLayout, cx: &mut Planning) -> Result<Output, PlanError> {
    let (systemd, address) = manager(layout, cx)?;
    let resources = input.resources.unwrap_or_default();
    let limits = limits(&resources, layout)?;
    let devices = device_rules(&resources, layout, cx)?;
    let unit = Unit::of(input.path.as_deref(), &cx.run.id, systemd.user)?;
    let control_group = format!("{}/{}", systemd.control_group, unit.path());
    let annotated = of_annotations(&input.annotations)?;
    let mut properties = basic(&unit, layout, cx);
    properties.extend(of_limits(&limits));
    properties.extend(devices.iter().flat_map(|(version, rules)| of_devices(*version, rules)));
    properties.retain(|property| annotated.iter().all(|other| other.name != property.name));
    properties.extend(annotated);

    let (mut cgroups, own) = hierarchies(layout, &control_group, &limits, cx);
    if let (Some(asked), Some(cpu)) =
        (realtime::asked(&limits), ScopeCgroup::find(&mut cgroups, layout, Version::V1, "cpu"))
    {
        realtime::check(asked, &cpu.at, cx.facts)?;
    }
    let mut unmanaged = Vec::new();
    for limit in limits {
        match ScopeCgroup::find(&mut cgroups, layout, limit.version, &limit.controller) {
            Some(cgroup) => cgroup.take(limit),
            None => unmanaged.push(limit),
        }
    }
    write_limits(unmanaged, &own, cx)?;
    if let Some((version, rules)) = devices {
        match ScopeCgroup::find(&mut cgroups, layout, version, "devices") {
            Some(cgroup) if version == Version::V2 => cgroup.devices = Some(rules),
            Some(cgroup) => rules.lines().for_each(|(file, value)| cgroup.write(file, value)),
            None => return Err(PlanError::new("resources.devices", "no hierarchy of systemd's controls devices")),
        }
    }
    let frozen = own.iter().find(|made| made.has("freezer"));
    let freezer = frozen.map(|made| Freezer { at: made.at.clone(), cgroup: made.cgroup.clone() });
    let mut out = output(&own);
    let mut member = out.join.clone().unwrap_or_default();
    for cgroup in &cgroups {
        match cgroup.version {
            Version::V1 => member.v1.push(cgroup.at.clone()),
            Version::V2 => member.v2 = Some(cgroup.at.clone()),
        }
        out.paths.extend(cgroup.names(layout).into_iter().map(|name| (name, cgroup.at.clone())));
    }
    out.unit = Some(ScopeUnit { name: unit.scope.clone(), manager: address.clone() });
    let slices = Slices { names: unit.slices(), mounts: managed(layout) };
    let scope = ScopeJoin { unit: unit.scope, manager: address, control_group, properties, slices, cgroups, freezer };
    out.join = out.join.map(|join| CgroupJoin { scope: Some(Box::new(scope)), ..join });
    out.member = Some(member);
    Ok(out)
}

/// A scope by name, for those that change or ask about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeUnit {
    /// Such as `libpod-1234.scope`.
    pub name: String,
    /// Where the systemd that has it listens.
    pub manager: Address,
}

/// The properties that every container's scope has.
fn basic(unit: &Unit, layout: &CgroupLayout, cx: &Planning) -> Vec<Property> {
    let io = if layout.mode == CgroupMode::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    let on = |name| Property::new(name, &Value::Bool(true));
    let description = format!("container {} (lifecycle {})", cx.run.id, cx.run.tag());
    vec![
        Property::new("Description", &Value::Str(description)),
        Property::new("Slice", &Value::str(&unit.slice)),
        // What is below the scope is the container's, or ours.
        on("Delegate"),
        on("CPUAccounting"),
        on(io),
        on("MemoryAccounting"),
        on("TasksAccounting"),
        // A container is not to be stopped before the services that it may need: whoever asked for it stops it.
        Property::new("DefaultDependencies", &Value::Bool(false)),
        // One whose process is dead before systemd gets to it has failed, and is forgotten like any other that ends.
        Property::new("CollectMode", &Value::str("inactive-or-failed")),
    ]
}

fn is_managed(controllers: &[String]) -> bool {
    controllers.iter().any(|name| MANAGED.contains(&name.as_str()))
}

/// Where systemd makes cgroups, if only of slices.
fn managed(layout: &CgroupLayout) -> Vec<PathBuf> {
    let v1 = layout.v1.iter().filter(|h| is_managed(&h.controllers)).map(|h| &h.mount);
    v1.chain(layout.v2.as_ref().map(|unified| &unified.mount)).cloned().collect()
}

/// The cgroups that systemd makes, and those that it does not, which are planned here at the same path.
fn hierarchies(
    layout: &CgroupLayout,
    control_group: &str,
    limits: &[Limit],
    cx: &mut Planning,
) -> (Vec<ScopeCgroup>, Vec<Made>) {
    let path = control_group.trim_start_matches('/').to_owned();
    let (managed, mut own): (Vec<_>, Vec<_>) = layout.v1.iter().partition(|h| is_managed(&h.controllers));
    // Undone first: processes in a frozen cgroup do not die.
    own.sort_by_key(|hierarchy| hierarchy.controllers.iter().any(|name| name == "freezer"));
    let mut made = Vec::new();
    for hierarchy in own {
        let (mount, controllers) = (hierarchy.mount.clone(), hierarchy.controllers.clone());
        let make = MakeCgroup { mount, path: path.clone(), version: Version::V1, controllers, realtime: None };
        made.push(Made::plan(make, cx));
    }
    // Beside version 1 systemd has a cgroup here too, which matters only if a limit is in it.
    let unified = layout.mode == CgroupMode::V2 || limits.iter().any(|limit| limit.version == Version::V2);
    let v1 = managed.into_iter().map(|h| (&h.mount, Version::V1));
    let v2 = layout.v2.iter().filter(|_| unified).map(|u| (&u.mount, Version::V2));
    let cgroup = |(mount, version): (&PathBuf, Version)| ScopeCgroup {
        mount: mount.clone(),
        at: mount.join(&path),
        version,
        enable: Vec::new(),
        devices: None,
        writes: Vec::new(),
    };
    (v1.chain(v2).map(cgroup).collect(), made)
}

impl ScopeCgroup {
    /// The controllers of its hierarchy; that of version 2 by an empty name.
    fn names(&self, layout: &CgroupLayout) -> Vec<String> {
        match self.version {
            Version::V2 => vec![String::new()],
            Version::V1 => {
                layout.v1.iter().filter(|h| h.mount == self.mount).flat_map(|h| h.controllers.clone()).collect()
            }
        }
    }

    fn find<'a>(
        all: &'a mut [Self],
        layout: &CgroupLayout,
        version: Version,
        controller: &str,
    ) -> Option<&'a mut Self> {
        let has = |cgroup: &Self| cgroup.names(layout).iter().any(|name| name == controller);
        all.iter_mut().find(|cgroup| cgroup.version == version && (version == Version::V2 || has(cgroup)))
    }

    fn write(&mut self, file: &str, value: String) {
        self.writes.push(ScopeWrite {
            field: String::new(),
            file: file.to_owned(),
            value,
            otherwise: None,
            optional: false,
        });
    }

    fn take(&mut self, limit: Limit) {
        let Limit { field, version, controller, file, value, otherwise, optional } = limit;
        let foreign = version == Version::V2 && controller != "cgroup" && !DELEGATED.contains(&controller.as_str());
        if foreign && !self.enable.contains(&controller) {
            self.enable.push(controller);
        }
        self.writes.push(ScopeWrite { field, file, value, otherwise, optional });
    }
}

/// Plans the scope around a process that is inert until all of it is there.
pub(crate) fn start(scope: ScopeJoin, process: &Handle<Process>, cx: &mut Planning) {
    let ScopeJoin { unit, manager, control_group, properties, slices, cgroups, freezer } = scope;
    cx.effect(StartScope { unit, manager, control_group, process: process.clone(), properties, slices });
    let last = cgroups.len().saturating_sub(1);
    for (n, cgroup) in cgroups.into_iter().enumerate() {
        let ScopeCgroup { mount, at, version, enable, devices, writes } = cgroup;
        // The last one is undone first.
        let freezer = freezer.clone().filter(|_| n == last);
        let made = cx.effect(AdoptCgroup { at: at.clone(), version, process: process.clone(), freezer });
        let handle: Handle<Cgroup> = made.handle("");
        for above in ways_down(&mount, &at).filter(|_| !enable.is_empty()) {
            cx.effect(EnableControllers { at: above, controllers: enable.clone() });
        }
        if let Some(rules) = devices {
            cx.effect(DeviceFilter { at: at.clone(), cgroup: handle.clone(), rules });
        }
        for ScopeWrite { field, file, value, otherwise, optional } in writes {
            cx.effect(WriteLimit { at: at.clone(), cgroup: handle.clone(), field, file, value, otherwise, optional });
        }
    }
}

/// What new limits are as properties of a scope, for one that is there already.
pub(super) fn changed(resources: &Resources, layout: &CgroupLayout) -> Result<Vec<Property>, PlanError> {
    Ok(of_limits(&limits(resources, layout)?))
}

#[cfg(test)]
mod tests;
