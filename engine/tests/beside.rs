//! Runs beside another one: what they read of it, what they leave to it, and how they go with it.

mod support;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::events::{Event, Paused, Silent, Watch};
use lifecycle_engine::journal::{self, JournalError, RunDir};
use lifecycle_engine::program::Program;
use lifecycle_engine::run::{RunError, RunOptions, recover, undo_run};
use serde_json::json;
use support::*;
use tempfile::{TempDir, tempdir};

fn kept() -> RunOptions {
    RunOptions { keep: true, ..run_options() }
}

/// A kept run `web`, and where its and others' files are.
fn around() -> (TempDir, TempDir, RunNames) {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let program = Program {
        outputs: json!({ "made": "web" }),
        ..program(root.path(), "web", vec![touch("a", &[], work.path())])
    };
    run(program, kept()).0.expect("ran");
    let web = RunNames { root: root.path().to_owned(), id: "web".into() };
    (root, work, web)
}

/// A program that works beside `web` and touches `b`.
fn beside(web: &RunNames, work: &TempDir) -> Program {
    let names = web.beside("exec-1".into());
    Program { beside: true, ..program(&names.root, &names.id, vec![touch("b", &[], work.path())]) }
}

/// Ends the engine where the run would pause, as a crash does: nothing is taken back, and its lock is free.
struct Cut;

impl Watch for Cut {
    fn event(&mut self, _: &Event) {}
    fn pause(&mut self, _: &Paused) {
        std::panic::resume_unwind(Box::new("cut off"));
    }
}

/// Runs a program up to a step.
fn cut_off(program: Program, before: u32) {
    let options = RunOptions { pause_at: Some(before), ..run_options() };
    let cut = || lifecycle_engine::run::run(std::rc::Rc::new(program), &registry(), options, &mut Cut).map(drop);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(cut)).is_err(), "it was not cut off");
}

#[test]
fn what_has_no_main_step_stays_and_its_run_goes() {
    let (_root, work, web) = around();
    let (finished, _) = run(beside(&web, &work), run_options());
    assert!(!finished.expect("ran").kept);
    assert_eq!(files(work.path()), ["a", "b"]);
    assert!(!web.besides().exists(), "nobody has to tidy up after it");
}

#[test]
fn what_has_a_main_step_is_taken_back_with_it_unless_it_is_kept() {
    let (_root, work, web) = around();
    let (finished, _) = run(Program { main: vec![0], ..beside(&web, &work) }, run_options());
    assert!(finished.expect("ran").failure.is_none());
    assert_eq!(files(work.path()), ["a"]);
    let (finished, _) = run(Program { main: vec![0], ..beside(&web, &work) }, kept());
    assert!(finished.expect("ran").failure.is_none());
    assert_eq!(files(work.path()), ["a", "b"]);
    assert!(!web.besides().exists());
}

#[test]
fn what_fails_is_taken_back_and_the_run_around_it_stays() {
    let (_root, work, web) = around();
    std::fs::write(work.path().join("b.fail"), "").expect("fixture");
    let (finished, _) = run(beside(&web, &work), run_options());
    assert!(finished.expect("ran").failure.is_some());
    assert_eq!(files(work.path()), ["a", "b.fail"]);
    assert!(journal::read(&web).expect("web").is_settled() && !web.besides().exists());
}

#[test]
fn it_needs_the_run_around_it_and_does_not_wait_for_its_engine() {
    let (_root, work, web) = around();
    let locked = RunDir::open(&web).expect("the lock of an engine that works on it");
    assert!(run(beside(&web, &work), run_options()).0.is_ok());
    drop(locked);
    assert!(undo_run(&web, &registry(), &mut Silent).expect("undone").is_empty());
    let error = run(beside(&web, &work), run_options()).0.expect_err("there is no run to be beside of");
    assert!(matches!(error, RunError::Journal(JournalError::Io { .. } | JournalError::Absent { .. })), "{error:?}");
    assert!(!web.dir().exists(), "it does not make that run's directory");
}

#[test]
fn what_a_crash_left_beside_a_run_is_recovered_and_goes_with_it() {
    for by_undo in [false, true] {
        let (root, work, web) = around();
        let names = web.beside("exec-1".into());
        let nodes = vec![touch("b", &[], work.path()), touch("c", &[0], work.path())];
        cut_off(Program { beside: true, ..program(&names.root, &names.id, nodes) }, 1);
        assert_eq!(files(work.path()), ["a", "b"]);
        if by_undo {
            assert!(undo_run(&web, &registry(), &mut Silent).expect("undone").is_empty());
            assert!(files(work.path()).is_empty() && !web.dir().exists());
        } else {
            let recovered = recover(root.path(), &registry(), &mut Silent).expect("recovered");
            assert_eq!(recovered[0].0, "web/exec-1", "{recovered:?}");
            assert_eq!(files(work.path()), ["a"], "the run around it was kept on purpose");
        }
    }
}

#[test]
fn outputs_can_be_read_while_the_run_goes_on() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let handle = json!({ "$handle": { "step": "a", "effect": 0, "field": "path" } });
    let outputs = json!({ "made": handle, "later": { "$handle": { "step": "c", "effect": 0, "field": "path" } } });
    let nodes = vec![touch("a", &[], work.path()), touch("b", &[0], work.path()), touch("c", &[1], work.path())];
    let program = Program { outputs, ..program(root.path(), "r", nodes) };
    cut_off(program, 2);
    let state = journal::read(&RunNames { root: root.path().to_owned(), id: "r".into() }).expect("journal");
    assert_eq!(state.outputs(), json!({ "made": work.path().join("a"), "later": null }));
}
