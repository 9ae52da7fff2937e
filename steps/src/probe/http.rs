//! `probe.http`.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use lifecycle_engine::types::Millis;
use lifecycle_engine::value::{Handle, Text};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Output, interval, within};
use crate::effects::probe::{Pace, ProbeHttp, Url};
use crate::outcomes::Process;

/// Waits for a web server.
pub struct Http;

/// Wait until a web server answers a GET with the right status.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// `http://ADDRESS[:PORT][/PATH]`, the address an IP address; names are not resolved.
    pub url: Text,
    /// The status to wait for; any from 200 to 399 if not given.
    #[serde(default)]
    pub status: Option<u16>,
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

impl Step for Http {
    const KIND: &'static str = "probe.http";
    const CHANGES: &'static str = "Nothing.";
    const REVERSED_BY: &'static str = super::REVERSED_BY;
    const NATURE: Nature = Nature::Waits;
    const PROCESS: Option<&str> = Some("netns");
    const EXAMPLES: &'static [Example] = &[Example {
        about: "Wait for a web server that was just started.",
        plan: include_str!("examples/http.yaml"),
        needs: &[],
    }];
    type Input = Input;
    type Output = Output;

    fn check(field: &str, value: &Value) -> Result<(), PlanError> {
        match (field, value) {
            ("url", Value::String(text)) => {
                Url::parse(text).map(drop).map_err(|e| PlanError { help: e.help, ..PlanError::new("url", e.what) })
            }
            ("status", Value::Number(status)) if !status.as_u64().is_some_and(|s| (100..600).contains(&s)) => {
                Err(PlanError::new("status", format!("{status} is no HTTP status")))
            }
            _ => Ok(()),
        }
    }

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        if let Some(text) = input.url.known() {
            Self::check("url", &Value::from(text.as_str()))?;
        }
        if let Some(status) = input.status {
            Self::check("status", &status.into())?;
        }
        let pace = Pace { interval: input.interval, within: input.within, netns: input.netns };
        cx.effect(ProbeHttp { url: input.url, status: input.status, pace });
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
        let planned = plan::<Http>(json!({ "url": "http://10.0.0.2/healthz" }));
        assert_eq!(planned.effects, ["wait until http://10.0.0.2/healthz answers 2xx or 3xx, within 1m"]);
    }

    #[test]
    fn a_bad_url_or_status_is_refused() {
        assert_eq!(refused::<Http>(json!({ "url": "https://10.0.0.2/" })).field, "url");
        assert_eq!(refused::<Http>(json!({ "url": "http://10.0.0.2/", "status": 20 })).field, "status");
    }
}
