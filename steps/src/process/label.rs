//! `process.label`: what a security module confines the container's program to.

use std::path::Path;

use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::Facts;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::label::{LabelApparmor, LabelSelinux};

/// Lets the program that takes the site's process's place run under an AppArmor profile or an SELinux label. Where the machine does not have the
/// module in force, asking for it is an error: a container that ran without it would be less confined than its author believes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The AppArmor profile: process.apparmorProfile. It must be loaded. `unconfined` is what there is anyway on a machine without AppArmor.
    #[serde(default)]
    pub apparmor_profile: Option<String>,
    /// The SELinux label: process.selinuxLabel.
    #[serde(default)]
    pub selinux_label: Option<String>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Label;

/// The profile that confines nothing.
const UNCONFINED: &str = "unconfined";

impl Step for Label {
    const KIND: &'static str = "process.label";
    const CHANGES: &'static str = "The profile or label that the site's process gets at exec.";
    const REVERSED_BY: &'static str = "Goes with the process.";
    const PLACE: Place = Place::Inside;
    const AFTER: After =
        &["rootfs.mount", "rootfs.overlay", "rootfs.pivot", "rootfs.protect", "sysctl.write", "uts.set"];
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A program that no profile confines, whatever confines the engine.",
        plan: "plan: example/label
steps:
  init: { uses: process.clone, with: { new: [pid], stdio: log } }
  label: { uses: process.label, site: \"${init}\", with: { apparmor_profile: unconfined } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/echo, hello] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        if let Some(profile) = given(input.apparmor_profile) {
            legal("apparmor_profile", &profile)?;
            if is_active("apparmor", cx.facts) {
                loaded(&profile, cx.facts)?;
                cx.effect(LabelApparmor { profile });
            } else if profile != UNCONFINED {
                return Err(inactive("apparmor_profile", "process.apparmorProfile", "AppArmor", "apparmor", cx.facts));
            }
        }
        if let Some(label) = given(input.selinux_label) {
            legal("selinux_label", &label)?;
            require_selinux("selinux_label", "process.selinuxLabel", cx.facts)?;
            cx.effect(LabelSelinux { label });
        }
        Ok(Output {})
    }
}

/// The profiles that the kernel has, one in a line: `NAME (MODE)`. securityfs need not be mounted.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// Refuses a profile that the kernel does not have, where it can be known. One in another policy namespace (`:NS:NAME`), or stacked (`A//&B`), is
/// not in the list, and is the kernel's to refuse.
fn loaded(profile: &str, facts: &mut Facts) -> Result<(), PlanError> {
    let Ok(listed) = facts.file(Path::new(PROFILES)) else { return Ok(()) };
    let mut names = listed.lines().filter_map(|line| Some(line.rsplit_once(" (")?.0));
    if profile == UNCONFINED || profile.starts_with(':') || profile.contains('&') || names.any(|name| name == profile) {
        return Ok(());
    }
    Err(PlanError::new("apparmor_profile", format!("AppArmor profile {profile:?} is not loaded"))
        .help(format!("load it with apparmor_parser; {PROFILES} lists those that are")))
}

/// An empty string asks for nothing, as in config.json.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn legal(field: &str, label: &str) -> Result<(), PlanError> {
    match label.chars().find(|c| c.is_control()) {
        Some(bad) => Err(PlanError::new(field, format!("holds {bad:?}, which no label can"))),
        None => Ok(()),
    }
}

fn is_active(module: &str, facts: &mut Facts) -> bool {
    active(facts).iter().any(|name| name == module)
}

fn active(facts: &mut Facts) -> Vec<String> {
    facts.get("lsm").unwrap_or_default()
}

/// Refuses what needs SELinux where that is not in force. `config`: the field of config.json.
pub(crate) fn require_selinux(field: &str, config: &str, facts: &mut Facts) -> Result<(), PlanError> {
    if is_active("selinux", facts) {
        return Ok(());
    }
    Err(inactive(field, config, "SELinux", "selinux", facts))
}

fn inactive(field: &str, config: &str, module: &str, name: &str, facts: &mut Facts) -> PlanError {
    let active = match active(facts) {
        none if none.is_empty() => "none".to_owned(),
        some => some.join(", "),
    };
    PlanError::new(field, format!("{module} is not in force on this machine (fact `lsm`: {active})"))
        .help(format!("boot the kernel with lsm={name},… and its policy loaded, or take {config} out of config.json"))
}

/// The security modules of the machine that runs the tests.
#[cfg(test)]
pub(crate) fn active_for_tests() -> Vec<String> {
    active(&mut Facts::live(Box::new(crate::facts::Machine)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan_with, refused_with};
    use lifecycle_engine::facts::{FileFact, Recorded};
    use rustix::io::Errno;
    use serde_json::json;

    #[test]
    fn the_module_in_force_gets_its_label() {
        let apparmor = json!({ "lsm": ["capability", "apparmor"] });
        let planned = plan_with::<Label>(apparmor.clone(), json!({ "apparmor_profile": "docker-default" }));
        assert_eq!(planned.effects, ["AppArmor profile docker-default from exec on"]);
        // Whoever is confined himself says so to get out of it.
        let planned = plan_with::<Label>(apparmor, json!({ "apparmor_profile": "unconfined" }));
        assert_eq!(planned.effects, ["AppArmor profile unconfined from exec on"]);
        let label = "system_u:system_r:container_t:s0:c1,c2";
        let planned = plan_with::<Label>(json!({ "lsm": ["selinux"] }), json!({ "selinux_label": label }));
        assert_eq!(planned.effects, [format!("SELinux label {label} from exec on")]);
    }

    #[test]
    fn a_profile_that_the_kernel_does_not_have_is_refused_by_name() {
        let with = |profile: &str, list: FileFact| {
            let mut given = Recorded::default();
            given.files.insert(PROFILES.into(), list);
            loaded(profile, &mut Facts::fixed(given))
        };
        let listed = |profile: &str| with(profile, FileFact::Text("web (enforce)\n/usr/bin/man (complain)\n".into()));
        for known in ["web", "/usr/bin/man", "unconfined", ":other:web", "web//&lab"] {
            assert!(listed(known).is_ok(), "{known}");
        }
        for unknown in ["docker-default", "we", "web (enforce)"] {
            let error = listed(unknown).unwrap_err();
            assert!(error.message.contains(&format!("{unknown:?} is not loaded")), "{error}");
        }
        // Where the list cannot be read the kernel is asked.
        assert!(with("docker-default", FileFact::Errno(Errno::NOENT.raw_os_error())).is_ok());
    }

    #[test]
    fn a_module_that_is_not_in_force_is_refused_with_the_fact() {
        for (input, field) in [
            (json!({ "apparmor_profile": "docker-default" }), "apparmor_profile"),
            (json!({ "selinux_label": "a:b:c:s0" }), "selinux_label"),
        ] {
            for (facts, active) in [(json!({ "lsm": ["landlock", "yama"] }), "landlock, yama"), (json!({}), "none")] {
                let error = refused_with::<Label>(facts, input.clone());
                assert_eq!(error.field, field);
                assert!(error.message.contains(&format!("(fact `lsm`: {active})")), "{error}");
                assert!(error.help.is_some_and(|help| help.contains("config.json")));
            }
        }
    }

    #[test]
    fn what_confines_nothing_needs_no_module() {
        for input in [
            json!({}),
            json!({ "apparmor_profile": "unconfined" }),
            json!({ "apparmor_profile": "", "selinux_label": "" }),
        ] {
            assert!(plan_with::<Label>(json!({}), input).effects.is_empty());
        }
    }

    #[test]
    fn a_label_cannot_carry_a_second_command() {
        let facts = json!({ "lsm": ["apparmor", "selinux"] });
        for input in [json!({ "apparmor_profile": "a\nexec b" }), json!({ "selinux_label": "a\0b" })] {
            refused_with::<Label>(facts.clone(), input);
        }
    }
}
