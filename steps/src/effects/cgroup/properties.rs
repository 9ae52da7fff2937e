//! Changes properties of a scope that is there.

use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dbus::{Address, Value as Wire};
use crate::facts::boot_id;
use crate::systemd::{Manager, Property};

/// Sets properties of a scope, until it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetProperties {
    /// The scope.
    pub unit: String,
    /// Where systemd listens.
    pub manager: Address,
    /// The new values.
    pub properties: Vec<Property>,
}

/// The scope as it was.
#[derive(Serialize, Deserialize)]
struct Before {
    boot: String,
    invocation: String,
    properties: Vec<Property>,
}

impl EffectDef for SetProperties {
    const KIND: &'static str = "systemd.properties";

    fn examples(scratch: &Path) -> Vec<Self> {
        let unique = scratch.file_name().map_or_else(|| "example".into(), |name| name.to_string_lossy());
        vec![Self {
            unit: format!("lifecycle-{unique}.scope"),
            manager: Address { socket: "/run/systemd/private".into(), bus: false },
            properties: vec![Property::new("TasksMax", &Wire::U64(32))],
        }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let properties: Vec<String> = self.properties.iter().map(Property::to_string).collect();
        format!("have systemd set {} of {}", properties.join(" "), self.unit)
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        let mut manager = Manager::open(&self.manager)?;
        let unit = manager.unit(&self.unit)?.ok_or_else(|| {
            EffectError::new(format!("systemd has no unit {}", self.unit))
                .help("the container has ended, and its scope with it")
        })?;
        let names: Vec<&str> = self.properties.iter().map(|property| property.name.as_str()).collect();
        let properties = manager.scope_properties(&self.unit, &names)?;
        Ok(json!(Before { boot: boot_id().to_owned(), invocation: unit.invocation, properties }))
    }

    fn apply(&self, _before: &Value, _cx: &mut Cx) -> Result<Applied, EffectError> {
        Manager::open(&self.manager)?.set_properties(&self.unit, &self.properties)?;
        Ok(Applied::done())
    }

    fn undo(&self, record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        let Ok(before) = Before::deserialize(&record.before) else { return Ok(Undone::Done) };
        if before.boot != boot_id() {
            return Ok(Undone::Done);
        }
        let mut manager = Manager::open(&self.manager)?;
        if !self.is_there(&mut manager, &before)? {
            return Ok(Undone::Done);
        }
        match manager.set_properties(&self.unit, &before.properties) {
            // Its last process may end at any moment, and the scope with it.
            Err(_) if !self.is_there(&mut manager, &before)? => Ok(Undone::Done),
            set => set.map(|()| Undone::Done),
        }
    }
}

impl SetProperties {
    /// Whether the unit is still the one that was changed.
    fn is_there(&self, manager: &mut Manager, before: &Before) -> Result<bool, EffectError> {
        Ok(manager.unit(&self.unit)?.is_some_and(|unit| unit.invocation == before.invocation))
    }
}
