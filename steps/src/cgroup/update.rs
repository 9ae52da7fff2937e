//! `cgroup.update`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::create::enable_controllers;
use super::limits::{Limit, limits, there, warn};
use super::realtime;
use crate::effects::cgroup::{GiveRealtime, UpdateCgroup, Version, WriteFile};
use crate::facts::CgroupLayout;
use crate::spec::{Resources, validate_resources};

/// Changes the limits of a container that is there. Device rules are left as they are, as by every runtime: what a container may open is settled
/// when it is created.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// The cgroup's directories by controller (`cgroup.create`'s `paths`).
    pub cgroups: BTreeMap<String, PathBuf>,
    /// The new limits. What is absent stays as it is.
    pub resources: Resources,
    /// Whether a limit on memory below what is in use is refused, where `resources` does not say so: what the container's own
    /// `memory.checkBeforeUpdate` says (config-linux.md, "Memory").
    #[serde(default)]
    pub check_memory: Option<bool>,
}

/// Nothing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {}

/// See [`Input`].
pub struct Update;

impl Step for Update {
    const KIND: &'static str = "cgroup.update";
    const CHANGES: &'static str = "Writes new limits into the files of a cgroup, all or none.";
    const REVERSED_BY: &'static str = "Writes back what was there.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A cgroup gets more memory, and more processes.",
        plan: "\
plan: example
steps:
  cgroup:
    uses: cgroup.create
    with:
      resources: { pids: { limit: 16 }, memory: { limit: 33554432 } }
  more:
    uses: cgroup.update
    with:
      cgroups: \"${cgroup.paths}\"
      resources: { pids: { limit: 32 }, memory: { limit: 67108864 } }
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let Input { cgroups, resources, check_memory } = input;
        let wrong: Vec<String> = validate_resources(&resources).iter().map(ToString::to_string).collect();
        if !wrong.is_empty() {
            return Err(PlanError::new("resources", wrong.join("; ")));
        }
        let layout: CgroupLayout = cx.facts.get("cgroup.layout").unwrap_or_default();
        warn(&resources, &layout, cx);
        let mut limits = limits(&resources, &layout)?;
        there(&resources, &limits, cx.facts)?;
        keep_quota(&resources, &mut limits, &cgroups, cx)?;
        let give = give_realtime(&limits, &cgroups, &layout, cx)?;
        if let Some(give) = &give {
            cx.effect(give.clone());
        }
        if let (Some(unified), Some(at)) = (&layout.v2, cgroups.get("")) {
            enable_controllers(&unified.mount, at, &limits, cx);
        }
        let used_below = used_below(&resources, check_memory == Some(true));
        let mut updates: Vec<UpdateCgroup> = Vec::new();
        for limit in limits {
            let at = directory(&cgroups, &limit)?;
            let used_below = used_below.filter(|_| limit.controller == "memory");
            let Limit { field, file, value, otherwise, optional, .. } = limit;
            let write = WriteFile { field, file, value, otherwise, optional };
            match updates.iter_mut().find(|update| update.at == at) {
                Some(update) => {
                    update.files.push(write);
                    update.used_below = update.used_below.or(used_below);
                }
                None => updates.push(UpdateCgroup { at: at.to_owned(), files: vec![write], used_below }),
            }
        }
        for update in updates {
            cx.effect(update);
        }
        if let Some(give) = give {
            cx.effect(GiveRealtime { exactly: true, ..give });
        }
        Ok(Output {})
    }
}

/// What version 1's parents that are ours have to hold for it.
fn give_realtime(
    limits: &[Limit],
    cgroups: &BTreeMap<String, PathBuf>,
    layout: &CgroupLayout,
    cx: &mut Planning,
) -> Result<Option<GiveRealtime>, PlanError> {
    let (Some(at), Some(cpu)) = (cgroups.get("cpu"), layout.v1_of("cpu")) else { return Ok(None) };
    let Some(realtime) = realtime::asked_of(limits, at, cx.facts) else { return Ok(None) };
    realtime::check(realtime, at, cx.facts)?;
    Ok(Some(GiveRealtime { mount: cpu.mount.clone(), at: at.clone(), realtime, exactly: false }))
}

fn directory<'a>(cgroups: &'a BTreeMap<String, PathBuf>, limit: &Limit) -> Result<&'a Path, PlanError> {
    let name = match limit.version {
        Version::V1 => limit.controller.as_str(),
        Version::V2 => "",
    };
    cgroups.get(name).map(PathBuf::as_path).ok_or_else(|| {
        PlanError::new("resources", format!("asks for `{}`, and the container has no cgroup that has it", limit.file))
            .help("create the container with a cgroup of its own, and a limit of this kind")
    })
}

fn used_below(resources: &Resources, unless_said: bool) -> Option<u64> {
    let memory = resources.memory.as_ref().filter(|memory| memory.check_before_update.unwrap_or(unless_said))?;
    memory.limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0)
}

/// Version 2 has quota and period in one file, quota first: a new period alone needs the quota that is there.
fn keep_quota(
    resources: &Resources,
    limits: &mut [Limit],
    cgroups: &BTreeMap<String, PathBuf>,
    cx: &mut Planning,
) -> Result<(), PlanError> {
    let no_quota = resources.cpu.as_ref().is_some_and(|cpu| cpu.quota.is_none_or(|quota| quota == 0));
    let Some(limit) = limits.iter_mut().find(|limit| no_quota && limit.file == "cpu.max") else { return Ok(()) };
    let file = directory(cgroups, limit)?.join("cpu.max");
    let text = match cx.facts.file(&file) {
        Ok(text) => text,
        // The controller is to be enabled by this very step: there is no quota yet.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(PlanError::new("resources.cpu.period", format!("cannot read {}: {e}", file.display()))),
    };
    if let (Some(quota), Some(period)) = (text.split_whitespace().next(), limit.value.strip_prefix("max ")) {
        limit.value = format!("{quota} {period}");
    }
    Ok(())
}
