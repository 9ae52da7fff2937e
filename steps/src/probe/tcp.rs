//! `probe.tcp`.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::types::Millis;
use lifecycle_engine::value::{Handle, Text};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Output, interval, within};
use crate::effects::probe::{Pace, ProbeTcp, address};
use crate::outcomes::Process;

/// Waits for a TCP port.
pub struct Tcp;

/// Wait until a TCP port accepts connections.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// An IP address; names are not resolved.
    pub address: Text,
    /// The port.
    pub port: u16,
    /// The process from whose network to try, such as `${server.process}`; the host's if not given.
    #[serde(default)]
    pub netns: Option<Handle<Process>>,
    /// The pause after the first try; doubled after each, up to a second.
    #[serde(default = "interval")]
    pub interval: Millis,
    /// When to give up: no try begins after this time.
    #[serde(default = "within")]
    pub within: Millis,
}

impl Step for Tcp {
    const KIND: &'static str = "probe.tcp";
    const CHANGES: &'static str = "Nothing.";
    const REVERSED_BY: &'static str = super::REVERSED_BY;
    const NATURE: Nature = Nature::Waits;
    const PROCESS: Option<&str> = Some("netns");
    const EXAMPLES: &'static [Example] = &[Example {
        about: "Wait for a server that was just started.",
        plan: include_str!("examples/tcp.yaml"),
        needs: &[],
    }];
    type Input = Input;
    type Output = Output;

    fn check(field: &str, value: &Value) -> Result<(), PlanError> {
        match (field, value) {
            ("address", Value::String(text)) => {
                address(text).map(drop).map_err(|e| PlanError { help: e.help, ..PlanError::new("address", e.what) })
            }
            ("port", Value::Number(port)) if port.as_u64() == Some(0) => {
                Err(PlanError::new("port", "0 is no port to connect to"))
            }
            _ => Ok(()),
        }
    }

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        if let Some(text) = input.address.known() {
            Self::check("address", &Value::from(text.as_str()))?;
        }
        Self::check("port", &input.port.into())?;
        let pace = Pace { interval: input.interval, within: input.within, netns: input.netns };
        cx.effect(ProbeTcp { address: input.address, port: input.port, pace });
        Ok(Output {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan, process, refused};
    use serde_json::json;

    #[test]
    fn a_probe_says_what_it_waits_for_and_from_where() {
        let planned = plan::<Tcp>(json!({ "address": "10.0.0.2", "port": 80, "netns": process(), "within": "5s" }));
        assert_eq!(
            planned.effects,
            ["wait until 10.0.0.2:80 accepts a connection from the network of ‹init›, within 5s"]
        );
        assert_eq!(
            plan::<Tcp>(json!({ "address": "::1", "port": 80 })).data[0]["pace"],
            json!({ "interval": 50, "within": 60_000 })
        );
    }

    #[test]
    fn a_name_and_port_zero_are_refused() {
        assert_eq!(refused::<Tcp>(json!({ "address": "server", "port": 80 })).field, "address");
        assert_eq!(refused::<Tcp>(json!({ "address": "::1", "port": 0 })).field, "port");
    }
}
