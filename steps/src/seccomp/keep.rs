//! `seccomp.keep`: a compiled filter, for the next container with the same profile.

use std::path::PathBuf;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compiled;
use super::load::in_profile;
use crate::effects::filter_cache::KeepFilter;
use crate::spec::Seccomp;

/// Keeps the compiled filter of a profile in the cache, by a hash of all that it depends on, for later runs. Where the cache cannot be written,
/// later runs compile the profile themselves.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The profile, as `linux.seccomp` of config.json. Null: nothing to keep.
    #[serde(default)]
    pub profile: Option<Seccomp>,
}

/// Nothing: `seccomp.load` finds the filter by its profile.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Keep;

impl Step for Keep {
    const KIND: &'static str = "seccomp.keep";
    const CHANGES: &'static str = "A file in /var/cache/lifecycle/seccomp, or $XDG_CACHE_HOME/lifecycle/seccomp.";
    const REVERSED_BY: &'static str = "Nothing: the file is kept on purpose, and is safe to delete.";
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A small profile.",
        plan: "plan: example/filter
steps:
  filter:
    uses: seccomp.keep
    with:
      profile:
        defaultAction: SCMP_ACT_ALLOW
        syscalls: [{ names: [mkdir, mkdirat], action: SCMP_ACT_ERRNO, errnoRet: 30 }]
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let directory: Option<PathBuf> = cx.facts.get("cache");
        if let (Some(profile), Some(directory)) = (input.profile, directory.map(|cache| cache.join("seccomp"))) {
            let filter = compiled(&profile, Some(&directory)).map_err(in_profile)?;
            cx.effect(KeepFilter::of(directory, filter));
        }
        Ok(Output {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan;
    use serde_json::json;

    #[test]
    fn without_a_place_for_it_nothing_is_kept() {
        let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        assert!(plan::<Keep>(json!({ "profile": profile })).effects.is_empty());
        assert!(plan::<Keep>(json!({})).effects.is_empty());
    }
}
