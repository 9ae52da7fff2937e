//! `fifo.create`: the FIFO at which a created container waits.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Planning, Step};
use lifecycle_engine::types::Mode;
use lifecycle_engine::value::Handle;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EXAMPLE, NAME};
use crate::effects::fifo::MakeFifo;
use crate::outcomes::Fifo;
use crate::spec::IdMapping;

/// Makes `exec.fifo` in the run's directory.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The user ids of the container, if it has a user namespace: its root owns the FIFO.
    #[serde(default)]
    pub uid_mappings: Vec<IdMapping>,
    /// The group ids of the container.
    #[serde(default)]
    pub gid_mappings: Vec<IdMapping>,
}

/// What `process.clone` takes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// The FIFO.
    pub fifo: Handle<Fifo>,
}

/// The step.
pub struct Create;

impl Step for Create {
    const KIND: &'static str = "fifo.create";
    const CHANGES: &'static str = "Makes exec.fifo in the run's directory, mode 0622, owned by the container's root.";
    const REVERSED_BY: &'static str = "Removes it.";
    const EXAMPLES: &'static [Example] = &[EXAMPLE];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let (own_uid, own_gid) = (cx.facts.get("euid").unwrap_or_default(), cx.facts.get("gid").unwrap_or_default());
        // An ordinary user can give nothing away; the container's root is itself, or one of its subordinate ids that mode 0622 lets in.
        let root = |map: &[IdMapping], own: u32| match map.iter().find(|m| m.container_id == 0) {
            Some(m) if own_uid == 0u32 => m.host_id,
            _ => own,
        };
        let made = cx.effect(MakeFifo {
            path: cx.run.dir().join(NAME),
            mode: Mode(0o622),
            uid: root(&input.uid_mappings, own_uid),
            gid: root(&input.gid_mappings, own_gid),
        });
        Ok(Output { fifo: made.handle("") })
    }
}
