//! Plans that are saved, compared, checked and held against snapshots.

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::program;

use crate::scene::{self, Scene};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        a_saved_plan_runs_exactly_as_shown,
        #[needs(Program("busybox"))]
        a_saved_plan_is_refused_once_the_config_has_changed,
        a_saved_plan_is_refused_where_the_facts_are_others,
        #[needs(Program("busybox"))]
        two_bundles_and_two_hosts_are_compared_effect_by_effect,
        ten_mistakes_get_ten_good_messages,
        check_has_nothing_to_say_of_the_built_in_plans,
        #[needs(Program("busybox"))]
        a_dry_run_needs_no_root_and_touches_nothing,
        a_snapshot_in_ci_fails_readably_and_is_accepted_on_purpose,
    ];
    tests.into_iter().map(|test| test.within("saved").needs(&[Root])).collect()
}

pub fn a_saved_plan_runs_exactly_as_shown(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene
        .told(&["plan", "hello", "-o", "saved", "--", "echo", "as planned"])
        .ended(0)
        .prints(&["exec echo 'as planned'"]);
    scene.begins_here()?;
    assert_eq!(scene.told(&["run", "saved"]).ended(0).out, "as planned\n");
    scene.told(&["run", "saved", "--", "echo", "otherwise"]).ended(125).says(&["a saved plan already has its"]);
    scene.told(&["run", "saved", "-p", "hostname=other"]).ended(125).says(&["already has the parameter `hostname`"]);
    scene.told(&["plan", "saved", "saved", "--diff"]).ended(0).prints(&["no difference\n"]);
    Ok(scene.nothing_left()?)
}

pub fn a_saved_plan_is_refused_once_the_config_has_changed(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let bundle = Bundle::create(lab.dir().join("bundle"))?;
    bundle.runs(&["echo", "from the bundle"])?;
    bundle.in_cgroup(&format!("/{}/c1", lab.token()))?;
    scene.told(&["plan", "oci/run", "-p", "id=c1", "-p", "bundle=bundle", "-o", "saved"]).ended(0);
    assert_eq!(scene.told(&["run", "saved"]).ended(0).out, "from the bundle\n");
    bundle.runs(&["echo", "something else"])?;
    scene.begins_here()?;
    let told = scene.told(&["run", "saved"]).ended(125);
    told.says(&["bundle/config.json", "something else", "Nothing was done"]);
    Ok(scene.nothing_left()?)
}

pub fn a_saved_plan_is_refused_where_the_facts_are_others(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    scene.told(&["plan", "hello", "-o", "saved", "--", "true"]).ended(0);
    let saved = std::fs::read_to_string(lab.dir().join("saved"))?;
    assert!(saved.contains("\"overlay.host\": \"whole\""), "{saved}");
    scene.begins_here()?;
    // Another user has other capabilities, ids and ways to make an overlay.
    let copy = std::path::Path::new("/tmp").join(lab.token());
    std::fs::write(&copy, &saved)?;
    let mut command = scene.command(&["run", &copy.to_string_lossy()]);
    let told = scene::told(scene::as_nobody(command.current_dir("/")));
    std::fs::remove_file(copy)?;
    told.ended(125).says(&["euid", "Nothing was done"]);
    Ok(scene.nothing_left()?)
}

pub fn two_bundles_and_two_hosts_are_compared_effect_by_effect(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let one = Bundle::create(lab.dir().join("one"))?;
    let other = Bundle::create(lab.dir().join("other"))?;
    one.runs(&["true"])?;
    other.runs(&["false"])?;
    other.edit(|config| config["hostname"] = "elsewhere".into())?;
    let told = scene.told(&["plan", "one", "other", "--diff", "-p", "id=c1"]).ended(1);
    told.prints(&["create/exec", "-true +false", "create/names", "elsewhere"]);
    scene.told(&["plan", "one", "one", "--diff", "-p", "id=c1"]).ended(0).prints(&["no difference\n"]);
    let facts = |host: &str| program::source().join(format!("snapshots/facts/{host}.json")).display().to_string();
    let (hybrid, v2) = (facts("root-hybrid"), facts("root-v2"));
    let told = scene.told(&["plan", "hello", "--diff", "--facts", &hybrid, "--facts", &v2]);
    assert_eq!(told.code, 0, "hello makes no cgroup: {}", told.out);
    let arguments = [
        "plan",
        "oci/create",
        "-p",
        "id=c1",
        "-p",
        "bundle=/bundles/batch",
        "--diff",
        "--facts",
        &hybrid,
        "--facts",
        &v2,
    ];
    scene.told(&arguments).ended(1).prints(&["cgroup.layout", "/sys/fs/cgroup/lifecycle/c1."]);
    scene.told(&["plan", &hybrid, &v2, "--diff"]).ended(1).prints(&["cgroup.layout"]);
    Ok(())
}

/// Ten mistakes of a person who writes a plan, each in a step of its own, and ten messages in one go.
pub fn ten_mistakes_get_ten_good_messages(lab: &Lab) -> TestResult {
    const PLAN: &str = r#"plan: mistakes
params:
  id: { type: name, required: true }
  size: { type: size, default: 64 potatoes }
  unused: { type: string, default: x }
run: "${params.id}"
steps:
  spec:
    uses: spec.laod
    with: { bundle: . }
  directory:
    uses: fs.directory
    with: { path: /tmp/x, mode: 0755 }
  file:
    uses: fs.file
    with: { path: /tmp/x/y, text: hello, ownr: 0 }
  init:
    uses: process.clone
    with: { new: [mount, pid], namespaces: "${directory.path}" }
  wait:
    uses: process.wait
    with: { process: "${inti.process}" }
  answer:
    uses: probe.tcp
    with: { address: 127.0.0.1 }
  chicken:
    uses: command.run
    needs: [egg]
    with: { args: ["true"] }
  egg:
    uses: command.run
    needs: [chicken]
    with: { args: ["true"] }
  shown:
    uses: command.run
    with: { args: [echo, "${init.proces}"] }
  later:
    uses: command.run
    timeout: soon
    with: { args: ["true"] }
"#;
    let scene = Scene::new(lab)?;
    scene.write("mistakes.yaml", PLAN)?;
    let told = scene.told(&["check", "mistakes.yaml"]).ended(1);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(program::source().join("snapshots/plans"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("ten_mistakes", told.err));
    let messages = told.err.lines().filter(|line| line.trim_start().starts_with('×')).count();
    assert!(messages >= 10, "{messages} messages:\n{}", told.err);
    Ok(())
}

pub fn check_has_nothing_to_say_of_the_built_in_plans(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let top = program::source().join("plans");
    let plans = ["hello", "oci/create", "oci/start", "oci/run", "oci/delete", "ci/container", "ci/service"];
    let files: Vec<String> =
        plans.iter().map(|plan| top.join(plan).with_extension("yaml").display().to_string()).collect();
    for names in [plans.map(String::from).to_vec(), files] {
        let told = scene.told(&[vec!["check".into()], names].concat()).ended(0);
        assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    }
    scene.told(&["check", "no-such-plan"]).ended(1).says(&["there is no file and no built-in plan `no-such-plan`"]);
    scene.told(&["check"]).ended(2).says(&["<PLAN>"]);
    Ok(scene.nothing_left()?)
}

/// A plan needs no root, touches nothing and is the same every time, whoever asks.
pub fn a_dry_run_needs_no_root_and_touches_nothing(lab: &Lab) -> TestResult {
    let mut scene = Scene::new(lab)?;
    let bundle = Bundle::create(lab.dir().join("bundle"))?;
    bundle.runs(&["true"])?;
    scene.begins_here()?;
    let facts = program::source().join("snapshots/facts/root-v2.json").display().to_string();
    let of_a_host = ["plan", "ci/service", "--facts", &facts];
    for arguments in [&["plan", "hello"][..], &of_a_host, &["plan", "oci/run", "-p", "bundle=bundle"]] {
        let as_root = scene.told(arguments).ended(0).out;
        assert_eq!(scene.told(arguments).ended(0).out, as_root, "{arguments:?} is not the same twice");
        let as_user = || scene::told(scene::as_nobody(&mut scene.command(arguments)));
        let first = as_user().ended(0).out;
        assert_eq!(as_user().ended(0).out, first, "{arguments:?} is not the same twice");
        scene.nothing_left()?;
    }
    Ok(())
}

pub fn a_snapshot_in_ci_fails_readably_and_is_accepted_on_purpose(lab: &Lab) -> TestResult {
    let scene = Scene::new(lab)?;
    let facts = program::source().join("snapshots/facts/root-v2.json").display().to_string();
    let plan = std::fs::read_to_string(program::source().join("plans/hello.yaml"))?;
    scene.write("mine.yaml", &plan)?;
    let arguments = ["snapshot", "mine.yaml", "--facts", &facts];
    scene.told(&arguments).ended(1).prints(&["has no snapshot snapshots/mine.txt"]);
    let update = [&arguments[..], &["--update"]].concat();
    scene.told(&update).ended(0).prints(&["stored in snapshots/mine.txt"]);
    scene.told(&arguments).ended(0).prints(&["mine.yaml: as in its snapshot\n"]);
    scene.write("mine.yaml", &plan.replace("/proc/kcore, ", ""))?;
    scene.told(&arguments).ended(1).prints(&["mine.yaml: differs from", "mask /proc/kcore", "--update"]);
    scene.told(&update).ended(0);
    scene.told(&arguments).ended(0);
    Ok(())
}
