//! The names of a container, uts_namespaces(7).

use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use rustix::system::{setdomainname, sethostname};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::owns;
use super::prelude::dies_with_init;

/// Sets the host name in a uts namespace that is not the engine's.
#[derive(Debug, Serialize, Deserialize)]
pub struct SetHostname {
    /// The name.
    pub name: String,
}

/// Sets the NIS domain name in a uts namespace that is not the engine's.
#[derive(Debug, Serialize, Deserialize)]
pub struct SetDomainname {
    /// The name.
    pub name: String,
}

impl EffectDef for SetHostname {
    const KIND: &'static str = "hostname";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { name: "box".into() }]
    }

    fn describe(&self) -> String {
        format!("host name {}", self.name)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        owns(cx, "uts", "the host name")?;
        sethostname(self.name.as_bytes()).map_err(|e| EffectError::call(format!("sethostname({:?})", self.name), e))?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

impl EffectDef for SetDomainname {
    const KIND: &'static str = "domainname";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { name: "example.org".into() }]
    }

    fn describe(&self) -> String {
        format!("domain name {}", self.name)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        owns(cx, "uts", "the domain name")?;
        setdomainname(self.name.as_bytes())
            .map_err(|e| EffectError::call(format!("setdomainname({:?})", self.name), e))?;
        Ok(Applied::done())
    }

    dies_with_init!();
}
