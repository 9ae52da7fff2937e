//! Where the caller may make no cgroup: an ordinary user to whom none was delegated, or root in a container that shows its cgroups read-only.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::facts::Facts;
use lifecycle_engine::step::Planning;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::create::{Input, Output};
use super::limits::Limit;
use crate::effects::Warning;
use crate::effects::cgroup::MakeCgroup;
use crate::facts::{CgroupLayout, CgroupMode, MAY_MAKE};

/// Whether a container may do without a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rootless {
    /// If the caller is not root, or root of a user namespace alone.
    #[default]
    Auto,
    /// Yes.
    True,
    /// No.
    False,
}

impl Rootless {
    fn tolerates(self, facts: &mut Facts) -> bool {
        match self {
            Self::True => true,
            Self::False => false,
            Self::Auto => facts.get::<u32>("euid") != Some(0) || facts.has("userns.nested"),
        }
    }
}

/// What the caller can do about it.
const OTHERWISE: &str = "run as root, or have a cgroup delegated (systemd does it for whoever logs in, on cgroup v2)";

/// The container runs in the cgroup that the caller is in, if nothing else is asked for and that is tolerated.
pub(super) fn without(
    input: &Input,
    layout: &CgroupLayout,
    limits: &[Limit],
    cx: &mut Planning,
) -> Result<Output, PlanError> {
    let why = match layout.mode {
        CgroupMode::None => "no cgroup hierarchy is mounted",
        _ => "the caller may make no cgroups",
    };
    if let Some(path) = &input.path {
        return Err(PlanError::new("path", format!("asks for the cgroup {path} (linux.cgroupsPath), and {why}"))
            .help(format!("remove it; or {OTHERWISE}")));
    }
    if let Some(limit) = limits.first() {
        let message = format!("asks for a limit (linux.{}), and {why}", limit.field);
        return Err(PlanError::new(limit.field.clone(), message).help(format!("remove it; or {OTHERWISE}")));
    }
    if !input.rootless.tolerates(cx.facts) {
        return Err(PlanError::new("rootless", format!("{why}, and a container without one is not tolerated"))
            .help("--rootless=true (`rootless: \"true\"`) tolerates it, where nothing is to be limited"));
    }
    cx.effect(Warning { text: warning(why, input.own_pids) });
    Ok(Output::default())
}

fn warning(why: &str, own_pids: bool) -> String {
    let mut text = format!(
        "{why}: the container has none of its own, so nothing of it is limited or counted, it cannot be paused, and no device rules hold in it"
    );
    if !own_pids {
        text.push_str(
            "; it shares a pid namespace, too, so what its first process leaves behind is not found when it is deleted",
        );
    }
    text
}

/// Refuses a cgroup that somebody named where the caller may make none.
pub(super) fn refuse_elsewhere(path: &str, places: &[MakeCgroup], cx: &mut Planning) -> Result<(), PlanError> {
    for at in places.iter().map(MakeCgroup::at) {
        // Unknown is not refused: the kernel will say.
        if cx.facts.value(&format!("{MAY_MAKE}{}", at.display())) == false {
            let message =
                format!("asks for the cgroup {path} (linux.cgroupsPath), and the caller may not make {}", at.display());
            return Err(PlanError::new("path", message)
                .help("name one below a cgroup that was delegated to the caller, in every hierarchy; or run as root"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Create;
    use super::*;
    use crate::testing::{Planned, plan_on};
    use serde_json::{Value, json};

    fn hybrid(writable: bool) -> Value {
        json!({
            "mode": "hybrid",
            "v1": [{ "controllers": ["pids"], "mount": "/cg/pids", "writable": writable }],
            "v2": { "controllers": ["hugetlb"], "mount": "/cg/unified", "writable": writable }
        })
    }

    /// Somebody who may make no cgroup at the top, unless the facts say otherwise.
    fn plan(facts: Value, input: Value) -> Result<Planned, PlanError> {
        let mut all = json!({ "cgroup.layout": hybrid(false), "euid": 1000, "caps.effective": [] });
        facts.as_object().unwrap().iter().for_each(|(name, value)| all[name] = value.clone());
        plan_on::<Create>(all, input)
    }

    fn warns(planned: &Planned) -> bool {
        planned.effects.len() == 1 && planned.effects[0].starts_with("warn: ") && planned.output["join"].is_null()
    }

    #[test]
    fn a_user_without_a_cgroup_is_warned_if_he_asks_for_nothing() {
        let planned = plan(json!({}), json!({})).unwrap();
        assert!(warns(&planned) && planned.effects[0].contains("the caller may make no cgroups"), "{planned:?}");
        assert!(!planned.effects[0].contains("pid namespace"));
        let shared = plan(json!({}), json!({ "own_pids": false })).unwrap();
        assert!(shared.effects[0].contains("shares a pid namespace"), "{shared:?}");
        let none = plan(json!({ "cgroup.layout": { "mode": "none" } }), json!({})).unwrap();
        assert!(none.effects[0].contains("no cgroup hierarchy is mounted"), "{none:?}");
        // Device rules are not limits: without CAP_SYS_ADMIN there is nothing for them to hold.
        let rules = json!({ "resources": { "devices": [{ "allow": false, "access": "rwm" }], "memory": {} } });
        assert!(warns(&plan(json!({}), rules).unwrap()));
    }

    #[test]
    fn what_is_asked_for_and_cannot_be_is_refused_by_its_field() {
        let pids = json!({ "pids": { "limit": 16 } });
        for (input, field, words) in [
            (json!({ "path": "/a" }), "path", "linux.cgroupsPath"),
            (json!({ "path": "a" }), "path", "linux.cgroupsPath"),
            (json!({ "resources": pids }), "resources.pids.limit", "linux.resources.pids.limit"),
        ] {
            // Whatever is tolerated.
            for rootless in ["auto", "true", "false"] {
                let mut input = input.clone();
                input["rootless"] = json!(rootless);
                let facts = json!({ "cgroup.may_make:/cg/pids/a": false });
                let error = plan(facts, input).unwrap_err();
                assert!(error.field == field && error.message.contains(words) && error.help.is_some(), "{error:?}");
            }
        }
        let no_hierarchy = plan(json!({ "cgroup.layout": { "mode": "none" } }), json!({ "path": "/a" })).unwrap_err();
        assert!(no_hierarchy.message.contains("no cgroup hierarchy is mounted"), "{no_hierarchy:?}");
    }

    #[test]
    fn a_path_in_what_was_delegated_is_the_callers_to_make() {
        let mine = json!({ "cgroup.may_make:/cg/pids/a": true });
        assert_eq!(plan(mine, json!({ "path": "/a" })).unwrap().effects, ["make the cgroup /cg/pids/a"]);
        // Only the hierarchies that are needed: the limit is in the second.
        let one = json!({ "cgroup.may_make:/cg/pids/a": true, "cgroup.may_make:/cg/unified/a": false });
        assert!(plan(one.clone(), json!({ "path": "/a" })).is_ok());
        let limited = json!({ "path": "/a", "resources": { "unified": { "hugetlb.2MB.max": "0" } } });
        assert!(plan(one, limited).unwrap_err().message.contains("/cg/unified/a"));
    }

    #[test]
    fn root_is_refused_unless_he_says_that_it_is_tolerated() {
        let tolerated = |facts: Value, rootless: &str| {
            let planned = plan(facts, json!({ "rootless": rootless }));
            planned.map(|planned| assert!(warns(&planned), "{planned:?}")).map_err(|error| error.field)
        };
        let (user, root) = (json!({ "euid": 1000 }), json!({ "euid": 0 }));
        let nested = json!({ "euid": 0, "userns.nested": true });
        let refused = Err("rootless".to_owned());
        for (facts, auto) in [(&user, Ok(())), (&root, refused.clone()), (&nested, Ok(()))] {
            assert_eq!(tolerated(facts.clone(), "auto"), auto, "{facts}");
            assert_eq!(tolerated(facts.clone(), "true"), Ok(()), "{facts}");
            assert_eq!(tolerated(facts.clone(), "false"), refused, "{facts}");
        }
    }

    #[test]
    fn whoever_may_make_cgroups_gets_one_whatever_is_tolerated() {
        for rootless in ["auto", "true", "false"] {
            let facts = json!({ "cgroup.layout": hybrid(true), "euid": 0, "caps.effective": ["CAP_SYS_ADMIN"] });
            let planned = plan(facts, json!({ "path": "/a", "rootless": rootless })).unwrap();
            assert_eq!(planned.effects[..2], ["make the cgroup /cg/unified/a", "make the cgroup /cg/pids/a"]);
        }
    }

    #[test]
    fn device_rules_need_capabilities_on_the_machine_itself() {
        let rules = |nested: bool| {
            let layout = json!({
                "mode": "v1",
                "v1": [{ "controllers": ["devices"], "mount": "/cg/devices", "writable": true }]
            });
            let facts =
                json!({ "cgroup.layout": layout, "caps.effective": ["CAP_SYS_ADMIN"], "userns.nested": nested });
            plan(facts, json!({ "path": "/a" })).unwrap().effects.iter().any(|line| line.contains("devices.deny"))
        };
        assert!(rules(false) && !rules(true));
    }
}
