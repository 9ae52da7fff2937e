//! `process.privileges`: what the container's program may do.

use lifecycle_engine::error::PlanError;
use lifecycle_engine::step::{After, Example, Place, Planning, Step};
use nix::libc;
use pathrs::flags::OpenFlags;
use pathrs::procfs::{ProcfsBase, ProcfsHandle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;

use crate::effects::Warning;
use crate::effects::privileges::{BecomeUser, BoundCapabilities, NoNewPrivileges, SetCapabilities, SetRlimit};
use crate::effects::ready::EnterDirectory;
use crate::spec::{Capabilities, Rlimit, RlimitType, Seccomp, User};

/// Gives the process of the site the limits, the user and the capabilities of the container's program. What the caller may not give is an error.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Resource limits, one per type.
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    /// Whom it runs as, in the container's ids.
    #[serde(default)]
    pub user: User,
    /// The five capability sets. Absent: none at all.
    #[serde(default)]
    pub capabilities: Option<Capabilities>,
    /// Exec gives no more privileges.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// The directory that its program starts in. It is entered before privileges are given up: the user may not be allowed to enter it.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// The profile that a `seccomp.load` loads afterwards, which takes CAP_SYS_ADMIN: that stays until then, if the process has it.
    #[serde(default)]
    pub filter: Option<Seccomp>,
}

/// Nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {}

/// The step.
pub struct Privileges;

/// Everything that takes privileges, or calls that a filter may forbid, comes before they are given up.
pub(crate) const TAKES_PRIVILEGES: After = &[
    "console.open",
    "net.loopback",
    "process.affinity",
    "process.label",
    "process.scheduling",
    "rootfs.mount",
    "rootfs.overlay",
    "rootfs.pivot",
    "rootfs.protect",
    "sysctl.write",
    "uts.set",
];

impl Step for Privileges {
    const KIND: &'static str = "process.privileges";
    const CHANGES: &'static str = "The limits, the user, the groups and the capabilities of the site's process.";
    const REVERSED_BY: &'static str = "Goes with the process.";
    const PLACE: Place = Place::Inside;
    const AFTER: After = TAKES_PRIVILEGES;
    const EXAMPLES: &'static [Example] = &[Example {
        about: "An ordinary user with one capability and few open files.",
        plan: "plan: example/privileges
steps:
  init: { uses: process.clone, with: { new: [pid], stdio: log } }
  privileges:
    uses: process.privileges
    site: \"${init}\"
    with:
      rlimits: [{ type: RLIMIT_NOFILE, soft: 64, hard: 128 }]
      user: { uid: 65534, gid: 65534, umask: 63 }
      capabilities: { bounding: [CAP_KILL], permitted: [CAP_KILL], effective: [CAP_KILL] }
      no_new_privileges: true
  exec: { uses: process.exec, site: \"${init}\", with: { args: [/bin/cat, /proc/self/status] } }
  wait: { uses: process.wait, with: { process: \"${init.process}\" } }
main: wait
",
        needs: &["root"],
    }];

    type Input = Input;
    type Output = Output;

    fn plan(input: Input, cx: &mut Planning) -> Result<Output, PlanError> {
        input.check()?;
        for limit in input.rlimits {
            cx.effect(SetRlimit { limit });
        }
        if input.no_new_privileges {
            cx.effect(NoNewPrivileges {});
        }
        let mut sets = input.capabilities.unwrap_or_default();
        // Configs ask for more ever since CVE-2022-29162 emptied their inheritable sets, and every runtime leaves it out.
        let Capabilities { permitted, inheritable, ambient, .. } = &mut sets;
        let can_be = |name: &String| permitted.contains(name) && inheritable.contains(name);
        let (ambient_ones, others): (Vec<String>, Vec<String>) = std::mem::take(ambient).into_iter().partition(can_be);
        *ambient = ambient_ones;
        if !others.is_empty() {
            let text = format!(
                "{} cannot be ambient: for that a capability must be permitted and inheritable too; left out",
                others.join(", ")
            );
            cx.effect(Warning { text });
        }
        if let Some(cwd) = input.cwd {
            cx.effect(EnterDirectory { cwd });
        }
        cx.effect(BoundCapabilities { keep: sets.bounding.clone() });
        cx.effect(BecomeUser { user: input.user });
        cx.effect(SetCapabilities { sets, for_filter: input.filter.is_some() });
        Ok(Output {})
    }
}

impl Input {
    fn check(&self) -> Result<(), PlanError> {
        let mut seen = BTreeSet::new();
        for (i, limit) in self.rlimits.iter().enumerate() {
            if !seen.insert(limit.kind.number()) {
                return Err(PlanError::new(format!("rlimits.{i}"), format!("{} is set twice", limit.kind.name())));
            }
            if limit.soft > limit.hard {
                let what = format!("the soft limit {} exceeds the hard one, {}", limit.soft, limit.hard);
                return Err(PlanError::new(format!("rlimits.{i}"), what));
            }
        }
        match self.user.umask.filter(|mask| *mask > 0o777) {
            Some(mask) => {
                Err(PlanError::new("user.umask", format!("{mask:o} (octal) is not a file mode creation mask")))
            }
            None => Ok(()),
        }
    }
}

impl RlimitType {
    /// The number of setrlimit(2).
    pub(crate) fn number(self) -> i32 {
        let number = match self {
            Self::As => libc::RLIMIT_AS,
            Self::Core => libc::RLIMIT_CORE,
            Self::Cpu => libc::RLIMIT_CPU,
            Self::Data => libc::RLIMIT_DATA,
            Self::Fsize => libc::RLIMIT_FSIZE,
            Self::Locks => libc::RLIMIT_LOCKS,
            Self::Memlock => libc::RLIMIT_MEMLOCK,
            Self::Msgqueue => libc::RLIMIT_MSGQUEUE,
            Self::Nice => libc::RLIMIT_NICE,
            Self::Nofile => libc::RLIMIT_NOFILE,
            Self::Nproc => libc::RLIMIT_NPROC,
            Self::Rss => libc::RLIMIT_RSS,
            Self::Rtprio => libc::RLIMIT_RTPRIO,
            Self::Rttime => libc::RLIMIT_RTTIME,
            Self::Sigpending => libc::RLIMIT_SIGPENDING,
            Self::Stack => libc::RLIMIT_STACK,
        };
        number as i32
    }

    /// The name of setrlimit(2).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::As => "RLIMIT_AS",
            Self::Core => "RLIMIT_CORE",
            Self::Cpu => "RLIMIT_CPU",
            Self::Data => "RLIMIT_DATA",
            Self::Fsize => "RLIMIT_FSIZE",
            Self::Locks => "RLIMIT_LOCKS",
            Self::Memlock => "RLIMIT_MEMLOCK",
            Self::Msgqueue => "RLIMIT_MSGQUEUE",
            Self::Nice => "RLIMIT_NICE",
            Self::Nofile => "RLIMIT_NOFILE",
            Self::Nproc => "RLIMIT_NPROC",
            Self::Rss => "RLIMIT_RSS",
            Self::Rtprio => "RLIMIT_RTPRIO",
            Self::Rttime => "RLIMIT_RTTIME",
            Self::Sigpending => "RLIMIT_SIGPENDING",
            Self::Stack => "RLIMIT_STACK",
        }
    }
}

/// Whether the user namespace of the process has given up setgroups(2) for good. Read from a procfs that the container cannot fake.
pub(crate) fn denies_setgroups() -> bool {
    let read = || {
        let mut text = String::new();
        let file = ProcfsHandle::new().ok()?.open(ProcfsBase::ProcSelf, "setgroups", OpenFlags::O_RDONLY).ok()?;
        file.take(16).read_to_string(&mut text).ok()?;
        Some(text.trim_end() == "deny")
    };
    read().unwrap_or(false)
}
