//! Has systemd make a scope around a process.

use std::path::Path;
use std::time::Instant;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dbus::{Address, Value as Wire, print};
use crate::effects::example_process;
use crate::facts::boot_id;
use crate::outcomes::Process;
use crate::systemd::{Job, Manager, Property, Unit};

/// Makes a transient scope, into which systemd moves the process.
///
/// The slices that systemd makes for it are systemd's own, and stay: only systemd could tell whether somebody else is about to use one, and it
/// offers no way to ask for just that (`StopWhenUnneeded` needs a unit file, and a slice whose transient file is gone cannot be started again
/// after a reload: seen with systemd 252).
///
/// The process is inert and ends with its engine, and a scope ends with its last process: one whose making was cut short goes by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartScope {
    /// The scope's name.
    pub unit: String,
    /// Where systemd listens.
    pub manager: Address,
    /// Where its cgroup will be, below the top of each hierarchy.
    pub control_group: String,
    /// The process.
    pub process: Handle<Process>,
    /// What it is to be like.
    pub properties: Vec<Property>,
}

/// Journaled before: there was no such unit, in this boot.
#[derive(Serialize, Deserialize)]
struct Absent {
    boot: String,
}

/// The scope as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Scope {
    /// `InvocationID`: unique for each time that a unit is started.
    invocation: String,
}

impl StartScope {
    /// Whether the unit that has this name now is the one that we had made: by its invocation, or, if that was not learnt, by the description
    /// that names our run. An annotation may have set another description, which proves nothing; such a unit goes by itself.
    fn is_ours(&self, unit: &Unit, record: &Record, cx: &Cx) -> bool {
        if let Some(scope) = record.outcome::<Scope>() {
            return scope.invocation == unit.invocation;
        }
        let description = print(&Wire::str(&unit.description));
        let own = self.properties.iter().any(|p| p.name == "Description" && p.value == description);
        own && unit.description.contains(&cx.run.tag())
    }
}

impl EffectDef for StartScope {
    const KIND: &'static str = "systemd.scope";

    fn examples(scratch: &Path) -> Vec<Self> {
        let unique = scratch.file_name().map_or_else(|| "example".into(), |name| name.to_string_lossy());
        let unit = format!("lifecycle-{unique}.scope");
        let property = |name: &str, value: &Wire| Property::new(name, value);
        vec![Self {
            control_group: format!("/system.slice/{unit}"),
            unit,
            manager: Address { socket: "/run/systemd/private".into(), bus: false },
            process: example_process(),
            properties: vec![
                property("Slice", &Wire::str("system.slice")),
                property("Delegate", &Wire::Bool(true)),
                property("TasksMax", &Wire::U64(16)),
            ],
        }]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let properties: Vec<String> = self.properties.iter().map(Property::to_string).collect();
        format!("have systemd make the scope {} around {}: {}", self.unit, self.process, properties.join(" "))
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        match Manager::open(&self.manager)?.unit(&self.unit)? {
            None => Ok(json!(Absent { boot: boot_id().to_owned() })),
            Some(unit) => {
                let what =
                    format!("systemd has a unit {} already, which is {}: {}", self.unit, unit.active, unit.description);
                let help = match unit.active.as_str() {
                    "failed" => format!("`systemctl reset-failed {}` makes systemd forget it", self.unit),
                    _ => "another container may use it; give each container a cgroupsPath of its own".to_owned(),
                };
                Err(EffectError::new(what).help(help))
            }
        }
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let pid = cx.resolve(&self.process)?.pid as u32;
        let job = Manager::for_jobs(&self.manager)?.start_scope(&self.unit, &self.properties, pid)?;
        Ok(Applied::Pending(Box::new(Working { scope: self.clone(), job, stops: false })))
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        // What was there before is recorded before anything is made: without it nothing was. Units do not outlive a boot.
        let Ok(absent) = Absent::deserialize(&record.before) else { return Ok(Undone::Done) };
        if absent.boot != boot_id() {
            return Ok(Undone::Done);
        }
        let mut manager = Manager::for_jobs(&self.manager)?;
        match manager.unit(&self.unit)? {
            Some(unit) if self.is_ours(&unit, record, cx) => {}
            _ => return Ok(Undone::Done),
        }
        let job = manager.stop(&self.unit)?;
        Ok(Undone::Pending(Box::new(Working { scope: self.clone(), job, stops: true })))
    }
}

/// systemd is at work on the scope.
struct Working {
    scope: StartScope,
    job: Job,
    /// To stop it, or to make it.
    stops: bool,
}

impl Working {
    fn made(&mut self) -> Result<Value, EffectError> {
        let (name, planned) = (&self.scope.unit, &self.scope.control_group);
        match self.job.manager.unit(name)? {
            Some(unit) if unit.control_group == *planned => Ok(json!(Scope { invocation: unit.invocation })),
            Some(unit) => Err(EffectError::new(format!(
                "systemd made the scope {name} at {} instead of {planned}",
                unit.control_group
            ))
            .help("choose another name: it escapes those that begin as a cgroup's own files do")),
            None => Err(EffectError::new(format!("the scope {name} ended as soon as it was made"))
                .help("the container's first process may have been killed meanwhile")),
        }
    }
}

impl Pending for Working {
    fn interest(&self, wants: &mut Vec<Interest>) {
        wants.push(Interest::read(self.job.fd()));
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.job.until)
    }

    fn advance(&mut self, _cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        if self.job.advance()?.is_none() {
            return Ok(None);
        }
        if self.stops {
            self.job.manager.reset_failed(&self.scope.unit)?;
            return Ok(Some(Value::Null));
        }
        self.made().map(Some)
    }

    fn cancel(&mut self, _cx: &mut Cx) {}
}
