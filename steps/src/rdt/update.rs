//! `rdt.update`

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::group::{offered, wanted};
use crate::effects::rdt::WriteSchemata;
use crate::outcomes::RdtGroups;
use crate::spec::IntelRdt;

/// Changes a container's shares of cache and memory bandwidth.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// The container's groups: the output of its `rdt.group`. Null: it has none.
    #[serde(default)]
    pub rdt: Option<RdtGroups>,
    /// New lines for the cache, such as `L3:0=f;1=f0`. Absent: they stay.
    #[serde(default)]
    pub l3_cache_schema: Option<String>,
    /// A new line for the memory bandwidth, such as `MB:0=20`. Absent: it stays.
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
    const CHANGES: &'static str = "Writes the new shares into the schemata of the container's class of service.";
    const REVERSED_BY: &'static str = "Writes back what was there.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A container gets more of the cache.",
        plan: "\
plan: example
steps:
  init: { uses: process.clone, with: { stdio: log } }
  rdt: { uses: rdt.group, with: { process: \"${init.process}\", rdt: { l3CacheSchema: \"L3:0=3\" } } }
  more: { uses: rdt.update, with: { rdt: \"${rdt}\", l3_cache_schema: \"L3:0=f\" } }
",
        needs: &["root", "resctrl"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let Input { rdt, l3_cache_schema, mem_bw_schema } = input;
        let asked = IntelRdt { l3_cache_schema, mem_bw_schema, ..IntelRdt::default() };
        let lines = wanted(&asked);
        if lines.is_empty() {
            return Ok(Output {});
        }
        if asked.mem_bw_schema.as_deref().is_some_and(|line| !line.starts_with("MB:") || line.contains('\n')) {
            return Err(PlanError::new("mem_bw_schema", "must be one line that begins with `MB:`"));
        }
        offered(&asked, cx)?;
        let Some(group) = rdt.and_then(|rdt| rdt.group) else {
            let message = "the container has no class of service of resctrl (linux.intelRdt) to change the shares of";
            return Err(PlanError::new("rdt", message).help("create it with linux.intelRdt"));
        };
        cx.effect(WriteSchemata { at: group.join("schemata"), lines });
        Ok(Output {})
    }
}
