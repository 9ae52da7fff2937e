//! A container that a test looks into: a bundle, an id, and what is done with them.

use std::path::PathBuf;

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Error, Result, While};
use serde_json::Value;

use crate::scene::{Scene, Told};

/// A bundle in a lab.
pub struct Boxed<'a> {
    /// The program in its lab.
    pub scene: Scene<'a>,
    /// The bundle.
    pub bundle: Bundle,
    /// The container's id.
    pub id: String,
    lab: &'a Lab,
}

impl<'a> Boxed<'a> {
    /// A container that runs a shell script.
    pub fn runs(lab: &'a Lab, script: &str) -> Result<Self> {
        let bundle = Bundle::create(lab.dir().join("bundle"))?;
        bundle.runs(&["sh", "-c", script])?;
        Ok(Self { scene: Scene::new(lab)?, bundle, id: format!("{}-c1", lab.token()), lab })
    }

    /// Changes its config.json; the machine is to be as it is now in the end.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.bundle.edit(change)?;
        self.scene.begins_here()
    }

    /// `lifecycle run PLAN` with the id, and the bundle where the plan takes one.
    #[track_caller]
    pub fn plan(&self, plan: &str, more: &[&str]) -> Told {
        let mut words = vec!["run".to_owned(), plan.to_owned(), "-p".into(), format!("id={}", self.id)];
        if matches!(plan, "oci/create" | "oci/run") {
            words.extend(["-p".into(), "bundle=bundle".into()]);
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        self.scene.told(&words)
    }

    /// Creates it and leaves it there; the pid of its first process.
    #[track_caller]
    pub fn create(&self) -> Result<i32> {
        self.plan("oci/create", &["--keep"]).ended(0);
        self.pid()
    }

    /// Deletes it, whatever it does.
    #[track_caller]
    pub fn delete(&self) -> Told {
        self.plan("oci/delete", &["-p", "force=true"])
    }

    /// Its state.
    pub fn state(&self) -> Result<Value> {
        let file = self.lab.state_root().join(&self.id).join("state.json");
        let text = std::fs::read_to_string(&file).when(|| format!("reading {}", file.display()))?;
        serde_json::from_str(&text).when(|| format!("parsing {text}"))
    }

    fn pid(&self) -> Result<i32> {
        let state = self.state()?;
        let pid = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.ok_or_else(|| Error::new("reading the state", format!("no pid in {state}")))
    }

    /// A path in the lab that hooks and agents may write to.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }
}
