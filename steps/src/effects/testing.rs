//! Applying and undoing one effect, as the engine does.

use lifecycle_engine::effect::{Applied, Cx, EffectDef, Fds, Outcomes, Record, RunNames, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::site::block_on;
use rustix::process::{WaitOptions, waitpid};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// The state that effects of one run share.
pub(crate) struct Bench {
    run: RunNames,
    step: Arc<str>,
    outcomes: Outcomes,
    pub(crate) fds: Fds,
}

impl Bench {
    pub(crate) fn new(root: &Path) -> Self {
        let run = RunNames { root: root.to_owned(), id: "test".into() };
        Self { run, step: "step".into(), outcomes: Outcomes::default(), fds: Fds::default() }
    }

    /// As in a site that has this namespace for itself.
    pub(crate) fn owning(mut self, namespace: &'static str) -> Self {
        self.fds.mark(namespace);
        self
    }

    /// As after the first effect of another step, which had this outcome.
    pub(crate) fn knowing(mut self, step: &str, outcome: Value) -> Self {
        self.outcomes.put(&step.into(), 0, outcome);
        self
    }

    pub(crate) fn with<T>(&mut self, body: impl FnOnce(&mut Cx) -> T) -> T {
        let Self { run, step, outcomes, fds } = self;
        body(&mut Cx { run, step, effect: 0, outcomes, fds, site: None, outlives: false, output: &mut |_| {} })
    }

    /// Applies it to its end; the record is what a journal would hold, also after a failure.
    pub(crate) fn apply(&mut self, effect: &impl EffectDef) -> (Record, Result<Value, EffectError>) {
        let mut record = Record::default();
        let answer = self.with(|cx| {
            record.before = effect.before(cx)?;
            match effect.apply(&record.before, cx)? {
                Applied::Done(outcome) => Ok(outcome),
                Applied::Pending(pending) => {
                    record.started = Some(pending.started());
                    block_on(pending, cx)
                }
                Applied::Site { .. } | Applied::UndoRun => panic!("not an effect of this kind"),
            }
        });
        record.outcome = answer.as_ref().ok().cloned();
        (record, answer)
    }

    /// Makes it, and is cut off before it is put into its place.
    pub(crate) fn cut(&mut self, effect: &impl EffectDef, recorded: bool) -> Record {
        self.with(|cx| {
            let before = effect.before(cx).unwrap();
            let Applied::Pending(pending) = effect.apply(&before, cx).unwrap() else { panic!("it does not wait") };
            Record { before, started: recorded.then(|| pending.started()), ..Record::default() }
        })
    }

    pub(crate) fn undo(&mut self, effect: &impl EffectDef, record: &Record) -> Result<(), EffectError> {
        self.with(|cx| match effect.undo(record, cx)? {
            Undone::Pending(pending) => block_on(pending, cx).map(drop),
            _ => Ok(()),
        })
    }
}

/// Runs the body in a process with a mount namespace of its own, from which nothing reaches the host. A panic in it fails the test.
pub(crate) fn in_mount_namespace(body: impl FnOnce()) {
    in_child(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        rustix::mount::mount_change(
            "/",
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
        )
        .unwrap();
        body();
    });
}

/// Runs the body in a child with one thread. A panic in it fails the test.
///
/// A fork of the harness itself would hang on whatever lock another test holds at that moment, so the harness is started anew, for this one
/// test, and forks there.
pub(crate) fn in_child(body: impl FnOnce()) {
    const INSIDE: &str = "LIFECYCLE_TEST_CHILD";
    if std::env::var_os(INSIDE).is_some() {
        let child = crate::sys::clone::fork(|| {
            body();
            0
        });
        let (_, status) = waitpid(Some(child.unwrap()), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0), "the test's body failed; its message is above");
        return;
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let mut harness = std::process::Command::new(std::env::current_exe().unwrap());
    let output = harness.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(INSIDE, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the test {name} was not found");
}
