//! Session keyrings, session-keyring(7).

use std::ffi::CString;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::prelude::dies_with_init;
use crate::sys;

/// Makes a session keyring for this process and those that it becomes or makes.
#[derive(Debug, Serialize, Deserialize)]
pub struct JoinKeyring {
    /// Its name.
    pub name: String,
}

impl EffectDef for JoinKeyring {
    const KIND: &'static str = "join_keyring";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { name: "_ses.example".into() }]
    }

    fn describe(&self) -> String {
        format!("new session keyring {}", self.name)
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let name =
            CString::new(self.name.as_str()).map_err(|_| EffectError::new("the keyring's name has a NUL byte"))?;
        match sys::keyring::join_session_keyring(&name) {
            Ok(_) => Ok(Applied::done()),
            // A kernel without keys has none of the caller's either.
            Err(e) if e.raw_os_error() == Some(Errno::ENOSYS as i32) => Ok(Applied::done()),
            Err(e) => Err(EffectError::call(format!("keyctl(JOIN_SESSION_KEYRING, {:?})", self.name), e)
                .help("a quota of keys may be used up, see /proc/key-users; --no-new-keyring does without")),
        }
    }

    dies_with_init!();
}
