//! Session keyrings, session-keyring(7).

use std::ffi::CString;
use std::fmt;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Later, Outcome};
use nix::errno::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::label;
use super::prelude::dies_with_init;
use crate::sys;
use crate::sys::keyring::{OWNER_SEARCH, POSSESSOR_ALL};

/// The attribute for the label of new keys, proc_pid_attr(5).
const KEYCREATE: &str = "keycreate";

/// Which keyring it is. Only the journal knows the name: who does not have the keyring can neither make one before, nor find it, nor see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionKeyring {
    /// Its name.
    pub name: String,
    /// Its serial number; 0 on a kernel without keys.
    pub serial: i32,
}

impl Outcome for SessionKeyring {
    const NAME: &'static str = "session keyring";
}

impl fmt::Display for SessionKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session keyring {:x}", self.serial)
    }
}

/// Makes a session keyring for this process and those that it becomes or makes, or joins the container's.
#[derive(Debug, Serialize, Deserialize)]
pub struct JoinKeyring {
    /// How its name begins.
    pub name: String,
    /// The container's, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Later<SessionKeyring>>,
    /// Its SELinux label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
}

impl EffectDef for JoinKeyring {
    const KIND: &'static str = "join_keyring";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { name: "_ses.example".into(), own: None, selinux_label: None }]
    }

    fn describe(&self) -> String {
        let label = self.selinux_label.as_ref().map(|label| format!(", labelled {label}")).unwrap_or_default();
        match &self.own {
            Some(own) => format!("{own}, or a new one{label}"),
            None => format!("new session keyring {}{label}", self.name),
        }
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let own = match &self.own {
            Some(Later::Now(own)) => Some(own.clone()),
            Some(Later::Handle(handle)) => Some(cx.resolve(handle)?),
            None => None,
        };
        if let Some(label) = &self.selinux_label {
            label::write(KEYCREATE, label).map_err(label::refused)?;
        }
        let joined = self.join(own);
        if self.selinux_label.is_some() {
            // Keys that the container makes itself get the label of their maker.
            label::write(KEYCREATE, "")?;
        }
        joined.and_then(|keyring| Applied::outcome(&keyring))
    }

    dies_with_init!();
}

impl JoinKeyring {
    fn join(&self, own: Option<SessionKeyring>) -> Result<SessionKeyring, EffectError> {
        match own {
            Some(own) => match join(&own.name)? {
                serial if serial == own.serial => Ok(own),
                // The container has left its own, and this is another's.
                _ => self.make(),
            },
            None => self.make(),
        }
    }

    /// One whose name nobody else has used, since nobody could know it.
    fn make(&self) -> Result<SessionKeyring, EffectError> {
        let mut random = [0; 16];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(|e| EffectError::call("getrandom()", e))?;
        let name = format!("{}.{:032x}", self.name, u128::from_ne_bytes(random));
        let serial = join(&name)?;
        if serial != 0 {
            // `exec` comes later, and finds it by its name. By default every process of the same user on the host could see it, and link it to its own.
            sys::keyring::set_permissions(serial, POSSESSOR_ALL | OWNER_SEARCH)
                .map_err(|e| EffectError::call(format!("keyctl(SETPERM, {serial})"), e))?;
        }
        Ok(SessionKeyring { name, serial })
    }
}

/// The serial number; 0 on a kernel without keys, which has none of the caller's either.
fn join(name: &str) -> Result<i32, EffectError> {
    let name = CString::new(name).map_err(|_| EffectError::new("the keyring's name has a NUL byte"))?;
    match sys::keyring::join_session_keyring(&name) {
        Ok(serial) => Ok(serial),
        Err(e) if e.raw_os_error() == Some(Errno::ENOSYS as i32) => Ok(0),
        Err(e) => Err(EffectError::call(format!("keyctl(JOIN_SESSION_KEYRING, {name:?})"), e)
            .help("a quota of keys may be used up, see /proc/key-users; --no-new-keyring does without")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::testing::in_child;
    use crate::sys::keyring::{new_session_keyring, set_permissions};

    fn effect() -> JoinKeyring {
        JoinKeyring { name: "_ses.lifecycle-test".into(), own: None, selinux_label: None }
    }

    /// The session keyring of the process, by its name: nobody else can see it.
    fn seen(name: &str) -> Vec<i32> {
        let keys = std::fs::read_to_string("/proc/keys").unwrap();
        let named = keys.lines().filter(|line| line.contains(name));
        named.map(|line| i32::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn only_who_knows_a_containers_keyring_joins_it() {
        in_child(|| {
            let Ok(outside) = new_session_keyring() else { return };
            let own = effect().join(None).unwrap();
            assert_eq!(seen(&own.name), [own.serial]);
            in_child(|| {
                new_session_keyring().unwrap();
                assert_eq!(seen(&own.name), [0_i32; 0], "seen from outside");
                assert_eq!(effect().join(Some(own.clone())).unwrap(), own);
                // Another is under its name, as when the container has left its own.
                let impostor = SessionKeyring { serial: outside, ..own.clone() };
                let new = effect().join(Some(impostor)).unwrap();
                assert!(![own.serial, outside].contains(&new.serial) && new.name != own.name, "{new:?}");
            });
        });
    }

    #[test]
    fn a_keyring_that_another_has_made_under_a_containers_name_is_not_joined() {
        in_child(|| {
            let Ok(planted) = sys::keyring::join_session_keyring(c"_ses.lifecycle-test") else { return };
            set_permissions(planted, POSSESSOR_ALL | OWNER_SEARCH).unwrap();
            in_child(|| {
                new_session_keyring().unwrap();
                assert_ne!(effect().join(None).unwrap().serial, planted);
            });
        });
    }
}
