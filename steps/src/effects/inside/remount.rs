//! A second look at a mount that the container has already.

use super::root::{Root, clean};
use crate::mounts::Options;
use crate::mounts::api::{self, Api};
use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Changes the attributes of a mount in the container's root, and the options of its file system where that is the container's own.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RootRemount {
    /// Where the container sees it.
    pub destination: PathBuf,
    /// Options, as the runtime-spec writes them.
    pub options: Vec<String>,
    /// Which calls to use.
    #[serde(default, skip_serializing_if = "Api::is_default")]
    pub api: Api,
}

impl EffectDef for RootRemount {
    const KIND: &'static str = "root.remount";

    fn examples(_scratch: &Path) -> Vec<Self> {
        // The root itself is a mount; nothing else is sure to be there.
        let options = ["bind", "remount", "ro", "nosuid"].map(str::to_owned);
        [Api::Detached, Api::Classic]
            .map(|api| Self { destination: "/".into(), options: options.clone().into(), api })
            .into()
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        format!("change the mount on {} ({})", clean(&self.destination).display(), self.options.join(","))
    }

    fn apply(&self, _before: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let options = Options::parse(&self.options).map_err(EffectError::new)?;
        let root = Root::of(cx)?;
        let destination = clean(&self.destination);
        let top = root
            .find(&destination)?
            .ok_or_else(|| EffectError::new(format!("nothing is mounted on {}", destination.display())))?;
        if destination != Path::new("/") && root.is_itself(&top)? {
            return Err(EffectError::new(format!("{} leads to the root itself", destination.display()))
                .help("a symlink of the image leads there; the mount before this entry is another one"));
        }
        if !options.super_flags.is_empty() || !options.data.is_empty() {
            api::reconfigure_file_system(self.api, &top, &options, &destination)?;
        }
        match self.api {
            Api::Detached => api::configure(&top, &options, None)?,
            Api::Classic => api::classic_configure(&top, &options, &destination)?,
        }
        Ok(Applied::done())
    }

    fn undo(&self, _record: &Record, _cx: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}
