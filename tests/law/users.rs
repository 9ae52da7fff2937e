//! The law for somebody who is not root: the same plans in a user namespace of their own, killed at a sample of places.

use std::fs;
use std::os::unix::fs::chown;
use std::time::Duration;

use lifecycle_tests::bundle::{Bundle, rootless_spec};
use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::rounds::Sample;
use serde_json::json;

use crate::plans::hold;
use crate::runs::Way;

/// How many kills in the run and how many in undo, where not all are asked for.
const SAMPLE: usize = 16;
/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// One test for each plan.
pub fn tests() -> Vec<Test> {
    let tests = [Test::new("user::plan::hello", hello), Test::new("user::plan::oci/run", bundle)];
    let needs = [Need::Root, Need::Program("busybox")];
    tests.map(|test| test.needs(&needs).limit(Duration::from_secs(3600))).into()
}

fn way() -> Way {
    Way { sample: Sample::from_environment(SAMPLE), faults: false, user: Some(NOBODY), ..Way::default() }
}

fn own_the_lab(lab: &Lab) -> std::io::Result<()> {
    fs::create_dir_all(lab.state_root())?;
    [lab.dir().to_owned(), lab.state_root()].iter().try_for_each(|dir| chown(dir, Some(NOBODY), Some(NOBODY)))
}

fn hello(lab: &Lab) -> TestResult {
    own_the_lab(lab)?;
    hold(lab, ["hello", "--", "true"].map(Into::into).into(), way())
}

fn bundle(lab: &Lab) -> TestResult {
    let bundle = Bundle::create(lab.dir().join("bundle"))?;
    bundle.edit(|config| {
        *config = rootless_spec();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", "exit 3"]);
        for mappings in ["uidMappings", "gidMappings"] {
            config["linux"][mappings][0]["hostID"] = json!(NOBODY);
        }
    })?;
    // The mountpoints that a bundle lacks are the user's to make.
    chown(bundle.rootfs(), Some(NOBODY), Some(NOBODY))?;
    own_the_lab(lab)?;
    hold(lab, ["oci/run", "-p", "id=web", "-p", "bundle=bundle"].map(Into::into).into(), way())
}
