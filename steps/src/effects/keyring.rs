//! Session keyrings, session-keyring(7).

use std::ffi::CString;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::label;
use super::prelude::dies_with_init;
use crate::sys;

/// The attribute for the label of new keys, proc_pid_attr(5).
const KEYCREATE: &str = "keycreate";

/// Makes a session keyring for this process and those that it becomes or makes.
#[derive(Debug, Serialize, Deserialize)]
pub struct JoinKeyring {
    /// Its name.
    pub name: String,
    /// Its SELinux label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
}

impl EffectDef for JoinKeyring {
    const KIND: &'static str = "join_keyring";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { name: "_ses.example".into(), selinux_label: None }]
    }

    fn describe(&self) -> String {
        let label = self.selinux_label.as_ref().map(|label| format!(", labelled {label}")).unwrap_or_default();
        format!("new session keyring {}{label}", self.name)
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let name =
            CString::new(self.name.as_str()).map_err(|_| EffectError::new("the keyring's name has a NUL byte"))?;
        if let Some(label) = &self.selinux_label {
            label::write(KEYCREATE, label).map_err(label::refused)?;
        }
        let joined = sys::keyring::join_session_keyring(&name);
        if self.selinux_label.is_some() {
            // Keys that the container makes itself get the label of their maker.
            label::write(KEYCREATE, "")?;
        }
        match joined {
            Ok(_) => Ok(Applied::done()),
            // A kernel without keys has none of the caller's either.
            Err(e) if e.raw_os_error() == Some(Errno::ENOSYS as i32) => Ok(Applied::done()),
            Err(e) => Err(EffectError::call(format!("keyctl(JOIN_SESSION_KEYRING, {:?})", self.name), e)
                .help("a quota of keys may be used up, see /proc/key-users; --no-new-keyring does without")),
        }
    }

    dies_with_init!();
}
