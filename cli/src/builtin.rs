//! The plans that are built into the program.

use lifecycle_engine::compile::Library;

/// Every plan below `plans/`, by its path without `.yaml`.
pub const LIBRARY: Library<'static> = Library { plans: include!(concat!(env!("OUT_DIR"), "/plans.rs")) };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_plan_compiles_and_is_called_by_its_path() {
        let registry = lifecycle_steps::registry();
        for (name, text) in LIBRARY.plans {
            match lifecycle_engine::compile::text(name, text, &registry, LIBRARY) {
                Ok(graph) => assert_eq!(&*graph.root().name, *name),
                Err(report) => panic!("{report}"),
            }
        }
    }
}
