//! Looking for a container's program before anything depends on it.

use std::path::{Path, PathBuf};

use lifecycle_engine::effect::{Applied, Class, Cx, EffectDef, Record, Undone};
use lifecycle_engine::error::EffectError;
use lifecycle_engine::value::{Sensitive, Text};
use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exec::{NOT_FOUND, candidates, explain};
use super::prelude::dies_with_init;
use super::ready::{READY, enter, pass_descriptors};
use crate::process::environment::path_of;
use crate::sys;

/// Sees that the program is there and that the process may execute it: whoever made a container hears of it then, and not when he starts it.
///
/// What else comes before an exec is done here as well, since a filter of system calls may follow that does not allow it.
#[derive(Debug, Serialize, Deserialize)]
pub struct FindProgram {
    /// The program: a path, or a name to be looked for.
    pub program: Text,
    /// The environment, for its PATH.
    pub env: Vec<Sensitive<Text>>,
    /// The directory that it starts in.
    pub cwd: PathBuf,
    /// How many descriptors from 3 on it gets.
    #[serde(default)]
    pub preserve_fds: u32,
}

impl EffectDef for FindProgram {
    const KIND: &'static str = "find_program";

    fn examples(_: &Path) -> Vec<Self> {
        vec![Self { program: "/bin/sh".into(), env: Vec::new(), cwd: "/".into(), preserve_fds: 0 }]
    }

    fn describe(&self) -> String {
        format!("see that {} can be executed in {}", self.program, self.cwd.display())
    }

    fn apply(&self, _: &Value, cx: &mut Cx) -> Result<Applied, EffectError> {
        let program = cx.text(&self.program)?;
        let env = self.env.iter().map(|e| cx.text(&e.0)).collect::<Result<Vec<_>, _>>()?;
        enter(&self.cwd, cx.fds)?;
        find(&program, path_of(&env))?;
        pass_descriptors(self.preserve_fds)?;
        // Until the end a channel whose other end is gone must be an error, not a death.
        sys::signal::reset(Some(Signal::PIPE)).map_err(|e| EffectError::call("sigaction(SIG_DFL)", e))?;
        cx.fds.mark(READY);
        Ok(Applied::done())
    }

    dies_with_init!();
}

pub(super) fn find(program: &str, path: &str) -> Result<(), EffectError> {
    let mut refused = None;
    for candidate in candidates(program, path) {
        match executable(&candidate) {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => {
                refused.get_or_insert((candidate, errno));
            }
        }
    }
    Err(match refused {
        Some((candidate, errno)) => explain(&candidate, errno),
        None if program.contains('/') => explain(program, Errno::NOENT),
        None => not_found(program, path),
    })
}

/// Callers of runtimes match on these words.
pub(super) fn not_found(program: &str, path: &str) -> EffectError {
    EffectError::new(format!("exec: {program:?}: executable file not found in $PATH"))
        .help(format!("the container's PATH is {path}"))
        .exit(NOT_FOUND)
}

fn executable(path: &str) -> Result<(), Errno> {
    if FileType::from_raw_mode(stat(path)?.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // The kernel lacks faccessat2 (before 5.8), or a filter does not know it: execve itself will tell.
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_executed_is_told_apart_from_what_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let path = dir.path().to_str().unwrap();
        assert!(find("sh", &format!("{path}:/bin")).is_ok());
        assert_eq!(find("nosuch", path).unwrap_err().exit, Some(127));
        assert!(find("nosuch", path).unwrap_err().what.contains("executable file not found in $PATH"));
        assert_eq!(find(plain.to_str().unwrap(), path).unwrap_err().errno, Some(Errno::ACCESS.raw_os_error()));
        assert_eq!(find("plain", path).unwrap_err().exit, Some(126));
        assert_eq!(find(path, "").unwrap_err().errno, Some(Errno::ISDIR.raw_os_error()));
        assert_eq!(find("/nosuch/x", "").unwrap_err().exit, Some(127));
    }
}
