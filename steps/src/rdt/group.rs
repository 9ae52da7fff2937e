//! `rdt.group`

use std::path::Path;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::FileKind;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::value::Later;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::effects::rdt::{JoinGroup, MakeGroup, WriteSchemata};
use crate::facts::Resctrl;
use crate::outcomes::{Process, RdtGroups};
use crate::spec::IntelRdt;

/// Puts a container into a class of service of resctrl, and into a monitoring group of its own (config-linux.md, "IntelRdt"; the kernel's
/// Documentation/filesystems/resctrl.rst).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// As in a config.json's `linux.intelRdt`. Null: nothing is done.
    #[serde(default)]
    pub rdt: Option<IntelRdt>,
    /// The container's first process.
    pub process: Later<Process>,
}

/// See [`Input`].
pub struct Group;

impl Step for Group {
    const KIND: &'static str = "rdt.group";
    const CHANGES: &'static str = "Makes a class of service in resctrl with the container's id or finds the one that the config names, writes its \
        shares, makes a monitoring group, and puts the process into them.";
    const REVERSED_BY: &'static str =
        "Removes the directories that the run made. A class that was there before gets its shares back.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A container with four ways of the cache for itself, watched.",
        plan: "\
plan: example
steps:
  init: { uses: process.clone, with: { stdio: log } }
  rdt:
    uses: rdt.group
    with:
      process: \"${init.process}\"
      rdt: { l3CacheSchema: \"L3:0=f\", enableMonitoring: true }
  exec: { uses: process.exec, site: \"${init}\", needs: [rdt], with: { args: [/bin/true] } }
  wait: { uses: process.wait, needs: [exec], with: { process: \"${init.process}\" } }
",
        needs: &["root", "resctrl"],
    }];

    type Input = Input;
    type Output = RdtGroups;

    fn plan(input: Input, cx: &mut Planning) -> Result<RdtGroups, PlanError> {
        let Some(rdt) = input.rdt else { return Ok(RdtGroups::default()) };
        let resctrl = offered(&rdt, cx)?;
        let (group, shared) = match rdt.clos_id.as_deref() {
            // The class that every process is in at first.
            Some("/") => (resctrl.mount.clone(), true),
            Some(name) => (resctrl.mount.join(name), true),
            None => (resctrl.mount.join(&cx.run.id), false),
        };
        let there = is_there(&group, cx)?;
        let wanted = wanted(&rdt);
        check_shared(&rdt, &group, &wanted, shared.then_some(there), cx)?;
        if group != resctrl.mount {
            cx.effect(MakeGroup { at: group.clone(), keep: shared });
        }
        let lines = if shared && there { rdt.schemata.clone() } else { wanted };
        if !lines.is_empty() {
            cx.effect(WriteSchemata { at: group.join("schemata"), lines });
        }
        // Of the class first: a process can only be watched by a group of its own class.
        cx.effect(JoinGroup { at: group.clone(), process: input.process.clone() });
        let monitor = monitored(&rdt).then(|| group.join("mon_groups").join(&cx.run.id));
        if let Some(at) = &monitor {
            cx.effect(MakeGroup { at: at.clone(), keep: false });
            cx.effect(JoinGroup { at: at.clone(), process: input.process });
        }
        Ok(RdtGroups { group: Some(group), monitor })
    }
}

fn monitored(rdt: &IntelRdt) -> bool {
    rdt.enable_monitoring || rdt.enable_cmt || rdt.enable_mbm
}

/// The lines for a new class's `schemata`. A line of bandwidth among the cache's gives way to `memBwSchema`; `schemata` comes last and so wins.
pub(super) fn wanted(rdt: &IntelRdt) -> Vec<String> {
    let cache =
        rdt.l3_cache_schema.as_deref().unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty());
    let cache = cache.filter(|line| rdt.mem_bw_schema.is_none() || !line.starts_with("MB:"));
    let lines = cache.map(str::to_owned).chain(rdt.mem_bw_schema.clone());
    lines.chain(rdt.schemata.iter().cloned()).collect()
}

/// What the host has of what the config asks for.
pub(super) fn offered(rdt: &IntelRdt, cx: &mut Planning) -> Result<Resctrl, PlanError> {
    let Some(resctrl) = cx.facts.get::<Resctrl>("resctrl") else {
        let flags: Vec<String> = cx.facts.get("cpu.rdt").unwrap_or_default();
        let (why, help) = if flags.is_empty() {
            (
                "and this processor has none of it (no `rdt_a`, `cat_l3`, `mba` or `cqm` in /proc/cpuinfo)",
                "remove it, or use a processor with RDT",
            )
        } else {
            ("although this processor has it", "mount it: mount -t resctrl resctrl /sys/fs/resctrl")
        };
        return Err(
            PlanError::new("rdt", format!("linux.intelRdt needs a mounted resctrl file system, {why}")).help(help)
        );
    };
    let has = |names: &[&str]| resctrl.resources.iter().any(|there| names.contains(&there.as_str()));
    let watches = |event: &str| resctrl.monitors.iter().any(|there| there.starts_with(event));
    let asked: [(&str, bool, bool); 5] = [
        ("l3CacheSchema", rdt.l3_cache_schema.is_some(), has(&["L3", "L3CODE", "L3DATA"])),
        ("memBwSchema", rdt.mem_bw_schema.is_some(), has(&["MB"])),
        ("enableMonitoring", rdt.enable_monitoring, !resctrl.monitors.is_empty()),
        ("enableCMT", rdt.enable_cmt, watches("llc_occupancy")),
        ("enableMBM", rdt.enable_mbm, watches("mbm_")),
    ];
    match asked.iter().find(|(_, asked, there)| *asked && !there) {
        None => Ok(resctrl),
        Some((field, ..)) => {
            let message = format!("linux.intelRdt.{field} asks for what this processor or kernel does not offer");
            let info = resctrl.mount.join("info");
            Err(PlanError::new(format!("rdt.{field}"), message).help(format!("{} lists what it does", info.display())))
        }
    }
}

pub(super) fn is_there(group: &Path, cx: &mut Planning) -> Result<bool, PlanError> {
    match cx.facts.kind(group) {
        Ok(FileKind::Directory) => Ok(true),
        Ok(_) => Err(PlanError::new("rdt.closID", format!("{} is no class of service", group.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(PlanError::new("rdt.closID", format!("cannot look at {}: {e}", group.display()))),
    }
}

/// The spec's "MUST generate an error" for a class that the config names; `there` is null for one of the container's own.
fn check_shared(
    rdt: &IntelRdt,
    group: &Path,
    wanted: &[String],
    there: Option<bool>,
    cx: &mut Planning,
) -> Result<(), PlanError> {
    match there {
        Some(false) if wanted.is_empty() => {
            let message =
                format!("there is no class of service {}, and the config has no shares to make one", group.display());
            Err(PlanError::new("rdt.closID", message)
                .help("make it beforehand, or give l3CacheSchema, memBwSchema or schemata"))
        }
        Some(true) if rdt.l3_cache_schema.is_some() || rdt.mem_bw_schema.is_some() => {
            let file = group.join("schemata");
            let text = cx
                .facts
                .file(&file)
                .map_err(|e| PlanError::new("rdt.closID", format!("cannot read {}: {e}", file.display())))?;
            let has: Vec<String> = text.lines().map(plain).collect();
            let differs =
                wanted.iter().take(wanted.len() - rdt.schemata.len()).find(|line| !has.contains(&plain(line)));
            let Some(line) = differs else { return Ok(()) };
            let message =
                format!("{} does not say `{line}`: another container may rely on what it says", file.display());
            Err(PlanError::new("rdt.closID", message).help("name another class, or take the class's own shares"))
        }
        _ => Ok(()),
    }
}

/// A line as it can be compared: the kernel pads names with blanks and masks with zeros.
fn plain(line: &str) -> String {
    let Some((name, shares)) = line.trim().split_once(':') else { return line.trim().to_owned() };
    let share = |share: &str| {
        let Some((domain, value)) = share.split_once('=') else { return share.trim().to_owned() };
        let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
        format!("{}={value}", domain.trim())
    };
    format!("{}:{}", name.trim(), shares.split(';').map(share).collect::<Vec<_>>().join(";"))
}
