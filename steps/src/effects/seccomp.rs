//! The filter of system calls.

use std::cell::OnceCell;
use std::path::Path;

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use nix::libc;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::prelude::dies_with_init;
use crate::seccomp::compile;
use crate::spec::{Seccomp, SeccompFlag};
use crate::sys::seccomp::set_filter;

/// Loads a filter into the process; nothing takes it away again, and exec passes it on.
///
/// The program is compiled while planning. It is not part of the effect's data: the profile that it comes from says more, and a saved plan gets
/// the filter of the library that runs it.
#[derive(Debug, Serialize, Deserialize)]
pub struct LoadFilter {
    /// The profile.
    pub profile: Seccomp,
    /// What it was compiled to.
    #[serde(skip)]
    pub program: OnceCell<Vec<u8>>,
}

impl EffectDef for LoadFilter {
    const KIND: &'static str = "seccomp_filter";

    fn examples(_: &Path) -> Vec<Self> {
        let profile = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["kexec_load"], "action": "SCMP_ACT_ERRNO" }] }"#;
        // A constant of this program: it parses, or the tests fail.
        serde_json::from_str(profile).map(|profile| Self { profile, program: OnceCell::new() }).into_iter().collect()
    }

    fn describe(&self) -> String {
        let calls: usize = self.profile.syscalls.iter().map(|rule| rule.names.len()).sum();
        let default = serde_json::to_value(self.profile.default_action).unwrap_or_default();
        let default = default.as_str().unwrap_or_default().trim_start_matches("SCMP_ACT_").to_lowercase();
        format!("seccomp filter: {} rules for {calls} system calls; all others: {default}", self.profile.syscalls.len())
    }

    fn apply(&self, _: &Value, _: &mut Cx) -> Result<Applied, EffectError> {
        let compiled;
        let program = if let Some(program) = self.program.get() {
            program
        } else {
            compiled = compile(&self.profile).map_err(|e| EffectError::new(e.to_string()))?;
            &compiled
        };
        set_filter(program, flags(&self.profile.flags)).map_err(|e| {
            let errno = e.raw_os_error();
            let failed = EffectError::call(format!("seccomp(SECCOMP_SET_MODE_FILTER, {} instructions)", program.len() / 8), e);
            match errno.map(Errno::from_raw_os_error) {
                Some(Errno::ACCESS) => failed.help(
                    "loading a filter needs no_new_privs or CAP_SYS_ADMIN: set process.noNewPrivileges, or load it before privileges are given up",
                ),
                Some(Errno::INVAL) => failed.help("the kernel lacks seccomp, or one of the profile's flags"),
                Some(Errno::NOMEM) => failed.help("all filters of a process together may have 32768 instructions"),
                _ => failed,
            }
        })?;
        Ok(Applied::done())
    }

    dies_with_init!();
}

fn flags(flags: &[SeccompFlag]) -> u64 {
    flags.iter().fold(0, |all, flag| {
        all | match flag {
            SeccompFlag::Tsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            SeccompFlag::Log => libc::SECCOMP_FILTER_FLAG_LOG,
            SeccompFlag::SpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            SeccompFlag::WaitKillableRecv => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        }
    })
}
