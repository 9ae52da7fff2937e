//! How much taking back may wait for, and what goes last.

mod support;

use std::time::Instant;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::events::Silent;
use lifecycle_engine::run::{Recovered, RunOptions, recover, undo_run_by};
use support::{Hang, Sign, effect, files, node, program, registry, run, run_options, touch};
use tempfile::tempdir;

#[test]
fn what_may_wait_side_by_side_is_begun_before_any_of_it_is_given_up() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let hang = || effect(Hang { log: work.path().join("log") });
    let nodes = vec![touch("a", &[], work.path()), node("b", &[0], vec![hang(), hang(), hang()])];
    let kept = RunOptions { keep: true, ..run_options() };
    run(program(root.path(), "r", nodes), kept).0.expect("ran");
    let names = RunNames { root: root.path().to_owned(), id: "r".into() };
    let stuck = undo_run_by(&names, &registry(), &mut Silent, Instant::now()).expect("undone");
    assert_eq!(std::fs::read_to_string(work.path().join("log")).expect("log"), "begun begun begun over over over ");
    assert_eq!(stuck.iter().map(|s| s.error.what.as_str()).collect::<Vec<_>>(), ["held by nobody"; 3]);
    assert_eq!(files(work.path()), ["log"], "a is left");
}

#[test]
fn what_a_run_is_known_by_stays_until_nothing_else_of_it_is_left() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    std::fs::write(work.path().join("a.stick"), "").expect("fixture");
    std::fs::write(work.path().join("c.fail"), "").expect("fixture");
    let sign = node("b", &[0], vec![effect(Sign { path: work.path().join("sign") })]);
    let nodes = vec![touch("a", &[], work.path()), sign, touch("c", &[1], work.path())];
    let (_, seen) = run(program(root.path(), "r", nodes), run_options());
    assert_eq!(seen[6..], ["-c", "?a", "-a"]);
    assert_eq!(files(work.path()), ["a", "a.stick", "c.fail", "sign"]);
    std::fs::remove_file(work.path().join("a.stick")).expect("unstick");
    let at_last = recover(root.path(), &registry(), &mut Silent).expect("recover");
    assert_eq!(at_last, [("r".to_owned(), Recovered::Undone)]);
    assert_eq!(files(work.path()), ["c.fail"]);
}
