//! Kernel parameters of namespaces.

use std::io::Write;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use pathrs::error::ErrorKind;
use pathrs::flags::OpenFlags;
use pathrs::procfs::{ProcfsBase, ProcfsHandle};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::owns;
use super::prelude::dies_with_init;

/// Writes a kernel parameter that belongs to a namespace, which must not be the engine's.
///
/// By a procfs that is made for this or proven to be one (CVE-2025-52881): what the container has mounted on /proc does not matter.
#[derive(Debug, Serialize, Deserialize)]
pub struct WriteSysctl {
    /// Its path below /proc/sys.
    pub path: String,
    /// What is written.
    pub value: String,
    /// The namespace that it belongs to, as in /proc/PID/ns.
    pub namespace: String,
}

impl EffectDef for WriteSysctl {
    const KIND: &'static str = "sysctl";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { path: "net/ipv4/ip_forward".into(), value: "1".into(), namespace: "net".into() }]
    }

    fn describe(&self) -> String {
        format!("sysctl {} = {}", self.path.replace('/', "."), self.value)
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        owns(cx, &self.namespace, &format!("the sysctl {}", self.path))?;
        let failed = |e: pathrs::error::Error| {
            let what = format!("open(/proc/sys/{}, O_WRONLY)", self.path);
            match e.kind() {
                ErrorKind::OsError(Some(errno)) => EffectError::call(what, std::io::Error::from_raw_os_error(errno)),
                _ => EffectError::new(format!("{what}: {e}")),
            }
            .help("the kernel may lack this parameter, or its owner may not be the container's root")
        };
        let proc = ProcfsHandle::new().map_err(failed)?;
        let path = format!("sys/{}", self.path);
        let mut file = proc.open(ProcfsBase::ProcRoot, path, OpenFlags::O_WRONLY).map_err(failed)?;
        file.write_all(self.value.as_bytes()).map_err(|e| {
            EffectError::call(format!("write(/proc/sys/{}, {:?})", self.path, self.value), e)
                .help("the kernel does not take this value")
        })?;
        Ok(Applied::done())
    }

    dies_with_init!();
}
