//! The built-in plans.

/// Every plan below `plans/`: its path without `.yaml`, and its text.
pub const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/plans.rs"));

#[cfg(test)]
mod tests {
    use lifecycle_engine::compile::{Library, text};

    use super::*;

    #[test]
    fn every_built_in_plan_compiles_and_is_called_by_its_path() {
        let registry = crate::registry();
        let library = Library { plans: BUILT_IN };
        for (name, plan) in BUILT_IN {
            match text(name, plan, &registry, library) {
                Ok(graph) => assert_eq!(&*graph.root().name, *name),
                Err(report) => panic!("{report}"),
            }
        }
    }
}
