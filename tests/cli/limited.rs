//! A container with limits, and what its cgroup's files say of them on whichever version this machine has their controller.

use std::fs;
use std::path::{Path, PathBuf};

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::{TestResult, note};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::{hierarchies, remove_cgroup};
use lifecycle_tests::{Result, While};
use serde_json::Value;

use crate::scene::Scene;

/// What a version of cgroups does with the field.
pub(crate) enum Expect {
    /// These files say this. A text with a newline in it is one of the file's lines.
    Files(&'static [(&'static str, &'static str)]),
    /// It has no such thing.
    Refused,
}

/// A field under test.
pub(crate) struct Field {
    /// Its path below `linux`, as an error has to name it.
    pub(crate) name: &'static str,
    pub(crate) resources: Value,
    /// Version 1: the controller, and what it does.
    pub(crate) v1: (&'static str, Expect),
    /// Version 2.
    pub(crate) v2: (&'static str, Expect),
}

/// Where a controller is on this machine.
pub(crate) enum There {
    V1(PathBuf),
    V2(PathBuf),
    Nowhere,
}

/// By the options of its mount for version 1, by the controllers that the top has for version 2.
pub(crate) fn there(v1: &str, v2: &str) -> Result<There> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").when(|| "reading the mounts".into())?;
    let has = |line: &str| line.rsplit(' ').next().is_some_and(|options| options.split(',').any(|name| name == v1));
    let own = mounts.lines().find(|line| line.contains(" - cgroup ") && has(line));
    if let Some(mount) = own.and_then(|line| line.split(' ').nth(4)) {
        return Ok(There::V1(mount.into()));
    }
    let unified = hierarchies()?.into_iter().find(|hierarchy| hierarchy.unified);
    let Some(unified) = unified else { return Ok(There::Nowhere) };
    let controllers = fs::read_to_string(unified.mount.join("cgroup.controllers")).unwrap_or_default();
    let found = controllers.split_whitespace().any(|name| name == v2);
    Ok(if found { There::V2(unified.mount) } else { There::Nowhere })
}

/// Whether a cgroup of this hierarchy has the file: looked for in one of the test's own. A controller of version 2 that its top does not give
/// away (the run will have it do so) has all of its files.
pub(crate) fn kernel_has(lab: &Lab, mount: &Path, file: &str) -> Result<bool> {
    let at = mount.join(format!("{}-probe", lab.token()));
    fs::create_dir(&at).when(|| format!("making {}", at.display()))?;
    let controller = file.split('.').next().unwrap_or_default();
    let given = fs::read_to_string(at.join("cgroup.controllers"));
    let hidden = given.is_ok_and(|given| controller != "cgroup" && !given.split_whitespace().any(|c| c == controller));
    let has = hidden || at.join(file).exists();
    remove_cgroup(&at)?;
    Ok(has)
}

/// A container from a bundle with these resources, created and not started.
pub(crate) struct Container<'a> {
    pub(crate) scene: Scene<'a>,
    pub(crate) lab: &'a Lab,
    pub(crate) bundle: Bundle,
    pub(crate) id: String,
}

impl<'a> Container<'a> {
    pub(crate) fn prepare(lab: &'a Lab, resources: &Value) -> Result<Self> {
        let mut scene = Scene::new(lab)?;
        let bundle = Bundle::create(lab.dir().join("bundle"))?;
        bundle.runs(&["sleep", "1000"])?;
        bundle.in_cgroup(&format!("/{}-c", lab.token()))?;
        bundle.edit(|config| {
            for (key, value) in resources.as_object().into_iter().flatten() {
                config["linux"]["resources"][key] = value.clone();
            }
        })?;
        scene.begins_here()?;
        Ok(Self { scene, lab, bundle, id: format!("{}-c1", lab.token()) })
    }

    pub(crate) fn arguments(&self, plan: &str) -> Vec<String> {
        let mut words = vec!["run".to_owned(), plan.to_owned(), "-p".into(), format!("id={}", self.id)];
        if plan == "oci/create" {
            words.extend(["-p", "bundle=bundle", "--keep"].map(String::from));
        }
        words
    }

    pub(crate) fn create(&self) {
        self.scene.told(&self.arguments("oci/create")).ended(0);
    }

    pub(crate) fn refused(&self, words: &[&str]) -> TestResult {
        self.scene.told(&self.arguments("oci/create")).ended_badly().says(words);
        Ok(self.scene.nothing_left()?)
    }

    /// The cgroup's directory, as the published state names it.
    pub(crate) fn cgroup(&self, controller: &str) -> std::result::Result<PathBuf, Box<dyn std::error::Error>> {
        let state = fs::read_to_string(self.lab.state_root().join(&self.id).join("state.json"))?;
        let state: Value = serde_json::from_str(&state)?;
        let path = state["lifecycle"]["cgroups"][controller].as_str();
        Ok(path.ok_or_else(|| format!("no cgroup of {controller:?} in {state}"))?.into())
    }

    pub(crate) fn shows(&self, controller: &str, files: &[(&str, &str)]) -> TestResult {
        let at = self.cgroup(controller)?;
        for (file, expected) in files {
            let text = fs::read_to_string(at.join(file)).map_err(|error| format!("{file}: {error}"))?;
            let found = match expected.strip_suffix('\n') {
                Some(line) => text.lines().any(|there| there == line),
                None => text.trim() == *expected,
            };
            assert!(found, "{} is {text:?}, not {expected:?}", at.join(file).display());
            note(format!("{} is {}", at.join(file).display(), expected.trim()));
        }
        Ok(())
    }

    pub(crate) fn delete(&self) -> TestResult {
        self.scene.told(&self.arguments("oci/delete")).ended(0);
        Ok(self.scene.nothing_left()?)
    }
}

/// Seen in the cgroup's files, or refused by name.
pub(crate) fn hold(lab: &Lab, field: &Field) -> TestResult {
    let container = Container::prepare(lab, &field.resources)?;
    let (controller, expect, mount) = match there(field.v1.0, field.v2.0)? {
        There::V1(mount) => (field.v1.0, &field.v1.1, mount),
        There::V2(mount) => ("", &field.v2.1, mount),
        There::Nowhere => {
            note(format!("{}: no such controller here, and refused", field.name));
            return container.refused(&[field.name.split('.').next().unwrap_or_default()]);
        }
    };
    let Expect::Files(files) = expect else {
        note(format!("{}: this version of cgroups has no such thing, and it is refused", field.name));
        return container.refused(&[field.name]);
    };
    for (file, _) in *files {
        if !kernel_has(lab, &mount, file)? {
            note(format!("{}: this kernel has no {file}, and it is refused", field.name));
            return container.refused(&[field.name, file]);
        }
    }
    container.create();
    container.shows(controller, files)?;
    container.delete()
}

/// A test of one field: its name, the resources, and for each version the controller and what its files show.
macro_rules! field {
    ($test:ident, $name:literal, $resources:tt, $v1:literal $v1_files:expr, $v2:literal $v2_files:expr) => {
        pub fn $test(lab: &Lab) -> TestResult {
            let resources = serde_json::json!($resources);
            $crate::limited::hold(
                lab,
                &$crate::limited::Field { name: $name, resources, v1: ($v1, $v1_files), v2: ($v2, $v2_files) },
            )
        }
    };
}

pub(crate) use field;
