//! `cgroup.create`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::devices::{DeviceRules, Rule, rules};
use super::limits::{Limit, limits, there};
use super::path::Place;
use crate::effects::cgroup::{Cgroup, DeviceFilter, EnableControllers, MakeCgroup, Version, WriteLimit};
use crate::facts::{CgroupLayout, CgroupMode};
use crate::outcomes::CgroupJoin;
use crate::spec::Resources;

/// Makes the container's cgroup, in every hierarchy that is mounted, and writes its limits.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// Absolute: below the top of each hierarchy; relative: below the caller's own cgroup. Default: `/lifecycle/` and a name that derives
    /// from the run's.
    #[serde(default)]
    pub path: Option<String>,
    /// Limits and device rules, as in a config.json's `linux.resources`.
    #[serde(default)]
    pub resources: Option<Resources>,
}

/// The cgroup.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Output {
    /// What a process needs to be in the cgroup; null where the caller may make none and none was asked for.
    pub join: Option<CgroupJoin>,
    /// The directory by controller; that of version 2 by an empty name.
    pub paths: BTreeMap<String, PathBuf>,
}

/// See [`Input`].
pub struct Create;

impl Step for Create {
    const KIND: &'static str = "cgroup.create";
    const CHANGES: &'static str = "Makes one directory in each cgroup hierarchy, with the parents that are missing, and writes limits and \
        device rules into it. In cgroup v2 it also enables the controllers that the limits need, on the way down.";
    const REVERSED_BY: &'static str = "Kills what is left in the cgroup if the run made it, and removes it. Parents that a run made, and \
        controllers that a run enabled, go with the last run that uses them.";
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
        let resources = input.resources.unwrap_or_default();
        let limits = limits(&resources, &layout)?;
        there(&resources, &limits, cx.facts)?;
        if layout.mode == CgroupMode::None || (input.path.is_none() && !layout.writable()) {
            return without(&layout, &limits, input.path.is_some());
        }
        let devices = device_rules(&resources, &layout, cx)?;
        let place = Place::of(input.path.as_deref(), cx.run, &cx.step, cx.facts)?;
        let version_2 = layout.mode == CgroupMode::V2
            || limits.iter().any(|limit| limit.version == Version::V2)
            || matches!(devices, Some((Version::V2, _)));
        let hierarchies = make_directories(&layout, &place, version_2, cx);
        if let Some(hierarchy) = hierarchies.iter().find(|h| h.version == Version::V2) {
            enable_controllers(&hierarchy.mount, &hierarchy.at, &limits, cx);
        }
        if let Some((version, rules)) = devices {
            write_device_rules(version, rules, &hierarchies, cx);
        }
        for limit in limits {
            let Some(hierarchy) = Made::find(&hierarchies, limit.version, &limit.controller) else {
                return Err(PlanError::new("resources", format!("no hierarchy has `{}`", limit.file)));
            };
            let Limit { field, file, value, otherwise, optional, .. } = limit;
            hierarchy.write(file, value, cx, |effect| WriteLimit { field, otherwise, optional, ..effect });
        }
        Ok(output(&hierarchies))
    }
}

/// An ordinary user without a delegated cgroup runs containers where he is, as long as nothing is to be limited.
fn without(layout: &CgroupLayout, limits: &[Limit], path: bool) -> Result<Output, PlanError> {
    let why = match layout.mode {
        CgroupMode::None => "no cgroup hierarchy is mounted",
        _ => "the caller may not make cgroups",
    };
    match limits.first() {
        _ if path => Err(PlanError::new("path", format!("asks for a cgroup, and {why}")).help("remove cgroupsPath")),
        Some(limit) => Err(PlanError::new("resources", format!("asks for limits (`{}`), and {why}", limit.file))
            .help("run as root, or remove the limits")),
        None => Ok(Output::default()),
    }
}

/// The hierarchy version that enforces device rules, and the rules; `None` where the caller has no say over devices at all: without
/// CAP_SYS_ADMIN he can make no device node either.
fn device_rules(
    resources: &Resources,
    layout: &CgroupLayout,
    cx: &mut Planning,
) -> Result<Option<(Version, DeviceRules)>, PlanError> {
    let rules: Vec<Rule> = rules(&resources.devices)?;
    let rules = DeviceRules::of(&rules)?;
    let capabilities: Vec<String> = cx.facts.get("caps.effective").unwrap_or_default();
    if !capabilities.iter().any(|name| name == "CAP_SYS_ADMIN") {
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
struct Made {
    at: PathBuf,
    mount: PathBuf,
    version: Version,
    controllers: Vec<String>,
    cgroup: Handle<Cgroup>,
}

impl Made {
    fn find<'a>(all: &'a [Self], version: Version, controller: &str) -> Option<&'a Self> {
        let has = |made: &&Self| made.controllers.iter().any(|name| name == controller);
        all.iter().filter(|made| made.version == version).find(|made| version == Version::V2 || has(made))
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

fn make_directories(layout: &CgroupLayout, place: &Place, version_2: bool, cx: &mut Planning) -> Vec<Made> {
    let mut v1: Vec<_> = layout.v1.iter().collect();
    // Undone first: processes in a frozen cgroup do not die.
    v1.sort_by_key(|hierarchy| hierarchy.controllers.iter().any(|name| name == "freezer"));
    let v1 = v1.into_iter().map(|h| (&h.mount, Version::V1, h.controllers.clone()));
    let v2 = layout.v2.iter().filter(|_| version_2).map(|u| (&u.mount, Version::V2, Vec::new()));
    let mut make = |(mount, version, controllers): (&PathBuf, Version, Vec<String>)| {
        let path = place.below(mount, version);
        let effect = MakeCgroup { mount: mount.clone(), path, version, controllers: controllers.clone() };
        let at = effect.at();
        let cgroup = cx.effect(effect).handle("");
        Made { at, mount: mount.clone(), version, controllers, cgroup }
    };
    v1.chain(v2).map(&mut make).collect()
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
    let below = |at: &&Path| at.starts_with(mount);
    let mut above: Vec<&Path> = at.ancestors().skip(1).take_while(below).collect();
    above.reverse();
    for at in above {
        cx.effect(EnableControllers { at: at.to_owned(), controllers: controllers.clone() });
    }
}

fn write_device_rules(version: Version, rules: DeviceRules, hierarchies: &[Made], cx: &mut Planning) {
    let Some(hierarchy) = Made::find(hierarchies, version, "devices") else { return };
    if version == Version::V2 {
        let (at, cgroup) = (hierarchy.at.clone(), hierarchy.cgroup.clone());
        cx.effect(DeviceFilter { at, cgroup, rules });
        return;
    }
    let (default, other) =
        if rules.allow_all { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
    hierarchy.write(default, "a".to_owned(), cx, |effect| effect);
    for exception in &rules.exceptions {
        hierarchy.write(other, exception.to_string(), cx, |effect| effect);
    }
}

fn output(hierarchies: &[Made]) -> Output {
    let mut output = Output { join: Some(CgroupJoin::default()), paths: BTreeMap::new() };
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
    output
}
