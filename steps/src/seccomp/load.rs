//! `seccomp.load`: the container's filter of system calls.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::Facts;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use lifecycle_engine::types::{HostPath, Name};
use lifecycle_engine::value::{Handle, Later};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Part, compiled};
use crate::command::directory;
use crate::effects::hook::Container;
use crate::effects::seccomp::{LoadFilter, SendListener};
use crate::outcomes::Process;
use crate::process::privileges::TAKES_PRIVILEGES;
use crate::spec::{Capabilities, Seccomp};

/// Loads a filter of system calls into the process of the site. The profile is compiled while planning, so a wrong one is refused before
/// anything happens.
///
/// Whatever the process calls from here on the profile has to allow. With no_new_privileges, give the filter to `process.exec` instead, which
/// loads it last of all.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The profile, as `linux.seccomp` of config.json. Null: no filter.
    #[serde(default)]
    pub profile: Option<Seccomp>,
    /// The site's process, of which an agent that the profile notifies is told. Needed where it notifies one.
    #[serde(default)]
    pub process: Option<Handle<Process>>,
    /// The container's id, which the agent is told; the run's if not given.
    #[serde(default)]
    pub id: Option<Name>,
    /// The bundle's directory, which the agent is told.
    #[serde(default)]
    pub bundle: Option<HostPath>,
    /// The configuration's annotations, which the agent is told.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What a `process.privileges` with the same `filter` has kept CAP_SYS_ADMIN besides; it is given up once the filter is in force.
    #[serde(default)]
    pub capabilities: Option<Capabilities>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Load;

impl Step for Load {
    const KIND: &'static str = "seccomp.load";
    const CHANGES: &'static str = "Which system calls the site's process, and the program that it becomes, may make.";
    const REVERSED_BY: &'static str = "Goes with the process.";
    const PLACE: Place = Place::Inside;
    // Before or after process.privileges is for the plan to say: without no_new_privs it needs a privilege that is given up there, unless that is
    // told to keep it.
    const AFTER: After = TAKES_PRIVILEGES;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A program that may not make directories.",
        plan: "plan: example/seccomp
steps:
  init: { uses: process.clone, with: { new: [pid], stdio: log } }
  privileges: { uses: process.privileges, site: \"${init}\", with: { no_new_privileges: true } }
  seccomp:
    uses: seccomp.load
    site: \"${init}\"
    needs: [privileges]
    with:
      profile:
        defaultAction: SCMP_ACT_ALLOW
        syscalls: [{ names: [mkdir, mkdirat], action: SCMP_ACT_ERRNO, errnoRet: 30 }]
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/sh, -c, \"! mkdir /tmp/forbidden\"] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let (parts, mut listener) = input.parts(cx)?;
        for part in parts {
            let notifies = part.part == Part::Notifying;
            cx.effect(part);
            if let Some(listener) = listener.take_if(|_| notifies) {
                cx.effect(listener);
            }
        }
        Ok(Output {})
    }
}

impl Input {
    /// The filter's parts, in order, and what follows the one that notifies.
    pub(crate) fn parts(&self, cx: &mut Planning) -> Result<(Vec<LoadFilter>, Option<SendListener>), PlanError> {
        let Some(profile) = &self.profile else { return Ok((Vec::new(), None)) };
        available(profile, cx.facts).map_err(in_profile)?;
        let directory: Option<PathBuf> = cx.facts.get("cache");
        let directory = directory.map(|cache| cache.join("seccomp"));
        let program = compiled(profile, directory.as_deref()).map_err(in_profile)?.program;
        let load = |part, then: Option<&Capabilities>| LoadFilter {
            profile: profile.clone(),
            part,
            then: then.cloned(),
            program: OnceCell::from(Rc::clone(&program)),
        };
        let then = self.capabilities.as_ref();
        if profile.notifies() {
            let listener = self.listener(profile, cx)?;
            Ok((vec![load(Part::Notifying, None), load(Part::Rest, then)], Some(listener)))
        } else {
            Ok((vec![load(Part::Whole, then)], None))
        }
    }

    fn listener(&self, profile: &Seccomp, cx: &mut Planning) -> Result<SendListener, PlanError> {
        let by = profile.handing().ok_or_else(|| {
            PlanError::new("profile.syscalls", "sendmsg and sendmmsg cannot both be notified")
                .help("the agent gets its descriptor by one of them")
        })?;
        if profile.listener_path.is_none() {
            return Err(PlanError::new("profile.listenerPath", "is required where an action is SCMP_ACT_NOTIFY"));
        }
        let process = self.process.clone().ok_or_else(|| {
            PlanError::new("process", "the agent is told the container's pid")
                .help("give the process, such as \"${init.process}\"")
        })?;
        let container = Container {
            id: self.id.as_ref().map_or_else(|| cx.run.id.clone(), ToString::to_string),
            process: Some(Later::Handle(process)),
            bundle: directory(self.bundle.as_ref(), cx)?,
            annotations: self.annotations.clone(),
        };
        Ok(SendListener { by, container, metadata: profile.listener_metadata.clone() })
    }
}

/// Blames the profile's field.
pub(super) fn in_profile(e: PlanError) -> PlanError {
    PlanError { field: format!("profile.{}", e.field).trim_end_matches('.').to_owned(), ..e }
}

/// Refuses actions and flags that the kernel does not have, by their names.
fn available(profile: &Seccomp, facts: &mut Facts) -> Result<(), PlanError> {
    let lacks = |field: String, what: &str, since: &str| {
        let message = format!("this kernel's seccomp(2) does not have {what}");
        Err(PlanError::new(field, message).help(format!("take it out of the profile, or use Linux {since} or later")))
    };
    if let Some(actions) = facts.get::<Vec<String>>("seccomp.actions") {
        let rules = profile.syscalls.iter().enumerate().map(|(i, rule)| (format!("syscalls.{i}.action"), rule.action));
        for (field, action) in std::iter::once(("default_action".to_owned(), profile.default_action)).chain(rules) {
            let name = action.kernel_name();
            if !actions.iter().any(|available| available == name) {
                return lacks(
                    field,
                    &format!("the action `{name}`"),
                    if name == "user_notif" { "5.0" } else { "4.14" },
                );
            }
        }
    }
    if profile.flags.is_empty() {
        return Ok(());
    }
    if let Some(flags) = facts.get::<Vec<String>>("seccomp.flags") {
        for (i, flag) in profile.flags.iter().enumerate() {
            if !flags.iter().any(|available| available == flag.name()) {
                return lacks(format!("flags.{i}"), &format!("the flag {}", flag.name()), flag.since());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan_inside, process, refused_inside};
    use lifecycle_engine::facts::Recorded;
    use serde_json::{Value, json};

    fn profile(action: &str) -> Value {
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock", "listenerMetadata": "m",
            "syscalls": [{ "names": ["mkdir"], "action": action }] })
    }

    #[test]
    fn a_profile_that_notifies_is_loaded_around_the_message_to_its_agent() {
        let with = |action| json!({ "profile": profile(action), "process": process(), "bundle": "/b", "annotations": { "a": "b" } });
        let planned = plan_inside::<Load>(with("SCMP_ACT_NOTIFY"));
        assert_eq!(
            planned.effects,
            [
                "seccomp filter that notifies an agent of 1 system calls",
                "send the seccomp agent the descriptor of the notified calls, with its metadata",
                "seccomp filter: 0 rules for 0 system calls; all others: allow",
            ]
        );
        assert_eq!(planned.data[1]["container"]["annotations"], json!({ "a": "b" }));
        assert_eq!(planned.data[1]["container"]["bundle"], json!("/b"));
        // "If the SCMP_ACT_NOTIFY action is not used this value is ignored."
        assert_eq!(plan_inside::<Load>(with("SCMP_ACT_ERRNO")).effects.len(), 1);
    }

    #[test]
    fn an_agent_must_be_reachable() {
        let with = |profile: Value| json!({ "profile": profile, "process": process() });
        let mut without = profile("SCMP_ACT_NOTIFY");
        without["listenerPath"] = Value::Null;
        assert_eq!(refused_inside::<Load>(with(without)).field, "profile.listenerPath");
        let mut both = profile("SCMP_ACT_NOTIFY");
        both["syscalls"][0]["names"] = json!(["sendmsg", "sendmmsg"]);
        assert_eq!(refused_inside::<Load>(with(both)).field, "profile.syscalls");
        assert_eq!(refused_inside::<Load>(json!({ "profile": profile("SCMP_ACT_NOTIFY") })).field, "process");
    }

    #[test]
    fn what_the_kernel_lacks_is_named() {
        let mut recorded = Recorded::default();
        recorded.host.insert("seccomp.actions".into(), json!(["errno", "allow"]));
        recorded.host.insert("seccomp.flags".into(), json!(["SECCOMP_FILTER_FLAG_LOG"]));
        let mut facts = Facts::fixed(recorded);
        let mut check = |profile: Value| available(&serde_json::from_value(profile).unwrap(), &mut facts);
        let error = check(profile("SCMP_ACT_NOTIFY")).unwrap_err();
        assert_eq!((error.field.as_str(), error.message.contains("`user_notif`")), ("syscalls.0.action", true));
        assert_eq!(check(json!({ "defaultAction": "SCMP_ACT_LOG" })).unwrap_err().field, "default_action");
        let mut flags = profile("SCMP_ACT_ERRNO");
        flags["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
        let error = check(flags).unwrap_err();
        assert_eq!((error.field.as_str(), error.message.contains("WAIT_KILLABLE_RECV")), ("flags.1", true));
        assert!(error.help.unwrap().contains("5.19"));
        check(profile("SCMP_ACT_ERRNO")).unwrap();
    }
}
