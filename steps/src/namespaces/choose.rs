//! `namespaces.choose`

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{Example, Nature, Planning, Step};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::{Namespace, NamespaceType};

/// Adds a user namespace to the ones asked for where the caller cannot make those without one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Input {
    /// The namespaces to make, by type.
    pub new: Vec<NamespaceType>,
}

/// The choice.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Output {
    /// What `process.clone` takes.
    pub namespaces: Vec<Namespace>,
}

/// See [`Input`].
pub struct Choose;

impl Step for Choose {
    const KIND: &'static str = "namespaces.choose";
    const CHANGES: &'static str = "Nothing: it reads while the run is planned.";
    const REVERSED_BY: &'static str = "Nothing to reverse.";
    const NATURE: Nature = Nature::Pure;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "Namespaces for root and ordinary users alike.",
        plan: "\
plan: example
steps:
  isolation:
    uses: namespaces.choose
    with: { new: [mount, pid] }
outputs:
  namespaces: \"${isolation.namespaces}\"
",
        needs: &[],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        let mut kinds = input.new;
        let capabilities: Vec<String> = cx.facts.get("caps.effective").unwrap_or_default();
        let privileged = capabilities.iter().any(|name| name == "CAP_SYS_ADMIN");
        if !privileged && !kinds.contains(&NamespaceType::User) {
            if !cx.facts.has("userns.allowed") {
                return Err(PlanError::new("new", "need CAP_SYS_ADMIN or a user namespace, and this host allows neither")
                    .help("run as root, or allow user namespaces (user.max_user_namespaces, kernel.unprivileged_userns_clone, AppArmor)"));
            }
            kinds.insert(0, NamespaceType::User);
        }
        Ok(Output { namespaces: kinds.into_iter().map(|kind| Namespace { kind, path: None }).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle_engine::effect::RunNames;
    use lifecycle_engine::facts::{Facts, Recorded};
    use serde_json::json;

    fn choose(capabilities: &[&str], allowed: bool) -> Result<Vec<NamespaceType>, PlanError> {
        let mut given = Recorded::default();
        given.host.insert("caps.effective".into(), json!(capabilities));
        given.host.insert("userns.allowed".into(), json!(allowed));
        let mut facts = Facts::fixed(given);
        let run = RunNames { root: "/run/lifecycle".into(), id: "web".into() };
        let mut cx = Planning::new(&mut facts, &run, "isolation".into(), None);
        let output = Choose::plan(Input { new: vec![NamespaceType::Pid] }, &mut cx)?;
        Ok(output.namespaces.into_iter().map(|namespace| namespace.kind).collect())
    }

    #[test]
    fn an_ordinary_user_gets_a_user_namespace_and_root_does_not() {
        assert_eq!(choose(&["CAP_SYS_ADMIN"], false), Ok(vec![NamespaceType::Pid]));
        assert_eq!(choose(&[], true), Ok(vec![NamespaceType::User, NamespaceType::Pid]));
        assert!(choose(&[], false).is_err());
    }
}
