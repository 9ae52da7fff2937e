//! The bundle fixture, held against the runtimes that are known to work.

use std::fs;
use std::process::Command;
use std::time::Duration;

use lifecycle_tests::bundle::{Bundle, rootless_spec, spec};
use lifecycle_tests::harness::TestResult;
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::Part;
use lifecycle_tests::program::output;
use serde_json::Value;

pub fn the_fixture_is_what_runc_generates(lab: &Lab) -> TestResult {
    for (arguments, ours) in [(&["spec"][..], spec()), (&["spec", "--rootless"], rootless_spec())] {
        let dir = lab.dir().join(arguments.join(""));
        fs::create_dir(&dir)?;
        let dir = dir.display().to_string();
        output("runc", &[arguments, &["--bundle", &dir]].concat())?;
        let theirs: Value = serde_json::from_str(&fs::read_to_string(format!("{dir}/config.json"))?)?;
        assert_eq!(theirs, ours, "{arguments:?}");
    }
    Ok(())
}

pub fn runc_runs_the_bundle_and_leaves_the_machine_as_it_was(lab: &Lab) -> TestResult {
    let bundle = Bundle::create(lab.dir().join("bundle"))?;
    bundle.runs(&["sh", "-c", "echo $$ in $(hostname)"])?;
    bundle.in_cgroup(&format!("/{}/c1", lab.token()))?;
    let root = lab.dir().join("runc");
    fs::create_dir(&root)?;
    let before = lab.snapshot()?;
    let run =
        Command::new("runc").arg("--root").arg(&root).args(["run", "--bundle"]).arg(bundle.dir()).arg("c1").output()?;
    assert_eq!(String::from_utf8_lossy(&run.stdout), "1 in runc\n", "{}", String::from_utf8_lossy(&run.stderr));
    // runc leaves the parents of a cgroup path that it made; all else must be as before.
    let parent = format!("/{}", lab.token());
    let difference =
        before.returns_within(&lab.scope(), Duration::from_secs(2), |change| change.name.ends_with(&parent))?;
    assert!(difference.is_empty(), "{difference}");
    for dir in lab.snapshot()?.part(Part::Cgroups).keys() {
        fs::remove_dir(dir)?;
    }
    Ok(())
}

pub fn crun_reads_the_bundle(lab: &Lab) -> TestResult {
    let bundle = Bundle::create(lab.dir().join("bundle"))?;
    bundle.runs(&["true"])?;
    let root = lab.dir().join("crun").display().to_string();
    let dir = bundle.dir().display().to_string();
    // crun refuses to run a container on a hybrid machine; what it makes of the config it says before that.
    let run = Command::new("crun")
        .args(["--root", &root, "--cgroup-manager=disabled", "run", "--bundle", &dir])
        .arg(lab.token())
        .output()?;
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() || errors.contains("cgroup"), "{errors}");
    Ok(())
}
