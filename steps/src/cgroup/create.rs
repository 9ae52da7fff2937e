//! `cgroup.create`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::devices::{DeviceRules, Rule, rules};
use super::limits::{Limit, limits, there, warn};
use super::path::Place;
use super::realtime;
use super::rootless::{Rootless, refuse_elsewhere, without};
use super::scope::ScopeUnit;
use crate::effects::cgroup::{Cgroup, DeviceFilter, EnableControllers, MakeCgroup, Version, WriteLimit};
use crate::facts::{CgroupLayout, CgroupMode};
use crate::outcomes::CgroupJoin;
use crate::spec::Resources;

/// Makes the container's cgroup, in every hierarchy that is mounted, and writes its limits.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// Absolute: below the top of each hierarchy; relative: below the caller's own cgroup. Default: `/lifecycle/` and a name that derives
    /// from the run's, for an ordinary user below the part of version 2 that was delegated to him, if any was.
    #[serde(default)]
    pub path: Option<String>,
    /// Limits and device rules, as in a config.json's `linux.resources`.
    #[serde(default)]
    pub resources: Option<Resources>,
    /// systemd makes the cgroup, as a scope; `path` is then `slice:prefix:name`, by default its own slice for containers, `lifecycle` and the
    /// run's id.
    #[serde(default)]
    pub systemd: bool,
    /// A config.json's annotations: those that begin with `org.systemd.property.` set properties of the scope, others are left alone.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Whether it is only worth a warning that the caller may make no cgroup, if there is neither a `path` nor a limit. `auto`: it is, unless the
    /// caller is the machine's own root.
    #[serde(default)]
    pub rootless: Rootless,
    /// The container has a pid namespace of its own. One without can be told from the rest of the machine by its cgroup alone.
    #[serde(default = "yes")]
    pub own_pids: bool,
}

fn yes() -> bool {
    true
}

/// The cgroup.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Output {
    /// What a process needs to be in the cgroup; null where the caller may make none and none was asked for.
    pub join: Option<CgroupJoin>,
    /// What one more process needs to be in the cgroup, once the first one is.
    pub member: Option<CgroupJoin>,
    /// The directory by controller; that of version 2 by an empty name.
    pub paths: BTreeMap<String, PathBuf>,
    /// The scope, if systemd makes it.
    pub unit: Option<ScopeUnit>,
}

/// See [`Input`].
pub struct Create;

impl Step for Create {
    const KIND: &'static str = "cgroup.create";
    const CHANGES: &'static str = "Makes one directory in each cgroup hierarchy, with the parents that are missing, and writes limits and \
        device rules into it. In cgroup v2 it also enables the controllers that the limits need, on the way down.";
    const REVERSED_BY: &'static str = "Kills what is left in the cgroup if the run made it, and removes it. Parents that a run made, slices \
        that systemd started for one, and controllers that a run enabled, go with the last run that uses them.";
    const EXAMPLES: &'static [Example] = &[
        Example {
            about: "A cgroup with the run's own name, for at most 16 processes.",
            plan: "\
plan: example
steps:
  cgroup:
    uses: cgroup.create
    with:
      resources: { pids: { limit: 16 } }
",
            needs: &["root"],
        },
        Example {
            about: "A cgroup at a chosen path, with memory and CPU limits.",
            plan: "\
plan: example
steps:
  cgroup:
    uses: cgroup.create
    with:
      path: /lifecycle-examples/shared/limited
      resources:
        memory: { limit: 67108864, reservation: 33554432 }
        cpu: { shares: 512, quota: 50000, period: 100000 }
",
            needs: &["root"],
        },
    ];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let layout: CgroupLayout = cx.facts.get("cgroup.layout").unwrap_or_default();
        if let Some(resources) = &input.resources {
            warn(resources, &layout, cx);
        }
        if input.systemd {
            return super::scope::plan(input, &layout, cx);
        }
        let resources = input.resources.clone().unwrap_or_default();
        let limits = limits(&resources, &layout)?;
        there(&resources, &limits, cx.facts)?;
        // A user may have a part of version 2 for himself, where he can do as root does at the top.
        let delegated = input.path.is_none() && !layout.writable() && cx.facts.has("cgroup.delegated");
        if layout.mode == CgroupMode::None || (input.path.is_none() && !layout.writable() && !delegated) {
            return without(&input, &layout, &limits, cx);
        }
        let devices = device_rules(&resources, &layout, cx)?;
        let place = if delegated {
            Place::below_own(cx.run, &cx.step, cx.facts)
        } else {
            Place::of(input.path.as_deref(), cx.run, &cx.step, cx.facts)?
        };
        // Beside version 1 it has no controllers that anything needs, and processes are told apart by it all the same.
        let version_2 = layout.v2.as_ref().is_some_and(|unified| unified.writable)
            || layout.mode == CgroupMode::V2
            || limits.iter().any(|limit| limit.version == Version::V2)
            || matches!(devices, Some((Version::V2, _)));
        let mut places = directories(&layout, &place, version_2);
        if let Some(path) = input.path.as_deref().filter(|_| !layout.writable()) {
            refuse_elsewhere(path, &places, cx)?;
        }
        give_realtime(&mut places, &limits, cx)?;
        let hierarchies: Vec<Made> = places.into_iter().map(|make| Made::plan(make, cx)).collect();
        if let Some(hierarchy) = hierarchies.iter().find(|h| h.version == Version::V2) {
            enable_controllers(&hierarchy.mount, &hierarchy.at, &limits, cx);
        }
        if let Some((version, rules)) = devices {
            write_device_rules(version, rules, &hierarchies, cx);
        }
        write_limits(limits, &hierarchies, cx)?;
        Ok(output(&hierarchies))
    }
}

pub(super) fn write_limits(limits: Vec<Limit>, hierarchies: &[Made], cx: &mut Planning) -> Result<(), PlanError> {
    for limit in limits {
        let Some(hierarchy) = Made::find(hierarchies, limit.version, &limit.controller) else {
            return Err(PlanError::new("resources", format!("no hierarchy has `{}`", limit.file)));
        };
        let Limit { field, file, value, otherwise, optional, .. } = limit;
        hierarchy.write(file, value, cx, |effect| WriteLimit { field, otherwise, optional, ..effect });
    }
    Ok(())
}

/// The hierarchy version that enforces device rules, and the rules; `None` where the caller has no say over devices at all: without
/// CAP_SYS_ADMIN on the machine itself, not in a user namespace alone, he can make no device node either.
pub(super) fn device_rules(
    resources: &Resources,
    layout: &CgroupLayout,
    cx: &mut Planning,
) -> Result<Option<(Version, DeviceRules)>, PlanError> {
    let rules: Vec<Rule> = rules(&resources.devices)?;
    let rules = DeviceRules::of(&rules)?;
    let capabilities: Vec<String> = cx.facts.get("caps.effective").unwrap_or_default();
    if !capabilities.iter().any(|name| name == "CAP_SYS_ADMIN") || cx.facts.has("userns.nested") {
        return Ok(None);
    }
    match (layout.v1_of("devices"), &layout.v2) {
        (Some(_), _) => Ok(Some((Version::V1, rules))),
        (None, Some(_)) => Ok(Some((Version::V2, rules))),
        (None, None) => Err(PlanError::new("resources.devices", "no hierarchy controls devices on this host")
            .help("mount the `devices` controller, or cgroup v2")),
    }
}

/// A directory that is in the plan.
pub(super) struct Made {
    pub(super) at: PathBuf,
    mount: PathBuf,
    version: Version,
    controllers: Vec<String>,
    pub(super) cgroup: Handle<Cgroup>,
}

impl Made {
    pub(super) fn plan(effect: MakeCgroup, cx: &mut Planning) -> Self {
        let (at, mount, version) = (effect.at(), effect.mount.clone(), effect.version);
        let controllers = effect.controllers.clone();
        Self { at, mount, version, controllers, cgroup: cx.effect(effect).handle("") }
    }

    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    fn find<'a>(all: &'a [Self], version: Version, controller: &str) -> Option<&'a Self> {
        all.iter().filter(|made| made.version == version).find(|made| version == Version::V2 || made.has(controller))
    }

    fn write(
        &self,
        file: impl Into<String>,
        value: String,
        cx: &mut Planning,
        with: impl FnOnce(WriteLimit) -> WriteLimit,
    ) {
        let (at, cgroup, file) = (self.at.clone(), self.cgroup.clone(), file.into());
        let field = String::new();
        cx.effect(with(WriteLimit { at, cgroup, field, file, value, otherwise: None, optional: false }));
    }
}

/// The container's directories, one in each hierarchy.
fn directories(layout: &CgroupLayout, place: &Place, version_2: bool) -> Vec<MakeCgroup> {
    let mut v1: Vec<_> = layout.v1.iter().collect();
    // Undone first: processes in a frozen cgroup do not die.
    v1.sort_by_key(|hierarchy| hierarchy.controllers.iter().any(|name| name == "freezer"));
    let v1 = v1.into_iter().map(|h| (&h.mount, Version::V1, h.controllers.clone()));
    let v2 = layout.v2.iter().filter(|_| version_2).map(|u| (&u.mount, Version::V2, Vec::new()));
    let make = |(mount, version, controllers): (&PathBuf, Version, Vec<String>)| {
        let path = place.below(mount, version);
        MakeCgroup { mount: mount.clone(), path, version, controllers, realtime: None }
    };
    v2.chain(v1).map(make).collect()
}

/// The parents of version 1's cpu get what the limits ask for, where they are made by runs of ours.
fn give_realtime(places: &mut [MakeCgroup], limits: &[Limit], cx: &mut Planning) -> Result<(), PlanError> {
    let is_cpu = |make: &&mut MakeCgroup| make.version == Version::V1 && make.controllers.iter().any(|n| n == "cpu");
    let (Some(asked), Some(make)) = (realtime::asked(limits), places.iter_mut().find(is_cpu)) else { return Ok(()) };
    realtime::check(asked, &make.at(), cx.facts)?;
    make.realtime = Some(asked);
    Ok(())
}

/// From the top down, each directory above the cgroup gives its children what the limits need.
pub(super) fn enable_controllers(mount: &Path, at: &Path, limits: &[Limit], cx: &mut Planning) {
    let needed = limits.iter().filter(|limit| limit.version == Version::V2 && limit.controller != "cgroup");
    let mut controllers: Vec<String> = needed.map(|limit| limit.controller.clone()).collect();
    controllers.sort_unstable();
    controllers.dedup();
    if controllers.is_empty() {
        return;
    }
    for at in ways_down(mount, at) {
        cx.effect(EnableControllers { at, controllers: controllers.clone() });
    }
}

/// The directories that have to give a cgroup of version 2 its controllers, from the top down.
pub(super) fn ways_down(mount: &Path, at: &Path) -> impl Iterator<Item = PathBuf> {
    let above: Vec<PathBuf> =
        at.ancestors().skip(1).take_while(|above| above.starts_with(mount)).map(Path::to_owned).collect();
    above.into_iter().rev()
}

fn write_device_rules(version: Version, rules: DeviceRules, hierarchies: &[Made], cx: &mut Planning) {
    let Some(hierarchy) = Made::find(hierarchies, version, "devices") else { return };
    if version == Version::V2 {
        let (at, cgroup) = (hierarchy.at.clone(), hierarchy.cgroup.clone());
        cx.effect(DeviceFilter { at, cgroup, rules });
        return;
    }
    rules.lines().for_each(|(file, value)| hierarchy.write(file, value, cx, |effect| effect));
}

pub(super) fn output(hierarchies: &[Made]) -> Output {
    let mut output = Output { join: Some(CgroupJoin::default()), ..Output::default() };
    for made in hierarchies {
        if let Some(join) = &mut output.join {
            match made.version {
                Version::V1 => join.v1.push(made.at.clone()),
                Version::V2 => join.v2 = Some(made.at.clone()),
            }
        }
        let names = made.controllers.iter().map(String::as_str).chain((made.version == Version::V2).then_some(""));
        output.paths.extend(names.map(|name| (name.to_owned(), made.at.clone())));
    }
    output.member.clone_from(&output.join);
    output
}
