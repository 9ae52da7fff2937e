//! Journals of every version that was ever written stay readable: a container that an older program made can be taken back by this one.

use std::path::Path;

use lifecycle_engine::journal::{Settlement, parse};

/// Version 1: `oci/create` with hooks, kept, then `oci/start`.
const V1: &[u8] = include_bytes!("journals/v1.jsonl");

#[test]
fn a_journal_of_version_1_replays_and_each_of_its_effects_is_known() {
    let state = parse(Path::new("v1.jsonl"), V1).expect("replays");
    assert_eq!(state.id, "web");
    let settled: Vec<_> = state.segments.iter().map(|s| (s.plan.as_str(), s.settled.map(|(how, _)| how))).collect();
    assert_eq!(settled, [("oci/create", Some(Settlement::Kept)), ("oci/start", Some(Settlement::Kept))]);
    let registry = lifecycle_steps::registry();
    let mut owed = Vec::new();
    for (_, node) in state.begun() {
        for effect in &node.effects {
            let kind =
                registry.effect(&effect.planned.kind).unwrap_or_else(|| panic!("{} is unknown", effect.planned.kind));
            let decoded = (kind.decode)(&effect.planned.data).unwrap_or_else(|e| panic!("{}: {e}", kind.kind));
            assert_eq!(decoded.class(), effect.planned.class, "{}", kind.kind);
            if node.site.is_none() && effect.owes_undo() {
                owed.push(kind.kind);
            }
        }
    }
    owed.dedup();
    assert_eq!(owed.first(), Some(&"exec_fifo"));
    for kind in ["cgroup.directory", "clone", "hook", "state"] {
        assert!(owed.iter().any(|k| k.starts_with(kind)), "{kind} is not in {owed:?}");
    }
}

#[test]
fn no_value_of_the_environment_is_in_a_journal() {
    let text = String::from_utf8_lossy(V1);
    assert!(text.contains("‹sensitive›"), "the fixture has an environment");
    assert!(!text.contains("hunter2"));
}
