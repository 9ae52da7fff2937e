//! The plans that are built into the program.

use lifecycle_engine::compile::Library;
use lifecycle_engine::graph::{Graph, stored};
use lifecycle_engine::step::Registry;

/// Every plan below `plans/`, by its path without `.yaml`.
pub const LIBRARY: Library<'static> = Library { plans: lifecycle_steps::plans::BUILT_IN };

/// The plans of `lifecycle-oci`, compiled when the program was built.
const COMPILED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/compiled.rs"));

/// A plan of `lifecycle-oci`.
///
/// # Errors
///
/// There is no such plan.
pub fn compiled<'r>(name: &str, registry: &'r Registry) -> Result<Graph<'r>, String> {
    let (_, text) =
        COMPILED.iter().find(|(known, _)| *known == name).ok_or_else(|| format!("there is no plan {name}"))?;
    stored::read(text, registry, LIBRARY).map_err(|e| format!("plan {name}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compiled_plan_is_read() {
        let registry = lifecycle_steps::registry();
        assert!(COMPILED.iter().any(|(name, _)| *name == "oci/create"));
        for (name, _) in COMPILED {
            assert_eq!(compiled(name, &registry).map(|graph| graph.root().name.to_string()), Ok((*name).to_owned()));
        }
        assert!(compiled("oci/none", &registry).is_err());
    }
}
