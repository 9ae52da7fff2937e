//! Where runs are, and what they are called.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::facts::Facts;
use lifecycle_engine::journal;
use lifecycle_engine::run::RunError;
use lifecycle_engine::types::Name;
use lifecycle_steps::facts::followed;
use lifecycle_steps::outcomes::Process;
use serde::Deserialize;
use serde_json::Value;

/// The state root: what the caller names, `/run/lifecycle` for root, `$XDG_RUNTIME_DIR/lifecycle` for others. Nothing that others could have made
/// before: where no variable says it, it is in the directory that the system has made for the user, or nowhere.
///
/// # Errors
///
/// The caller names a relative path, and the working directory is gone; or there is no place of his own.
pub fn root(given: Option<&Path>) -> std::io::Result<PathBuf> {
    if let Some(root) = given {
        return std::path::absolute(root);
    }
    let uid = rustix::process::geteuid();
    // "All paths … must be absolute. If an implementation encounters a relative path … it should … ignore it" (XDG Base Directory Specification).
    let variable = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let base = match variable {
        _ if uid.is_root() && !is_another_users_root() => PathBuf::from("/run"),
        Some(dir) => dir,
        None if uid.is_root() => PathBuf::from("/run"),
        None => {
            let dir = PathBuf::from(format!("/run/user/{}", uid.as_raw()));
            let own = std::fs::symlink_metadata(&dir).is_ok_and(|m| m.is_dir() && m.uid() == uid.as_raw());
            own.then_some(dir).ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, NOWHERE))?
        }
    };
    Ok(base.join("lifecycle"))
}

const NOWHERE: &str =
    "there is no directory of the caller's own for it: set XDG_RUNTIME_DIR to one, or name one with --root";

/// Whether this root is but an ordinary user in a user namespace that he has made, as a caller of runtimes such as podman has it. Who takes himself
/// for the machine's root is called so.
fn is_another_users_root() -> bool {
    lifecycle_steps::facts::is_nested() && std::env::var_os("USER").is_none_or(|name| name != "root")
}

/// The outputs of the run that a plan opens. The journal is read like everything that planning reads, so that the plan replays.
///
/// # Errors
///
/// There is no such run, or its journal cannot be read.
pub fn outputs(names: &RunNames, facts: &mut Facts) -> Result<Value, RunError> {
    let text = facts.own_file(names, journal::JOURNAL)?;
    let mut outputs = journal::outputs(&names.dir().join(journal::JOURNAL), text.as_bytes())?;
    follow(&mut outputs, facts);
    Ok(outputs)
}

/// A container's cgroup of version 2 may have gone, and the container be in another one.
fn follow(outputs: &mut Value, facts: &mut Facts) {
    let process = outputs.get("process").and_then(|process| Process::deserialize(process).ok());
    let recorded = outputs.get_mut("cgroups").and_then(|cgroups| cgroups.get_mut(""));
    let (Some(process), Some(recorded)) = (process, recorded) else { return };
    let now =
        recorded.as_str().and_then(|at| facts.get::<Option<String>>(&followed(&process, Path::new(at))).flatten());
    if let Some(now) = now {
        *recorded = now.into();
    }
}

/// The id of a run whose plan gives it none: the plan's name.
#[must_use]
pub fn plain_id(plan: &str) -> String {
    let id: String = plan.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Name::parse(&id).map_or_else(|_| "run".to_owned(), |name| name.as_str().to_owned())
}

/// The plan's name and what tells this run from others.
#[must_use]
pub fn fresh_id(plan: &str) -> String {
    let mut random = [0u8; 4];
    // Without randomness the pid alone tells runs apart that go on at the same time.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    format!("{}-{:x}-{:08x}", plain_id(plan), std::process::id(), u32::from_ne_bytes(random))
}
