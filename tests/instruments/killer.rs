//! The killer, on programs whose calls are known.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lifecycle_tests::PATIENCE;
use lifecycle_tests::harness::TestResult;
use lifecycle_tests::killer::{Ending, SyscallPoint, Victim, When, count, run_killed_at, run_meddling, run_within};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;

fn busybox(arguments: &[&str], dir: &Path) -> Command {
    let busybox = program::find("busybox").unwrap_or_default();
    let mut command = Command::new(busybox);
    command.args(arguments).current_dir(dir);
    command
}

/// The one point of a call.
fn only<'a>(points: &'a [SyscallPoint], call: &str) -> Result<&'a SyscallPoint, String> {
    let mut found = points.iter().filter(|point| point.call.starts_with(call));
    match (found.next(), found.next()) {
        (Some(point), None) => Ok(point),
        _ => Err(format!("not exactly one {call}: {points:?}")),
    }
}

pub fn calls_that_change_the_machine_are_counted(lab: &Lab) -> TestResult {
    let outcome = count(&mut busybox(&["mkdir", "a", "b"], lab.dir()))?;
    assert_eq!(outcome.ending, Ending::Exited(0), "{}", outcome.stderr);
    assert!(!outcome.killed);
    let calls: Vec<&str> = outcome.points.iter().map(|point| point.call).collect();
    assert_eq!(calls, ["mkdir", "mkdir"]);
    assert!(outcome.points.iter().all(|point| point.process == 0));
    assert_eq!(outcome.points[1].index, 1);
    Ok(())
}

pub fn before_means_not_done_and_after_means_done(lab: &Lab) -> TestResult {
    let dir = lab.dir().join("a");
    let command = || busybox(&["mkdir", "a"], lab.dir());
    let outcome = count(&mut command())?;
    let point = only(&outcome.points, "mkdir")?;
    fs::remove_dir(&dir)?;
    for (when, done) in [(When::Before, false), (When::After, true)] {
        for victim in [Victim::Engine, Victim::Caller] {
            let outcome = run_killed_at(&mut command(), point, victim, when)?;
            assert!(outcome.killed);
            assert_eq!(outcome.ending, Ending::Signaled(9));
            assert_eq!(dir.exists(), done, "{victim} killed {when} {point}");
            if done {
                fs::remove_dir(&dir)?;
            }
        }
    }
    Ok(())
}

/// A shell whose child, which still runs busybox, makes a directory; then the shell makes one, and speaks.
const PARENT_AND_CHILD: &[&str] = &["sh", "-c", "(mkdir child; true) & wait; mkdir parent; echo end"];

pub fn a_child_can_be_killed_and_the_parent_runs_on(lab: &Lab) -> TestResult {
    let dir = lab.dir();
    let outcome = count(&mut busybox(PARENT_AND_CHILD, dir))?;
    assert_eq!(outcome.stdout, "end\n", "{}", outcome.stderr);
    let point = outcome.points.iter().find(|point| point.call == "mkdir").ok_or("no mkdir")?;
    assert_ne!(point.process, 0, "{:?}", outcome.points);
    fs::remove_dir(dir.join("child"))?;
    fs::remove_dir(dir.join("parent"))?;
    let outcome = run_killed_at(&mut busybox(PARENT_AND_CHILD, dir), point, Victim::Caller, When::Before)?;
    assert!(outcome.killed);
    assert_eq!((outcome.ending, outcome.stdout.as_str()), (Ending::Exited(0), "end\n"), "{}", outcome.stderr);
    assert!(!dir.join("child").exists() && dir.join("parent").exists());
    Ok(())
}

pub fn the_engine_can_be_killed_at_its_childs_call(lab: &Lab) -> TestResult {
    let dir = lab.dir();
    let outcome = count(&mut busybox(PARENT_AND_CHILD, dir))?;
    let point = outcome.points.iter().find(|point| point.call == "mkdir").ok_or("no mkdir")?;
    fs::remove_dir(dir.join("child"))?;
    fs::remove_dir(dir.join("parent"))?;
    let outcome = run_killed_at(&mut busybox(PARENT_AND_CHILD, dir), point, Victim::Engine, When::Before)?;
    assert!(outcome.killed);
    assert_eq!(outcome.ending, Ending::Signaled(9));
    assert_eq!(outcome.stdout, "");
    // The child was let go and runs on.
    let deadline = Instant::now() + PATIENCE;
    while !dir.join("child").exists() {
        assert!(Instant::now() < deadline, "the child did not run on");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!dir.join("parent").exists());
    Ok(())
}

pub fn another_programs_calls_do_not_count(lab: &Lab) -> TestResult {
    let outcome = count(&mut busybox(&["sh", "-c", "/bin/mkdir a; true"], lab.dir()))?;
    assert!(lab.dir().join("a").exists());
    let calls: Vec<&str> = outcome.points.iter().map(|point| point.call).collect();
    assert!(calls.contains(&"execve") && !calls.contains(&"mkdir"), "{calls:?}");
    Ok(())
}

pub fn a_command_that_hangs_is_killed_at_the_time_limit(lab: &Lab) -> TestResult {
    let start = Instant::now();
    let outcome = run_within(&mut busybox(&["sleep", "60"], lab.dir()), Duration::from_millis(100))?;
    assert_eq!(outcome.ending, Ending::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(10));
    Ok(())
}

pub fn every_point_can_be_reached_again(lab: &Lab) -> TestResult {
    let script = &["sh", "-c", "mkdir a; ( mkdir b; mkdir c ) ; echo x > f; rm f; rmdir a b c"];
    let outcome = count(&mut busybox(script, lab.dir()))?;
    assert!(outcome.points.len() >= 8, "{:?}", outcome.points);
    for (number, point) in outcome.points.iter().enumerate() {
        for when in [When::Before, When::After] {
            // What the killed shell's child still does must not meet the next run.
            let dir = lab.dir().join(format!("{number} {when}"));
            fs::create_dir(&dir)?;
            let outcome = run_killed_at(&mut busybox(script, &dir), point, Victim::Engine, when)?;
            assert!(outcome.killed, "{point} was not reached: {:?}", outcome.points);
            assert_eq!(outcome.points.last(), Some(point));
        }
    }
    Ok(())
}

pub fn every_one_of_many_calls_is_counted(lab: &Lab) -> TestResult {
    let script = "i=0; while [ $i -lt 1500 ]; do echo $i; i=$((i+1)); done";
    let outcome = count(&mut busybox(&["sh", "-c", script], lab.dir()))?;
    assert_eq!(outcome.points.len(), 1500);
    Ok(())
}

pub fn somebody_who_meddles_comes_between_two_calls(lab: &Lab) -> TestResult {
    let (a, b) = (lab.dir().join("a"), lab.dir().join("b"));
    for (when, seen) in [(When::Before, [0, 1]), (When::After, [1, 2])] {
        let mut counts = Vec::new();
        let mut meddle = || counts.push([&a, &b].iter().filter(|dir| dir.exists()).count());
        let outcome = run_meddling(&mut busybox(&["mkdir", "a", "b"], lab.dir()), "mkdir", when, &mut meddle)?;
        assert_eq!((outcome.ending, outcome.killed), (Ending::Exited(0), false), "{}", outcome.stderr);
        assert_eq!(counts, seen, "{when}");
        fs::remove_dir(&a)?;
        fs::remove_dir(&b)?;
    }
    Ok(())
}
