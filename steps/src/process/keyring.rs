//! `process.keyring`: a session keyring of the container's own.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Place, Planning, Step};
use lifecycle_engine::value::{Handle, Later};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::label::require_selinux;
use crate::effects::keyring::{JoinKeyring, SessionKeyring};

/// Gives the site's process a new session keyring, keyctl(2): keys are not namespaced, and a container must not find its caller's.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// How its name begins; the rest is random. Default: `_ses.` and the run's id, as other runtimes call it.
    #[serde(default)]
    pub name: Option<String>,
    /// That of the container in which the process begins. Without one it gets its own.
    #[serde(default)]
    pub join: Option<Later<SessionKeyring>>,
    /// Its SELinux label: process.selinuxLabel. Under the engine's own the container's program could not use it.
    #[serde(default)]
    pub selinux_label: Option<String>,
}

/// What it has.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// The keyring.
    pub keyring: Handle<SessionKeyring>,
}

/// The step.
pub struct Keyring;

impl Step for Keyring {
    const KIND: &'static str = "process.keyring";
    const CHANGES: &'static str = "The session keyring of the site's process.";
    const REVERSED_BY: &'static str = "Goes with the last process that has it.";
    const PLACE: Place = Place::Inside;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A program that sees no keys of its caller.",
        plan: "plan: example/keyring
steps:
  init: { uses: process.clone, with: { new: [pid], stdio: log } }
  keys: { uses: process.keyring, site: \"${init}\" }
  exec: { uses: process.exec, site: \"${init}\", needs: [keys], with: { args: [/bin/cat, /proc/keys] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let name = input.name.unwrap_or_else(|| format!("_ses.{}", cx.run.id));
        if name.is_empty() || name.contains('\0') {
            return Err(PlanError::new("name", "a keyring's name has at least one byte, and no NUL byte"));
        }
        let selinux_label = input.selinux_label.filter(|label| !label.is_empty());
        if selinux_label.is_some() {
            require_selinux("selinux_label", "process.selinuxLabel", cx.facts)?;
        }
        let joined = cx.effect(JoinKeyring { name, own: input.join, selinux_label });
        Ok(Output { keyring: joined.handle("") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{plan_with, refused_inside};
    use serde_json::json;

    #[test]
    fn the_keyring_has_the_programs_label_where_there_are_labels() {
        let input = json!({ "selinux_label": "a:b:c:s0" });
        let planned = plan_with::<Keyring>(json!({ "lsm": ["selinux"] }), input.clone());
        assert_eq!(planned.effects, ["new session keyring _ses.web, labelled a:b:c:s0"]);
        assert_eq!(refused_inside::<Keyring>(input).field, "selinux_label");
    }
}
