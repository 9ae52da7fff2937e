//! Runs, failures, cancellation and undo, over effects on plain files.

mod support;

use std::os::fd::AsRawFd;
use std::time::Duration;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::events::Silent;
use lifecycle_engine::journal::{self, JournalError};
use lifecycle_engine::program::Options;
use lifecycle_engine::run::{Recovered, RunError, recover, undo_run};
use lifecycle_engine::site::Inject;
use serde_json::json;
use support::*;
use tempfile::tempdir;

#[test]
fn a_run_that_is_not_kept_leaves_nothing() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let state = root.path().join("state");
    let nodes = vec![touch("a", &[], work.path()), touch("b", &[0], work.path()), touch("c", &[0], work.path())];
    let (finished, seen) = run(program(&state, "r", nodes), run_options());
    assert!(finished.expect("ran").failure.is_none());
    assert_eq!(seen, ["+a", "=a", "+b", "=b", "+c", "=c", "-c", "-b", "-a"]);
    assert!(files(work.path()).is_empty());
    assert!(!state.exists(), "the state root goes with its last run");
}

#[test]
fn the_failing_step_itself_is_undone() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    std::fs::write(work.path().join("b.fail"), "").expect("fixture");
    let nodes = vec![touch("a", &[], work.path()), touch("b", &[0], work.path()), touch("c", &[1], work.path())];
    let (finished, seen) = run(program(root.path(), "r", nodes), run_options());
    let failure = finished.expect("ran").failure.expect("failed");
    assert_eq!(
        (&*failure.step, failure.error.what.as_str(), failure.origin.as_str()),
        ("b", "told to fail", "test.yaml:1")
    );
    assert_eq!(seen, ["+a", "=a", "+b", "!b", "-b", "-a"]);
    assert_eq!(files(work.path()), ["b.fail"]);
}

#[test]
fn an_effect_that_was_never_begun_is_not_undone() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    for file in ["b.fail", "c.stick"] {
        std::fs::write(work.path().join(file), "").expect("fixture");
    }
    let touches = ["a", "b", "c"].map(|name| effect(Touch { path: work.path().join(name) })).into();
    let (finished, _) = run(program(root.path(), "r", vec![node("n", &[], touches)]), run_options());
    let finished = finished.expect("ran");
    assert_eq!(finished.failure.expect("failed").error.what, "told to fail");
    assert!(finished.stuck.is_empty(), "{:?}", finished.stuck);
    assert_eq!(files(work.path()), ["b.fail", "c.stick"]);
}

#[test]
fn what_was_there_before_is_not_ours_to_remove() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    std::fs::write(work.path().join("a"), "").expect("fixture");
    let (finished, _) = run(program(root.path(), "r", vec![touch("a", &[], work.path())]), run_options());
    assert!(finished.is_ok());
    assert_eq!(files(work.path()), ["a"]);
}

#[test]
fn undo_goes_on_past_what_is_stuck_and_recover_tries_it_again() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    std::fs::write(work.path().join("b.stick"), "").expect("fixture");
    std::fs::write(work.path().join("c.fail"), "").expect("fixture");
    let nodes = vec![touch("a", &[], work.path()), touch("b", &[0], work.path()), touch("c", &[1], work.path())];
    let (finished, seen) = run(program(root.path(), "r", nodes), run_options());
    let finished = finished.expect("ran");
    assert_eq!(finished.stuck.len(), 1);
    assert_eq!(finished.stuck[0].error.what, "told to stick");
    assert_eq!(seen[6..], ["-c", "?b", "-b", "-a"]);
    assert_eq!(files(work.path()), ["b", "b.stick", "c.fail"]);

    let again = recover(root.path(), &registry(), &mut Silent).expect("recover");
    assert!(matches!(again[..], [(_, Recovered::Stuck(_))]), "{again:?}");
    std::fs::remove_file(work.path().join("b.stick")).expect("unstick");
    let at_last = recover(root.path(), &registry(), &mut Silent).expect("recover");
    assert_eq!(at_last, [("r".to_owned(), Recovered::Undone)]);
    assert_eq!(files(work.path()), ["c.fail"]);
    assert!(!root.path().join("r").exists());
}

#[test]
fn what_a_stuck_effect_needs_stays_until_that_is_undone() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    for mark in ["d.stick", "d.hold", "e.fail"] {
        std::fs::write(work.path().join(mark), "").expect("fixture");
    }
    // d needs c, which needs a; b is nothing to it.
    let step = |name: &str, after: &[u32]| touch(name, after, work.path());
    let nodes = vec![step("a", &[]), step("b", &[0]), step("c", &[0]), step("d", &[2]), step("e", &[1, 3])];
    let (finished, _) = run(program(root.path(), "r", nodes), run_options());
    assert_eq!(finished.expect("ran").stuck.len(), 1);
    assert_eq!(files(work.path()), ["a", "c", "d", "d.hold", "d.stick", "e.fail"]);
    let again = recover(root.path(), &registry(), &mut Silent).expect("recover");
    assert!(matches!(again[..], [(_, Recovered::Stuck(_))]), "{again:?}");
    assert_eq!(files(work.path()), ["a", "c", "d", "d.hold", "d.stick", "e.fail"]);
    std::fs::remove_file(work.path().join("d.stick")).expect("unstick");
    let at_last = recover(root.path(), &registry(), &mut Silent).expect("recover");
    assert_eq!(at_last, [("r".to_owned(), Recovered::Undone)]);
    assert_eq!(files(work.path()), ["d.hold", "e.fail"]);
}

#[test]
fn a_kept_run_survives_recover_and_is_undone_on_request() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let mut kept = program(root.path(), "r", vec![touch("a", &[], work.path())]);
    kept.outputs = json!({ "path": { "$handle": { "step": "a", "effect": 0, "field": "path" } } });
    let finished = run(kept, lifecycle_engine::run::RunOptions { keep: true, ..run_options() }).0.expect("ran");
    assert!(finished.kept);
    assert_eq!(finished.outputs["path"], json!(work.path().join("a")));
    assert_eq!(recover(root.path(), &registry(), &mut Silent).expect("recover"), [("r".to_owned(), Recovered::Left)]);
    assert_eq!(files(work.path()), ["a"]);
    let names = RunNames { root: root.path().to_owned(), id: "r".into() };
    assert_eq!(undo_run(&names, &registry(), &mut Silent).expect("undo"), []);
    assert!(files(work.path()).is_empty());
    let twice = undo_run(&names, &registry(), &mut Silent).expect_err("gone");
    assert!(matches!(twice, RunError::Journal(JournalError::Absent { .. })));
}

#[test]
fn a_second_run_with_the_same_id_touches_nothing() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let keep = lifecycle_engine::run::RunOptions { keep: true, ..run_options() };
    run(program(root.path(), "r", vec![touch("a", &[], work.path())]), keep.clone()).0.expect("first");
    let (second, seen) = run(program(root.path(), "r", vec![touch("z", &[], work.path())]), keep);
    let Err(RunError::Journal(JournalError::Exists(other))) = second else { panic!("not refused: {second:?}") };
    assert_eq!((other.id.as_str(), other.segments[0].plan.as_str()), ("r", "test"));
    assert!(seen.is_empty());
    assert_eq!(files(work.path()), ["a"]);
    assert_eq!(files(root.path()), ["r"]);
}

#[test]
fn a_timeout_cancels_and_takes_back() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let mark = work.path().join("cancelled");
    let mut slow = node("slow", &[0], vec![effect(Sleep { ms: 60_000, mark: mark.clone() })]);
    options(&mut slow, Options { timeout: Some(Duration::from_millis(20)), ..Options::default() });
    let (finished, seen) = run(program(root.path(), "r", vec![touch("a", &[], work.path()), slow]), run_options());
    assert!(finished.expect("ran").failure.expect("timed out").error.what.contains("timeout of 20ms"));
    assert_eq!(seen, ["+a", "=a", "+slow", "!slow", "-a"]);
    assert_eq!(files(work.path()), ["cancelled"]);
}

#[test]
fn a_retried_step_is_undone_between_its_tries() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    std::fs::write(work.path().join("a.fail"), "").expect("fixture");
    let mut flaky = touch("a", &[], work.path());
    options(&mut flaky, Options { retries: 2, backoff: Duration::from_millis(1), ..Options::default() });
    let (finished, seen) = run(program(root.path(), "r", vec![flaky]), run_options());
    assert!(finished.expect("ran").failure.is_some());
    assert_eq!(seen, ["+a", "!a", "-a", "~a", "+a", "!a", "-a", "~a", "+a", "!a", "-a"]);
}

#[test]
fn a_step_whose_undo_is_stuck_is_not_tried_again_and_stays_on_record() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    for name in ["a.fail", "a.stick"] {
        std::fs::write(work.path().join(name), "").expect("fixture");
    }
    let mut flaky = touch("a", &[], work.path());
    options(&mut flaky, Options { retries: 2, backoff: Duration::from_millis(1), ..Options::default() });
    let (finished, seen) = run(program(root.path(), "r", vec![flaky]), run_options());
    let finished = finished.expect("ran");
    assert_eq!((finished.failure.expect("failed").step, finished.stuck.len()), ("a".into(), 1));
    assert_eq!(seen.iter().filter(|word| *word == "+a").count(), 1, "{seen:?}");
    std::fs::remove_file(work.path().join("a.stick")).expect("unstick");
    let at_last = recover(root.path(), &registry(), &mut Silent).expect("recover");
    assert_eq!(at_last, [("r".to_owned(), Recovered::Undone)]);
    assert_eq!(files(work.path()), ["a.fail"]);
}

#[test]
fn a_step_that_may_fail_does_not_stop_the_others() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    std::fs::write(work.path().join("a.fail"), "").expect("fixture");
    let mut optional = touch("a", &[], work.path());
    options(&mut optional, Options { continue_on_error: true, ..Options::default() });
    let (finished, seen) = run(program(root.path(), "r", vec![optional, touch("b", &[0], work.path())]), run_options());
    assert!(finished.expect("ran").failure.is_none());
    assert_eq!(seen, ["+a", "!a", "-a", "+b", "=b", "-b"]);
}

/// A step that fails, and whose undo waits for what another step makes after it.
fn waits_in_its_undo(work: &std::path::Path, how: Options) -> Vec<lifecycle_engine::program::Node> {
    let gate = work.join("gate");
    let mut flaky = node("flaky", &[], vec![effect(Gated { gate: gate.clone() })]);
    options(&mut flaky, how);
    let later = node("later", &[], vec![effect(Sleep { ms: 5, mark: work.join("never") })]);
    let opens = node("opens", &[1], vec![effect(Touch { path: gate })]);
    vec![flaky, later, opens]
}

#[test]
fn what_a_step_waits_for_before_its_next_try_holds_nobody_up() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let again = Options { retries: 1, backoff: Duration::from_millis(1), ..Options::default() };
    let (finished, seen) = run(program(root.path(), "r", waits_in_its_undo(work.path(), again)), run_options());
    assert_eq!(finished.expect("ran").failure.expect("failed twice").step, "flaky".into());
    let first = ["+flaky", "!flaky", "+later", "=later", "+opens", "=opens", "-flaky", "~flaky", "+flaky", "!flaky"];
    assert_eq!(seen[..first.len()], first, "{seen:?}");
}

#[test]
fn what_a_step_waits_for_that_may_fail_holds_nobody_up() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let optional = Options { continue_on_error: true, ..Options::default() };
    let (finished, seen) = run(program(root.path(), "r", waits_in_its_undo(work.path(), optional)), run_options());
    assert!(finished.expect("ran").failure.is_none());
    assert_eq!(seen[..7], ["+flaky", "!flaky", "+later", "=later", "+opens", "=opens", "-flaky"], "{seen:?}");
}

/// Sends a signal as soon as a step is being taken back.
struct Interrupts(std::os::fd::OwnedFd);

impl lifecycle_engine::events::Watch for Interrupts {
    fn event(&mut self, event: &lifecycle_engine::events::Event) {
        if matches!(event, lifecycle_engine::events::Event::Undoing { .. }) {
            let mut info = [0u8; 128];
            info[..4].copy_from_slice(&2i32.to_ne_bytes());
            rustix::io::write(&self.0, &info).expect("write");
        }
    }
}

#[test]
fn a_signal_is_heard_while_a_step_is_taken_back_for_its_next_try() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let (read, write) = rustix::pipe::pipe().expect("pipe");
    let mut flaky = node("flaky", &[], vec![effect(Gated { gate: work.path().join("gate") })]);
    options(&mut flaky, Options { retries: 1, ..Options::default() });
    let options = lifecycle_engine::run::RunOptions { cancel: Some(read.as_raw_fd()), keep: true, ..run_options() };
    let alone = std::rc::Rc::new(program(root.path(), "r", vec![flaky]));
    let finished = lifecycle_engine::run::run(alone, &registry(), options, &mut Interrupts(write)).expect("ran");
    assert_eq!((finished.cancelled, finished.stuck.len()), (Some(2), 0));
    assert_eq!(files(work.path()), ["gate", "gate.seen"], "its undo was stopped, and done again");
    assert!(files(root.path()).is_empty());
}

#[test]
fn no_more_steps_are_at_work_than_may_be_but_those_that_only_wait() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let sleeps = |name: String, ms| node(&name, &[], vec![effect(Sleep { ms, mark: work.path().join("never") })]);
    let mut nodes: Vec<_> = (0..9).map(|n| sleeps(format!("s{n}"), 3)).collect();
    let mut waits = sleeps("waits".into(), 1);
    waits.nature = lifecycle_engine::step::Nature::Waits;
    nodes.push(waits);
    let options = lifecycle_engine::run::RunOptions { jobs: std::num::NonZeroUsize::new(2), ..run_options() };
    let (finished, seen) = run(program(root.path(), "r", nodes), options);
    assert!(finished.expect("ran").failure.is_none());
    assert_eq!(seen[..3], ["+s0", "+s1", "+waits"], "{seen:?}");
    let mut at_work = 0;
    for word in seen.iter().filter(|word| word.ends_with(char::is_numeric)) {
        at_work += match word.as_bytes()[0] {
            b'+' => 1,
            b'=' => -1,
            _ => 0,
        };
        assert!(at_work <= 2, "{seen:?}");
    }
    assert_eq!(seen.iter().filter(|word| word.starts_with('=')).count(), 10);
}

#[test]
fn a_process_that_reports_what_its_program_cannot_have_done_is_not_believed_any_more() {
    let began = |n: u32| json!({ "began": { "node": n, "at": 1 } }).to_string();
    let done = |n: u32| json!({ "done": { "node": n, "at": 2, "outcomes": [] } }).to_string();
    for lines in [
        vec![began(1), began(1), done(1), done(2)],
        vec![began(1), done(1), began(1), began(2)],
        vec![began(7)],
        vec![began(3)],
        std::iter::repeat_n(began(1), 100_000).collect(),
    ] {
        let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
        let mut maker = node("maker", &[], vec![effect(Says { lines })]);
        maker.makes_site = true;
        let inside = |name, after| lifecycle_engine::program::Node { site: Some(0), ..node(name, after, Vec::new()) };
        let mut never = touch("never", &[2], work.path());
        never.effects.clear();
        let nodes = vec![maker, inside("one", &[0]), inside("two", &[1]), never];
        let (finished, seen) = run(program(root.path(), "r", nodes), run_options());
        let failure = finished.expect("ran").failure.expect("it is distrusted");
        assert!(failure.error.what.contains("cannot have done"), "{failure:?}");
        assert!(seen.len() < 10, "{seen:?}");
    }
}

#[test]
fn the_main_steps_exit_code_is_the_runs_and_ends_it() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let mark = work.path().join("cancelled");
    let main = node("main", &[], vec![effect(Sleep { ms: 5, mark: work.path().join("never") })]);
    let server = node("server", &[], vec![effect(Sleep { ms: 60_000, mark })]);
    let mut both = program(root.path(), "r", vec![main, server]);
    both.main = vec![0];
    assert_eq!(run(both, run_options()).0.expect("ran").exit, Some(7));
    assert_eq!(files(work.path()), ["cancelled"]);
}

#[test]
fn a_signal_cancels_and_takes_back() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let (read, write) = rustix::pipe::pipe().expect("pipe");
    // A signalfd's record begins with the signal's number.
    let mut info = [0u8; 128];
    info[..4].copy_from_slice(&2i32.to_ne_bytes());
    rustix::io::write(&write, &info).expect("write");
    let slow = node("slow", &[0], vec![effect(Sleep { ms: 60_000, mark: work.path().join("cancelled") })]);
    let options = lifecycle_engine::run::RunOptions { cancel: Some(read.as_raw_fd()), ..run_options() };
    let (finished, seen) = run(program(root.path(), "r", vec![touch("a", &[], work.path()), slow]), options);
    assert_eq!(finished.expect("ran").cancelled, Some(2));
    assert_eq!(seen, ["+a", "=a", "+slow", "-a"]);
    assert_eq!(files(work.path()), ["cancelled"]);
}

#[test]
fn injected_faults_take_everything_back() {
    for inject in [Inject::Before, Inject::After] {
        for at in 0..3 {
            let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
            let nodes =
                vec![touch("a", &[], work.path()), touch("b", &[0], work.path()), touch("c", &[1], work.path())];
            let options = lifecycle_engine::run::RunOptions { fail_at: Some((at, inject)), ..run_options() };
            let failure = run(program(root.path(), "r", nodes), options).0.expect("ran").failure.expect("failed");
            assert!(failure.error.what.contains("on purpose"), "{failure:?}");
            assert!(files(work.path()).is_empty() && files(root.path()).is_empty(), "{inject:?} {at}");
        }
    }
}

#[test]
fn a_torn_last_line_did_not_happen_and_any_other_is_an_error_that_names_the_byte() {
    let (root, work) = (tempdir().expect("root"), tempdir().expect("work"));
    let keep = lifecycle_engine::run::RunOptions { keep: true, ..run_options() };
    run(program(root.path(), "r", vec![touch("a", &[], work.path())]), keep).0.expect("ran");
    let names = RunNames { root: root.path().to_owned(), id: "r".into() };
    let path = names.dir().join("journal");
    let whole = std::fs::read(&path).expect("journal");
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').expect("lines") + 1;
    std::fs::write(&path, &whole[..whole.len() - 5]).expect("tear");
    assert_eq!(journal::read(&names).expect("torn"), journal::parse(&path, &whole[..last]).expect("whole"));
    assert_eq!(recover(root.path(), &registry(), &mut Silent).expect("recover"), [("r".to_owned(), Recovered::Undone)]);
    assert!(files(work.path()).is_empty(), "what was not settled is taken back");

    let mut bad = whole.clone();
    let second = whole.iter().position(|b| *b == b'\n').expect("lines") + 1;
    bad[second + 3] = b'{';
    let error = journal::parse(&path, &bad).expect_err("corrupt");
    let JournalError::Corrupt { byte, line, .. } = &error else { panic!("{error:?}") };
    assert!((second..last).contains(byte) && *line == 2, "{error}");
}

#[test]
fn a_journal_of_another_version_is_refused() {
    let line = b"{\"run\":{\"version\":2,\"id\":\"r\"}}\n";
    let error = journal::parse(std::path::Path::new("journal"), line).expect_err("refused");
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_directory_without_a_journal_is_a_run_that_did_nothing() {
    let root = tempdir().expect("root");
    std::fs::create_dir(root.path().join("r")).expect("fixture");
    std::fs::create_dir(root.path().join(".gone-1-x")).expect("fixture");
    assert_eq!(recover(root.path(), &registry(), &mut Silent).expect("recover"), [("r".to_owned(), Recovered::Undone)]);
    assert!(files(root.path()).is_empty());
}
