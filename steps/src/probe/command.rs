//! `probe.command`.

use std::collections::BTreeMap;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::types::{HostPath, Millis};
use lifecycle_engine::value::{Handle, Text};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Output, interval, within};
use crate::command::directory;
use crate::effects::command::Call;
use crate::effects::probe::{Pace, ProbeCommand};
use crate::outcomes::Process;

/// Waits for a command's success.
pub struct Command;

/// Run a command of the host again and again until it exits with 0. It must change nothing: nothing takes it back.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The program and its arguments; no shell. Without a slash the program is searched for in the caller's PATH.
    pub args: Vec<Text>,
    /// Variables to add to the caller's environment.
    #[serde(default)]
    pub env: BTreeMap<String, Text>,
    /// The working directory; the caller's if not given.
    #[serde(default)]
    pub cwd: Option<HostPath>,
    /// The longest that one try may take.
    #[serde(default = "limit")]
    pub limit: Millis,
    /// The process in whose network to run it, such as `${server.process}`; the host's if not given. All else is the host's.
    #[serde(default)]
    pub netns: Option<Handle<Process>>,
    /// The pause after the first try; doubled after each, up to a second.
    #[serde(default = "interval")]
    pub interval: Millis,
    /// When to give up: no try begins after this time.
    #[serde(default = "within")]
    pub within: Millis,
}

fn limit() -> Millis {
    Millis(10_000)
}

impl Step for Command {
    const KIND: &'static str = "probe.command";
    const CHANGES: &'static str = "Nothing: the command must change nothing.";
    const REVERSED_BY: &'static str = super::REVERSED_BY;
    const NATURE: Nature = Nature::Waits;
    const PROCESS: Option<&str> = Some("netns");
    const EXAMPLES: &'static [Example] =
        &[Example { about: "Wait for a file.", plan: include_str!("examples/command.yaml"), needs: &[] }];
    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        crate::command::check("", &input.args, &input.env)?;
        let call = Call { args: input.args, env: input.env, cwd: directory(input.cwd.as_ref(), cx)? };
        let pace = Pace { interval: input.interval, within: input.within, netns: input.netns };
        cx.effect(ProbeCommand { call, limit: input.limit, pace });
        Ok(Output {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, refused};
    use serde_json::json;

    #[test]
    fn a_probe_says_what_it_waits_for() {
        let planned = plan::<Command>(json!({ "args": ["test", "-f", "a b"] }));
        assert_eq!(planned.effects, ["wait until test -f \"a b\" succeeds, within 1m"]);
        assert_eq!(refused::<Command>(json!({ "args": [] })).field, "args");
    }
}
