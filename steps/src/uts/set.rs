//! `uts.set`: the container's host name and domain name.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Place, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::effects::uts::{SetDomainname, SetHostname};

/// Sets the host name and the NIS domain name of the site's uts namespace. If that is the host's own, it is refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The host name, at most 64 bytes. Null: as it is.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The domain name, at most 64 bytes. Null: as it is.
    #[serde(default)]
    pub domainname: Option<String>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Set;

/// The kernel's __NEW_UTS_LEN.
const LONGEST: usize = 64;

impl Step for Set {
    const KIND: &'static str = "uts.set";
    const CHANGES: &'static str = "The host name and domain name in the site's uts namespace.";
    const REVERSED_BY: &'static str = "Goes with the namespace.";
    const PLACE: Place = Place::Inside;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "A container with a name.",
        plan: "plan: example/uts
steps:
  init: { uses: process.clone, with: { new: [uts], stdio: log } }
  names: { uses: uts.set, site: \"${init}\", with: { hostname: box, domainname: example.org } }
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/uname, -n] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        for (field, name) in [("hostname", &input.hostname), ("domainname", &input.domainname)] {
            if let Some(long) = name.as_ref().filter(|n| n.len() > LONGEST) {
                return Err(PlanError::new(
                    field,
                    format!("{} bytes are too many: the kernel takes {LONGEST}", long.len()),
                ));
            }
            if name.as_ref().is_some_and(|n| n.chars().any(char::is_control)) {
                return Err(PlanError::new(field, "a name holds no control characters"));
            }
        }
        if let Some(name) = input.hostname {
            cx.effect(SetHostname { name });
        }
        if let Some(name) = input.domainname {
            cx.effect(SetDomainname { name });
        }
        Ok(Output {})
    }
}
