//! Probes: wait until something is ready.

mod command;
mod http;
mod tcp;

pub use command::Command;
pub use http::Http;
pub use tcp::Tcp;

use lifecycle_engine::types::Millis;
use schemars::JsonSchema;
use serde::Serialize;

/// Nothing: that it is ready is all there is to know.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The pause after the first try.
fn interval() -> Millis {
    Millis(50)
}

/// When a probe gives up.
fn within() -> Millis {
    Millis(60_000)
}

/// What reverses a probe.
const REVERSED_BY: &str = "Nothing has to be: it changes nothing. A try that is still going on is ended.";
