//! `rdt.update`

use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::group::{offered, wanted};
use crate::effects::rdt::WriteSchemata;
use crate::spec::IntelRdt;

/// Changes the shares of a container's class of service.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// The directory of the class: the `group` of a `rdt.group`. Null for a container that has none.
    #[serde(default)]
    pub group: Option<PathBuf>,
    /// The L3 cache's lines, as in config.json's `linux.intelRdt.l3CacheSchema`. Null: they stay.
    #[serde(default)]
    pub l3_cache_schema: Option<String>,
    /// The memory bandwidth's line, as in `linux.intelRdt.memBwSchema`. Null: it stays.
    #[serde(default)]
    pub mem_bw_schema: Option<String>,
}

/// Nothing.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {}

/// See [`Input`].
pub struct Update;

impl Step for Update {
    const KIND: &'static str = "rdt.update";
    const CHANGES: &'static str = "The shares of a class of service in resctrl.";
    const REVERSED_BY: &'static str = "Writes back what was there.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A container gets less of the cache.",
        plan: "\
plan: example
steps:
  init: { uses: process.clone, with: { stdio: log } }
  rdt: { uses: rdt.group, with: { process: \"${init.process}\", rdt: { l3CacheSchema: \"L3:0=f\" } } }
  exec: { uses: process.exec, site: \"${init}\", needs: [rdt], with: { args: [/bin/true] } }
  less: { uses: rdt.update, needs: [rdt], with: { group: \"${rdt.group}\", l3_cache_schema: \"L3:0=3\" } }
  wait: { uses: process.wait, needs: [exec], with: { process: \"${init.process}\" } }
",
        needs: &["root", "resctrl"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let Input { group, l3_cache_schema, mem_bw_schema } = input;
        if l3_cache_schema.is_none() && mem_bw_schema.is_none() {
            return Ok(Output {});
        }
        let Some(group) = group else {
            return Err(PlanError::new(
                "group",
                "the container has no class of service: its config has no linux.intelRdt",
            )
            .help("create it with linux.intelRdt in its config.json; an empty one gives it a class of its own"));
        };
        if mem_bw_schema.as_deref().is_some_and(|line| !line.starts_with("MB:") || line.contains('\n')) {
            return Err(PlanError::new("mem_bw_schema", "must be one line that begins with `MB:`"));
        }
        let rdt = IntelRdt { l3_cache_schema, mem_bw_schema, ..IntelRdt::default() };
        offered(&rdt, cx)?;
        cx.effect(WriteSchemata { at: group.join("schemata"), lines: wanted(&rdt) });
        Ok(Output {})
    }
}
