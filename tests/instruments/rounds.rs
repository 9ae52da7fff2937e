//! The law finds out what breaks it.

use std::process::Command;

use lifecycle_tests::harness::{TestResult, note};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;
use lifecycle_tests::rounds::{Case, Sample, Tried};

fn hold(lab: &Lab, apply: &'static str, undo: &'static str) -> Result<Tried, lifecycle_tests::Error> {
    let shell = |script: &'static str| {
        let mut command = Command::new(program::find("busybox").unwrap_or_default());
        command.args(["sh", "-c", script]).current_dir(lab.dir());
        command
    };
    let case = Case {
        lab,
        apply: &|| shell(apply),
        undo: &|| shell(undo),
        reset: &|| Ok(()),
        kept: &|_| false,
        sample: Sample::Full,
    };
    case.hold()
}

pub fn a_lawful_pair_passes_every_kill(lab: &Lab) -> TestResult {
    // Redirections are the shell's own doing: a child would run on when the shell is killed, as no process of the engine's may.
    let tried =
        hold(lab, "echo x > intent; echo x > a; echo x > b", "[ ! -e intent ] || { rm -f a b && rm -f intent; }")?;
    assert!(tried.killed >= 20, "{tried}");
    assert!(tried.missed <= 2, "{tried}");
    note(tried);
    Ok(())
}

pub fn a_change_before_its_intent_is_found_out(lab: &Lab) -> TestResult {
    let error = hold(lab, "mkdir d; echo d > intent", "[ ! -e intent ] || { rm -rf d; rm intent; }");
    let error = error.err().ok_or("a leak went unnoticed")?.to_string();
    assert!(error.contains("residue") && error.contains("/d  directory"), "{error}");
    Ok(())
}

pub fn an_undo_that_cannot_be_repeated_is_found_out(lab: &Lab) -> TestResult {
    let error = hold(lab, "mkdir d", "rmdir d");
    let error = error.err().ok_or("it went unnoticed")?.to_string();
    assert!(error.starts_with("the second undo"), "{error}");
    Ok(())
}
