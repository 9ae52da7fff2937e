//! What holds for every graph: steps run in a legal order, undo is its reverse, and a journal replays to the state that wrote it.

mod support;

use std::collections::HashSet;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::journal::{self, Entry, RunState};
use lifecycle_engine::run::RunOptions;
use proptest::prelude::*;
use support::*;
use tempfile::tempdir;

/// For each node the earlier nodes that it waits for.
fn graphs() -> impl Strategy<Value = Vec<Vec<u32>>> {
    prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..14).prop_map(|nodes| {
        let edges = nodes.iter().enumerate().map(|(n, picks)| {
            let mut after: Vec<u32> =
                if n == 0 { Vec::new() } else { picks.iter().map(|p| p.index(n) as u32).collect() };
            after.sort_unstable();
            after.dedup();
            after
        });
        edges.collect()
    })
}

fn before_name(n: u32) -> String {
    format!("n{n}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn steps_run_in_a_legal_order_and_are_undone_in_reverse(graph in graphs(), fail in any::<prop::sample::Index>()) {
        let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
        let fail = fail.index(graph.len() + 1);
        std::fs::write(work.path().join(format!("n{fail}.fail")), "").expect("fixture");
        let nodes = graph.iter().enumerate().map(|(n, after)| touch(&format!("n{n}"), after, work.path())).collect();
        let (finished, seen) = run(program(root.path(), "r", nodes), run_options());
        prop_assert_eq!(finished.expect("ran").failure.is_some(), fail < graph.len());

        let at = |what: String| seen.iter().position(|s| *s == what);
        for (n, after) in graph.iter().enumerate() {
            for before in after {
                if let Some(began) = at(format!("+n{n}")) {
                    let done = at(format!("={}", before_name(*before)));
                    prop_assert!(done.is_some_and(|done| done < began));
                    let (undone, undone_before) = (at(format!("-n{n}")), at(format!("-{}", before_name(*before))));
                    prop_assert!(undone < undone_before);
                }
            }
            prop_assert_eq!(at(format!("+n{n}")).is_some(), at(format!("-n{n}")).is_some());
        }
        prop_assert_eq!(files(work.path()), [format!("n{fail}.fail")]);
        prop_assert!(files(root.path()).is_empty());
    }

    #[test]
    fn every_prefix_of_a_journal_replays_to_the_state_that_wrote_it(graph in graphs()) {
        let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
        let nodes = graph.iter().enumerate().map(|(n, after)| touch(&format!("n{n}"), after, work.path())).collect();
        run(program(root.path(), "r", nodes), RunOptions { keep: true, ..run_options() }).0.expect("ran");
        let path = RunNames { root: root.path().to_owned(), id: "r".into() }.dir().join("journal");
        let bytes = std::fs::read(&path).expect("journal");
        let mut live = RunState::default();
        let mut length = 0;
        let mut begun = HashSet::new();
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let entry: Entry = serde_json::from_slice(line).expect("entry");
            live.take(&entry).expect("legal");
            // Written again it is the same line: nothing is lost on the way to the file.
            prop_assert_eq!(&serde_json::to_vec(&entry).expect("json"), &line[..line.len() - 1]);
            length += line.len();
            prop_assert_eq!(&journal::parse(&path, &bytes[..length]).expect("prefix"), &live);
            // Torn anywhere, it is the state before the line.
            let torn = journal::parse(&path, &bytes[..length - 1]).expect("torn");
            prop_assert_ne!(&torn, &live);
            // Intent comes before outcome.
            match entry {
                Entry::Begin { n, .. } => { begun.insert(n); }
                Entry::Outcome { n, .. } | Entry::Done { n, .. } => prop_assert!(begun.contains(&n)),
                _ => {}
            }
        }
    }
}
