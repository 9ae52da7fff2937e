//! Each step, from its own examples: whole plans, run by the program.

use std::fs;
use std::time::Duration;

use lifecycle_engine::step::Example;
use lifecycle_steps::facts::Machine;
use lifecycle_tests::While;
use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::{Need, Test, TestResult, note};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::rounds::Sample;

use crate::runs::{Scenario, Way};

/// How many kills in the run and how many in undo, where not all are asked for.
const SAMPLE: usize = 12;

/// One test for each example of each kind of step.
pub fn tests() -> Vec<Test> {
    let test = |(kind, index, example): (&str, usize, &'static Example)| {
        let way = Way { sample: Sample::from_environment(SAMPLE), ..Way::default() };
        let test = Test::new(format!("step::{kind}::{index}"), move |lab| hold(lab, example, way));
        test.needs(&needs(example)).limit(Duration::from_secs(3600))
    };
    examples().map(test).collect()
}

/// Every example of every kind of step, with its kind and its number.
pub fn examples() -> impl Iterator<Item = (&'static str, usize, &'static Example)> {
    let kinds: Vec<_> = lifecycle_steps::registry().steps().map(|kind| (kind.kind, kind.examples)).collect();
    let of = |(kind, examples): (&'static str, &'static [Example])| (0..).zip(examples).map(move |(k, e)| (kind, k, e));
    kinds.into_iter().flat_map(of)
}

/// What the example says that it needs. All run as root: only then has a test a machine of its own.
pub fn needs(example: &Example) -> Vec<Need> {
    use lifecycle_engine::facts::Host;
    let of = |need: &'static str| match need {
        // The harness gives it one.
        "root" | "bundle" => Need::Root,
        "run" => Need::Other(false, "a run to work on; the law over the built-in plans has one"),
        fact => {
            let value = Machine.read(fact);
            Need::Other(!value.is_null() && value != false, fact)
        }
    };
    // systemd knows processes by the ids that the machine's own pid namespace has for them, so its examples have no lab.
    let by_systemd = example.needs.contains(&"systemd.running");
    let needs = example.needs.iter().copied().filter(|need| !(by_systemd && *need == "root"));
    (!by_systemd).then_some(Need::Root).into_iter().chain(needs.map(of)).collect()
}

pub fn hold(lab: &Lab, example: &Example, way: Way) -> TestResult {
    let dir = lab.dir().display().to_string();
    // The run's id, and with it its cgroups' names, begins with the plan's; files go where this test looks.
    let mut lines: Vec<String> = example.plan.lines().map(|line| line.replace("/tmp/", &format!("{dir}/"))).collect();
    let name = lines.iter_mut().find(|line| line.starts_with("plan:")).ok_or("the example has no name")?;
    *name = format!("plan: {}", lab.token());
    let file = lab.dir().join("plan.yaml");
    let scopes = format!(":lifecycle:{}-", lab.token());
    let text = lines
        .join("\n")
        .replace(":lifecycle:", &scopes)
        .replace("/lifecycle-examples/", &format!("/lifecycle-examples/{}/", lab.token()));
    fs::write(&file, text).when(|| "writing the plan".into())?;
    let mut run = vec!["plan.yaml".into()];
    if example.needs.contains(&"bundle") {
        let bundle = Bundle::create(lab.dir().join("bundle"))?;
        run.extend(["-p".into(), format!("bundle={}", bundle.dir().display()).into()]);
    }
    let scenario = Scenario { lab, scope: lab.scope(), prior: Vec::new(), run, neighbour: None, kept: &|_| false, way };
    note(scenario.hold()?);
    Ok(())
}
