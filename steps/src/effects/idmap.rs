//! The id maps of a new user namespace, user_namespaces(7).

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::Handle;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::example_process;
use crate::outcomes::Process;
use crate::spec::IdMapping;

/// Who writes the maps. The step knows while planning what its caller may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writer {
    /// The engine, which may map any id.
    Engine,
    /// The engine, which may map its own ids alone, and only after setgroups(2) is denied inside.
    Owner,
    /// The set-user-id programs newuidmap(1) and newgidmap(1), which know the ids that /etc/subuid and /etc/subgid grant.
    Programs {
        /// newuidmap.
        uid: PathBuf,
        /// newgidmap.
        gid: PathBuf,
    },
}

/// Writes the id maps of a process's user namespace. They go with the namespace.
#[derive(Debug, Serialize, Deserialize)]
pub struct MapIds {
    /// The process in it.
    pub process: Handle<Process>,
    /// User ids.
    pub uid: Vec<IdMapping>,
    /// Group ids.
    pub gid: Vec<IdMapping>,
    /// Who writes them.
    pub writer: Writer,
}

impl EffectDef for MapIds {
    const KIND: &'static str = "id_maps";

    fn examples(_: &Path) -> Vec<Self> {
        let map = vec![IdMapping { container_id: 0, host_id: 100_000, size: 65536 }];
        vec![Self { process: example_process(), uid: map.clone(), gid: map, writer: Writer::Engine }]
    }

    fn class(&self) -> Class {
        Class::Scoped
    }

    fn describe(&self) -> String {
        let show = |map: &[IdMapping]| {
            let ranges = map.iter().map(|m| match m.size {
                1 => format!("{}→{}", m.container_id, m.host_id),
                n => format!("{}→{} ({n})", m.container_id, m.host_id),
            });
            ranges.collect::<Vec<_>>().join(", ")
        };
        let by = match &self.writer {
            Writer::Engine => String::new(),
            Writer::Owner => "; setgroups denied".into(),
            Writer::Programs { uid, gid } => format!("; by {} and {}", uid.display(), gid.display()),
        };
        format!("id maps of {}: uid {}; gid {}{by}", self.process, show(&self.uid), show(&self.gid))
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let process = cx.resolve(&self.process)?;
        let dir = directory(&process)?;
        if let Writer::Programs { uid, gid } = &self.writer {
            run(uid, process.pid, &self.uid)?;
            run(gid, process.pid, &self.gid)?;
            return Ok(Applied::done());
        }
        if self.writer == Writer::Owner {
            write(&dir, "setgroups", "deny")?;
        }
        write(&dir, "uid_map", &lines(&self.uid))?;
        write(&dir, "gid_map", &lines(&self.gid))?;
        Ok(Applied::done())
    }

    fn undo(&self, _: &Record, _: &mut Cx) -> Result<Undone, EffectError> {
        Ok(Undone::Done)
    }
}

/// The process's directory in /proc.
pub(super) fn directory(process: &Process) -> Result<OwnedFd, EffectError> {
    let dir = process.directory().map_err(|e| EffectError::call(format!("open(/proc/{})", process.pid), e))?;
    dir.ok_or_else(|| EffectError::new(format!("process {} has died", process.pid)))
}

/// Writes one file of a process's directory, in one call, as the kernel demands for id maps.
pub(super) fn write(dir: &OwnedFd, name: &str, text: &str) -> Result<(), EffectError> {
    openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|fd| rustix::io::write(fd, text.as_bytes()))
        .map(drop)
        .map_err(|e| {
            let failed = EffectError::call(format!("write(/proc/PID/{name}, {text:?})"), e);
            match (name, e) {
                ("uid_map" | "gid_map", Errno::PERM) => failed.help(
                    "only root may map ids that are not its own; an ordinary user needs newuidmap and newgidmap (package uidmap) \
                     and ranges in /etc/subuid and /etc/subgid",
                ),
                ("uid_map" | "gid_map", Errno::INVAL) => {
                    failed.help("ranges must not overlap nor be empty, and the kernel takes at most 340 of them")
                }
                ("oom_score_adj", Errno::ACCESS | Errno::PERM) => failed.help(
                    "a score lower than the engine's own needs CAP_SYS_RESOURCE; take process.oomScoreAdj out, or raise it",
                ),
                _ => failed,
            }
        })
}

fn lines(map: &[IdMapping]) -> String {
    map.iter().fold(String::new(), |mut text, m| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {} {}", m.container_id, m.host_id, m.size);
        text
    })
}

fn run(program: &Path, pid: i32, map: &[IdMapping]) -> Result<(), EffectError> {
    let numbers = map.iter().flat_map(|m| [m.container_id, m.host_id, m.size]).map(|n| n.to_string());
    let mut command = Command::new(program);
    command.arg(pid.to_string()).args(numbers).stdin(Stdio::null());
    let output = command.output().map_err(|e| EffectError::call(format!("exec({})", program.display()), e))?;
    if output.status.success() {
        return Ok(());
    }
    let mut failed = EffectError::new(format!("{} failed: {}", program.display(), output.status))
        .help("it maps only the ranges that /etc/subuid and /etc/subgid grant to the caller");
    failed.output = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    Err(failed)
}
