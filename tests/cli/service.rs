//! `plans/ci/service.yaml`: what a CI job needs.

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::Scope;
use lifecycle_tests::program;

use crate::scene::Scene;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        a_ci_job_prints_both_logs_by_step_and_leaves_nothing,
        a_ci_job_ends_with_its_clients_exit_code,
        #[needs(Program("ip"))]
        the_host_has_no_address_in_a_jobs_network,
        a_server_that_ends_is_found_out_by_the_probe,
        every_step_of_a_ci_job_can_fail_and_leaves_nothing,
    ];
    tests.into_iter().map(|test| test.within("service").needs(&[Root, Program("perl")])).collect()
}

/// The built-in plan under the lab's name, so that the names of its cgroups tell whose they are.
fn service(lab: &Lab) -> lifecycle_tests::Result<(Scene<'_>, Scope)> {
    use lifecycle_tests::While;
    let mut scene = Scene::new(lab)?;
    let plan = program::source().join("plans/ci/service.yaml");
    let plan = std::fs::read_to_string(&plan).when(|| format!("reading {}", plan.display()))?;
    scene.write("service.yaml", &plan.replacen("plan: ci/service", &format!("plan: {}", lab.token()), 1))?;
    scene.begins_here()?;
    Ok((scene, lab.scope()))
}

pub fn a_ci_job_prints_both_logs_by_step_and_leaves_nothing(lab: &Lab) -> TestResult {
    let (scene, scope) = service(lab)?;
    let told = scene.told(&["run", "service.yaml"]).ended(0);
    let both = format!("{}{}", told.out, told.err);
    for line in ["server/init | listening", "server/init | a client is here", "client/init | hello from the server"] {
        assert!(both.lines().any(|printed| printed == line), "it does not print {line:?}:\n{both}");
    }
    Ok(scene.nothing_left_in(&scope)?)
}

pub fn a_ci_job_ends_with_its_clients_exit_code(lab: &Lab) -> TestResult {
    let (scene, scope) = service(lab)?;
    for code in [3, 125] {
        let client = format!("client=[sh, -c, 'exit {code}']");
        scene.told(&["run", "service.yaml", "-p", &client]).ended(code);
        scene.nothing_left_in(&scope)?;
    }
    Ok(())
}

/// Neither the host nor anything outside the two containers takes part in their network.
pub fn the_host_has_no_address_in_a_jobs_network(lab: &Lab) -> TestResult {
    let (scene, scope) = service(lab)?;
    // Not what the server says of a client: it says that of the probe, too.
    let script = "client=[sh, -c, 'echo the job runs; exec sleep 30']";
    let mut run = scene.start(&["run", "service.yaml", "-p", script])?;
    run.wait_for("client/init | the job runs")?;
    let addresses = program::output("ip", &["-o", "addr", "show"])?;
    assert!(!addresses.contains("10.77."), "{addresses}");
    let routes = program::output("ip", &["route", "show", "table", "all"])?;
    assert!(!routes.contains("10.77."), "{routes}");
    let links = program::output("ip", &["-o", "link", "show"])?;
    assert_eq!(links.matches(": lc").count(), 3, "a bridge and two ends: {links}");
    assert_eq!(links.matches(&format!("alias lifecycle:{}", lab.token())).count(), 3, "{links}");
    run.signal(rustix::process::Signal::INT)?;
    run.end()?.ended(130);
    Ok(scene.nothing_left_in(&scope)?)
}

pub fn a_server_that_ends_is_found_out_by_the_probe(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let (_, scope) = service(lab)?;
    let plan = std::fs::read_to_string(lab.dir().join("service.yaml"))?;
    scene.write("service.yaml", &plan.replace("within: 30s", "within: 300ms"))?;
    scene.begins_here()?;
    let told = scene.told(&["run", "service.yaml", "-p", "server=[sh, -c, 'echo giving up; exit 1']"]).ended(1);
    told.says(&["step `ready` (probe.tcp)", "10.77.0.2", "everything was taken back"]);
    Ok(scene.nothing_left_in(&scope)?)
}

pub fn every_step_of_a_ci_job_can_fail_and_leaves_nothing(lab: &Lab) -> TestResult {
    let (scene, scope) = service(lab)?;
    let plan: serde_json::Value =
        serde_json::from_str(&scene.told(&["plan", "service.yaml", "--format", "json"]).ended(0).out)?;
    let steps: Vec<&str> =
        plan["steps"].as_array().into_iter().flatten().filter_map(|s| s["address"].as_str()).collect();
    assert!(steps.len() > 20, "{steps:?}");
    for step in steps {
        for place in ["before", "after", "crash"] {
            let at = format!("{step}:{place}");
            let told = scene.told(&["run", "service.yaml", "--fail-at", &at]);
            assert_eq!(told.code, if place == "crash" { 137 } else { 1 }, "at {at}: {}{}", told.out, told.err);
            scene.told(&["recover"]).ended(0);
            scene.nothing_left_in(&scope).map_err(|error| format!("at {at}: {error}"))?;
        }
    }
    Ok(())
}
