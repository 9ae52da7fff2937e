//! Has systemd make a scope around a process.

use std::path::{Path, PathBuf};
use std::time::Instant;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Interest, Pending, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::slices::{Came, Invocations, Leaving, Slices};
use crate::dbus::{Address, Value as Wire, print};
use crate::effects::example_process;
use crate::facts::boot_id;
use crate::outcomes::Process;
use crate::systemd::{Job, Manager, Property, Unit};

/// Makes a transient scope, into which systemd moves the process.
///
/// The process is inert and ends with its engine, and a scope ends with its last process: one whose making was cut short goes by itself. The
/// slices that systemd started for it do not, see [`Slices`].
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
    /// The slices that it is in.
    #[serde(default, skip_serializing_if = "Slices::is_empty")]
    pub slices: Slices,
}

/// Journaled before: there was no such unit, in this boot.
#[derive(Serialize, Deserialize)]
struct Absent {
    boot: String,
    /// The slices that ran.
    #[serde(default, skip_serializing_if = "Invocations::is_empty")]
    slices: Invocations,
}

/// The scope as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Scope {
    /// `InvocationID`: unique for each time that a unit is started.
    invocation: String,
    /// The slices that came with it.
    #[serde(default, skip_serializing_if = "Invocations::is_empty")]
    slices: Invocations,
}

impl StartScope {
    /// Whether the unit that has this name now is the one that we had made: by its invocation, or, if that was not learnt, by the URI that names
    /// our run. Older runs have it in the description alone.
    fn is_ours(&self, unit: &Unit, record: &Record, cx: &Cx) -> bool {
        if let Some(scope) = record.outcome::<Scope>() {
            return scope.invocation == unit.invocation;
        }
        let description = print(&Wire::str(&unit.description));
        let own = self.properties.iter().any(|p| p.name == "Description" && p.value == description);
        unit.documentation.contains(&uri(cx)) || (own && unit.description.contains(&cx.run.tag()))
    }
}

/// The URI of the run's directory: whose the scope is, whatever description an annotation gives it.
fn uri(cx: &Cx) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let dir = cx.run.dir();
    dir.as_os_str().as_encoded_bytes().iter().fold("file://".to_owned(), |uri, byte| {
        if plain(*byte) { uri + char::from(*byte).encode_utf8(&mut [0; 4]) } else { format!("{uri}%{byte:02X}") }
    })
}

impl EffectDef for StartScope {
    const KIND: &'static str = "systemd.scope";

    fn examples(scratch: &Path) -> Vec<Self> {
        let unique = scratch.file_name().map_or_else(|| "example".into(), |name| name.to_string_lossy());
        let unit = format!("lifecycle-{unique}.scope");
        let property = |name: &str, value: &Wire| Property::new(name, value);
        let outer = format!("lifecycle_{}", unique.replace('-', "_"));
        let own = vec![format!("{outer}.slice"), format!("{outer}-inner.slice")];
        let example = |names: Vec<String>| Self {
            control_group: format!("/{}/{unit}", names.join("/")),
            unit: unit.clone(),
            manager: Address { socket: "/run/systemd/private".into(), bus: false },
            process: example_process(),
            properties: vec![
                property("Slice", &Wire::str(names.last().map_or("-.slice", String::as_str))),
                property("Delegate", &Wire::Bool(true)),
                property("CollectMode", &Wire::str("inactive-or-failed")),
                property("TasksMax", &Wire::U64(16)),
            ],
            slices: Slices { names, mounts: example_mounts() },
        };
        vec![example(vec!["system.slice".to_owned()]), example(own)]
    }

    fn class(&self) -> Class {
        Class::Reversible
    }

    fn describe(&self) -> String {
        let properties: Vec<String> = self.properties.iter().map(Property::to_string).collect();
        format!("have systemd make the scope {} around {}: {}", self.unit, self.process, properties.join(" "))
    }

    fn before(&self, _cx: &mut Cx) -> Result<Value, EffectError> {
        let mut manager = Manager::open(&self.manager)?;
        match manager.unit(&self.unit)? {
            None => Ok(json!(Absent { boot: boot_id().to_owned(), slices: self.slices.running(&mut manager)? })),
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

    fn apply(&self, before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let pid = cx.resolve(&self.process)?.pid as u32;
        let before = Absent::deserialize(before).map_or_else(|_| Invocations::new(), |absent| absent.slices);
        let uris = Wire::Array("s".into(), vec![Wire::Str(uri(cx))]);
        let properties = [&self.properties[..], &[Property::new("Documentation", &uris)]].concat();
        let job = Manager::for_jobs(&self.manager)?.start_scope(&self.unit, &properties, pid)?;
        Ok(Applied::Pending(Box::new(Making { scope: self.clone(), before, job })))
    }

    fn undo(&self, record: &Record, cx: &mut Cx) -> Result<Undone, EffectError> {
        // What was there before is recorded before anything is made: without it nothing was. Units do not outlive a boot.
        let Ok(absent) = Absent::deserialize(&record.before) else { return Ok(Undone::Done) };
        if absent.boot != boot_id() {
            return Ok(Undone::Done);
        }
        let mut manager = Manager::for_jobs(&self.manager)?;
        let came = match record.outcome::<Scope>() {
            Some(scope) => Came::With(scope.slices),
            None => Came::Since(absent.slices),
        };
        let stage = match manager.unit(&self.unit)? {
            Some(unit) if self.is_ours(&unit, record, cx) => Stage::Scope(manager.stop(&self.unit)?),
            _ => Stage::Slices(self.leave(manager, &came)?),
        };
        Ok(Undone::Pending(Box::new(Ending { scope: self.clone(), came, stage: Some(stage) })))
    }
}

impl StartScope {
    fn leave(&self, manager: Manager, came: &Came) -> Result<Leaving, EffectError> {
        Leaving::new(manager, &self.slices, &self.control_group, came)
    }
}

/// systemd is at work on the scope.
struct Making {
    scope: StartScope,
    /// The slices that ran before.
    before: Invocations,
    job: Job,
}

impl Making {
    fn made(&mut self) -> Result<Value, EffectError> {
        let (name, planned) = (&self.scope.unit, &self.scope.control_group);
        match self.job.manager.unit(name)? {
            Some(unit) if unit.control_group == *planned => {
                let mut slices = self.scope.slices.running(&mut self.job.manager)?;
                slices.retain(|slice, invocation| self.before.get(slice) != Some(invocation));
                Ok(json!(Scope { invocation: unit.invocation, slices }))
            }
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

impl Pending for Making {
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
        self.made().map(Some)
    }

    fn cancel(&mut self, _cx: &mut Cx) {}
}

/// The scope is being taken back, and the slices that came with it.
struct Ending {
    scope: StartScope,
    came: Came,
    /// `None` once all is done.
    stage: Option<Stage>,
}

enum Stage {
    Scope(Job),
    Slices(Leaving),
}

impl Pending for Ending {
    fn interest(&self, wants: &mut Vec<Interest>) {
        let fd = match &self.stage {
            Some(Stage::Scope(job)) => Some(job.fd()),
            Some(Stage::Slices(leaving)) => leaving.fd(),
            None => None,
        };
        wants.extend(fd.map(Interest::read));
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Some(Stage::Scope(job)) => Some(job.until),
            Some(Stage::Slices(leaving)) => leaving.until(),
            None => None,
        }
    }

    fn advance(&mut self, _cx: &mut Cx) -> Result<Option<Value>, EffectError> {
        let mut leaving = match self.stage.take() {
            Some(Stage::Slices(leaving)) => leaving,
            Some(Stage::Scope(mut job)) => {
                if job.advance()?.is_none() {
                    self.stage = Some(Stage::Scope(job));
                    return Ok(None);
                }
                job.manager.reset_failed(&self.scope.unit)?;
                self.scope.leave(job.manager, &self.came)?
            }
            None => return Ok(Some(Value::Null)),
        };
        if leaving.advance()? {
            return Ok(Some(Value::Null));
        }
        self.stage = Some(Stage::Slices(leaving));
        Ok(None)
    }

    fn cancel(&mut self, _cx: &mut Cx) {}
}

/// Where this machine's systemd has the example's cgroups.
fn example_mounts() -> Vec<PathBuf> {
    let layout = super::machine();
    layout.v1.into_iter().map(|h| h.mount).chain(layout.v2.map(|unified| unified.mount)).collect()
}
