//! The law where the newer calls are not to be had: every example of a step, and the plans of a whole container, with the facts masked and the calls
//! hidden. A small sample: what is new here is the other way through the effects, not the engine.

use std::time::Duration;

use lifecycle_tests::harness::{Need, Test};
use lifecycle_tests::older;
use lifecycle_tests::rounds::Sample;

use crate::plans::{Oci, hold};
use crate::runs::Way;
use crate::steps;

/// How many kills in the run and how many in undo, where not all are asked for.
const STEP: usize = 2;
const PLAN: usize = 8;

/// One test for each example, and for each plan.
pub fn tests() -> Vec<Test> {
    let way = |number| Way { older: true, faults: false, sample: Sample::from_environment(number), ..Way::default() };
    // With its fact masked there is no systemd.
    let needs_masked =
        |needs: &[&str]| needs.iter().any(|need| older::FACTS.contains(need) || *need == "systemd.running");
    let examples = steps::examples().filter(|(_, _, example)| !needs_masked(example.needs));
    let mut tests: Vec<Test> = examples
        .map(|(kind, index, example)| {
            let test =
                Test::new(format!("masked::step::{kind}::{index}"), move |lab| steps::hold(lab, example, way(STEP)));
            test.needs(&steps::needs(example))
        })
        .collect();
    let run = Oci { prior: &[], plan: "oci/run", force: false, hooks: false, args: &["sh", "-c", "exit 3"] };
    tests.push(
        Test::new("masked::plan::oci/run", move |lab| run.hold(lab, way(PLAN))).needs(&[Need::Program("busybox")]),
    );
    let words = ["hello", "--", "true"];
    tests.push(Test::new("masked::plan::hello", move |lab| hold(lab, words.map(Into::into).into(), way(PLAN))));
    tests.into_iter().map(|test| test.needs(&[Need::Root]).limit(Duration::from_secs(3600))).collect()
}
