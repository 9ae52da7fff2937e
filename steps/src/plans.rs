//! The built-in plans.

/// Every plan below `plans/`: its path without `.yaml`, and its text.
pub const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/plans.rs"));

#[cfg(test)]
mod tests {
    use lifecycle_engine::compile::{Library, text};
    use lifecycle_engine::graph::stored;

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

    /// Both make the runs that `oci/exec`, `oci/delete` and others open.
    #[test]
    fn a_restored_container_gives_what_a_created_one_does() {
        let registry = crate::registry();
        let library = Library { plans: BUILT_IN };
        let outputs = |name: &str| {
            let graph = text(name, library.text(name).unwrap(), &registry, library).unwrap();
            let mut names: Vec<String> = graph.root().outputs.iter().map(|output| output.name.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(outputs("oci/restore"), outputs("oci/create"));
    }

    #[test]
    fn a_stored_plan_is_read_as_it_was_written() {
        let registry = crate::registry();
        let library = Library { plans: BUILT_IN };
        for (name, plan) in BUILT_IN {
            let graph = text(name, plan, &registry, library).unwrap();
            let written = stored::write(&graph).unwrap();
            let read = stored::read(&written, &registry, library).unwrap();
            assert_eq!(stored::write(&read).unwrap(), written, "{name}");
            assert_eq!(read.order, graph.order, "{name}");
            for item in &graph.order {
                assert_eq!(read.address(*item), graph.address(*item));
                assert_eq!(read.kind(*item).map(|kind| kind.kind), graph.kind(*item).map(|kind| kind.kind));
                assert_eq!(read.place(*item), graph.place(*item), "{name}: {}", graph.address(*item));
            }
        }
        assert!(stored::read("{}", &registry, library).is_err());
    }
}
