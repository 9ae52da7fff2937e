//! A directory of the host as the container's root.

use super::root::{ROOT, open_host};
use crate::effects::owns;
use crate::mounts::api::{self, Api};
use crate::mounts::{Bind, Options, Propagation, table};
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Binds the root file system on itself, so that it is a mount of its own, which nothing leaves. Unless it is asked to be a slave, nothing enters it
/// either.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootBind {
    /// Where the root file system is on the host. Absolute.
    pub source: PathBuf,
    /// What the host mounts below it later is seen in it, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub slave: bool,
    /// Which calls to use.
    #[serde(default, skip_serializing_if = "Api::is_default")]
    pub api: Api,
}

impl EffectDef for RootBind {
    const KIND: &'static str = "root.bind";

    fn examples(scratch: &Path) -> Vec<Self> {
        let ways = [(false, Api::Detached), (false, Api::Classic), (true, Api::Detached)];
        ways.map(|(slave, api)| Self { source: scratch.to_owned(), slave, api }).into()
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("use {} as the root file system", self.source.display())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        owns(cx, "mnt", "a root")?;
        let source = open_host(&self.source)?;
        isolate_parent(&source)?;
        // A copy of a slave has the same master.
        let propagation = if self.slave { Propagation::Slave } else { Propagation::Private };
        let options = Options { propagation: vec![(propagation, true)], ..Options::default() };
        let root: OwnedFd = match self.api {
            Api::Detached => {
                let mount = api::clone_tree(&source, &self.source, Bind::Recursive)?;
                api::configure(&mount, &options, None)?;
                api::attach(&mount, &source, &self.source)?;
                mount
            }
            Api::Classic => {
                api::classic_bind(&source, Bind::Recursive, &source, &self.source)?;
                let top = open_host(&self.source)?;
                api::classic_configure(&top, &options, &self.source)?;
                top
            }
        };
        cx.fds.put(ROOT, root);
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

/// Takes the mount that the engine has made of the root file system, in mounts that the container shares with its caller.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootOpen {
    /// Where it is mounted. Absolute.
    pub source: PathBuf,
}

impl EffectDef for RootOpen {
    const KIND: &'static str = "root.open";

    fn examples(_scratch: &Path) -> Vec<Self> {
        // A mount that is there on every machine, and in the namespace of an example private.
        vec![Self { source: "/proc".into() }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("use what is mounted on {} as the root file system", self.source.display())
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let root = open_host(&self.source)?;
        let own = |mount: &table::Mount| {
            !mount.shared && std::fs::canonicalize(&self.source).is_ok_and(|path| path == mount.target)
        };
        // What is mounted in it would be mounted in the mounts around it, or in those of others.
        if !table::containing(&root)?.as_ref().is_some_and(own) {
            return Err(EffectError::new(format!("{} is no mount of the container's own", self.source.display()))
                .help("a `rootfs.sources` with `shares_mounts` makes it one"));
        }
        cx.fds.put(ROOT, root);
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

/// The mount around the root must not be shared: the root's own would appear on the host, and pivot_root refuses it.
fn isolate_parent(source: impl AsFd) -> Result<(), EffectError> {
    if let Some(parent) = table::containing(source)?.filter(|parent| parent.shared) {
        api::classic_propagation(&parent.target, Propagation::Private, false)?;
    }
    Ok(())
}
