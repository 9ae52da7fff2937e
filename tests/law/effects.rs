//! Each effect by itself, without an engine around it: a process of its own applies it, with the journal that the engine would keep, and
//! another takes it back from that journal.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lifecycle_engine::effect::{Class, Effect};
use lifecycle_tests::harness::{Need, Test, TestResult, note};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::{Change, Part};
use lifecycle_tests::rounds::{Case, Sample};
use lifecycle_tests::{Result, While};

use crate::around::{self, Standing};
use crate::subject::{Act, Order, VARIABLE};

/// How many kills in apply and how many in undo, where not all are asked for.
const SAMPLE: usize = 16;

/// One test for each example of each kind of effect.
pub fn tests() -> Vec<Test> {
    let registry = lifecycle_steps::registry();
    let mut tests = Vec::new();
    for kind in registry.effects() {
        // Asked for here only to be counted.
        for (index, effect) in (kind.examples)(Path::new("/nonexistent")).iter().enumerate() {
            let (name, class) = (kind.kind, effect.class());
            let test = Test::new(format!("effect::{name}::{index}"), move |lab| hold(lab, name, index, class));
            // systemd knows processes by the ids that the machine's own pid namespace has for them.
            let lab: &[Need] = if around::by_systemd(name) { &[] } else { &[Need::Root] };
            tests.push(test.needs(lab).needs(around::needs(name)).limit(Duration::from_secs(600)));
        }
    }
    tests
}

fn hold(lab: &Lab, kind: &str, index: usize, class: Class) -> TestResult {
    // The effect may name things outside (a cgroup, a link) after the last component, which no other test has.
    let scratch = lab.dir().join("scratch").join(lab.token());
    let journal = lab.dir().join("journal");
    let registry = lifecycle_steps::registry();
    fs::create_dir_all(&scratch).when(|| format!("making {}", scratch.display()))?;
    fs::create_dir_all(lab.state_root().join(lab.token())).when(|| "making the run's directory".into())?;
    let effect = registry.effect(kind).and_then(|kind| (kind.examples)(&scratch).into_iter().nth(index));
    let _standing = Standing::make(kind, effect.ok_or("no such example")?.as_ref(), &scratch)?;
    let order = |act| Order {
        act,
        kind: kind.to_owned(),
        index,
        class,
        scratch: scratch.clone(),
        journal: journal.clone(),
        root: lab.state_root(),
        id: lab.token().to_owned(),
    };
    let command = |act| {
        let mut command = Command::new(std::env::current_exe().unwrap_or_default());
        command.env(VARIABLE, order(act).to_text());
        command
    };
    let reset = || -> Result<()> {
        match fs::remove_file(&journal) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).when(|| "removing the journal".into()),
            _ => Ok(()),
        }
    };
    // What is kept on purpose is in the scratch directory, nowhere else.
    let in_scratch = scratch.display().to_string();
    let keeps = |change: &Change| match (class, kind) {
        (Class::Kept, _) => true,
        // Mountpoints in a root on disk: to remove one could tear a mount out of another container.
        (_, "root.mount" | "root.cgroup") => change.was.is_none() && change.is.as_deref() == Some("directory 0755 0:0"),
        _ => false,
    };
    let kept = |change: &Change| change.part == Part::Files && change.name.starts_with(&in_scratch) && keeps(change);
    let case = Case {
        lab,
        apply: &|| command(Act::Apply),
        undo: &|| command(Act::Undo),
        reset: &reset,
        kept: &kept,
        sample: Sample::from_environment(SAMPLE),
    };
    note(case.hold()?);
    Ok(())
}

/// The example that an order names.
pub fn example(order: &Order) -> Option<Box<dyn Effect>> {
    let registry = lifecycle_steps::registry();
    let kind = registry.effect(&order.kind)?;
    (kind.examples)(&order.scratch).into_iter().nth(order.index)
}
