//! How mount events travel between the host and the container.

use crate::effects::owns;
use crate::mounts::Propagation;
use crate::mounts::api::classic_propagation;
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Sets the propagation of `/`, in the container's mount namespace.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootPropagation {
    /// The kind.
    pub propagation: Propagation,
    /// For all mounts below too.
    pub recursive: bool,
}

impl EffectDef for RootPropagation {
    const KIND: &'static str = "root.propagation";

    fn examples(_scratch: &Path) -> Vec<Self> {
        vec![Self { propagation: Propagation::Slave, recursive: true }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        let all = if self.recursive { " and every mount below" } else { "" };
        format!("make /{all} {}", self.propagation)
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        owns(cx, "mnt", "mount propagation")?;
        // mount_setattr would do the same in one call as well; this one every kernel has.
        classic_propagation(Path::new("/"), self.propagation, self.recursive)?;
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}
