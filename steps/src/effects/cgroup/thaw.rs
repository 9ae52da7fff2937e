//! Lets a killed process go on that the freezer of version 1 holds: it sees no signal before. Version 2's lets it die.

use std::path::{Path, PathBuf};

use lifecycle_engine::effect::Cx;
use lifecycle_engine::error::EffectError;
use rustix::fs::CWD;
use rustix::io::Errno;

use super::{directory, machine, open_directory, write};
use crate::facts::cgroup_of;

/// Thaws the cgroup of a process that is to die, and what is between it and the cgroup that the run made. One that is nobody's of ours is left as
/// it is: others may stand still in it on purpose.
pub(crate) fn thaw_killed(pid: i32, cx: &Cx) -> Result<(), EffectError> {
    let Some(freezer) = machine().v1_of("freezer").map(|hierarchy| hierarchy.mount.clone()) else { return Ok(()) };
    // One that has gone needs nothing any more.
    let Ok(text) = std::fs::read(format!("/proc/{pid}/cgroup")) else { return Ok(()) };
    let Some(path) = path_of(&text) else { return Ok(()) };
    // A process that was executed in a container is in the cgroup of the run around its own.
    let tags: Vec<String> = std::iter::once(cx.run.tag()).chain(cx.run.around().map(|run| run.tag())).collect();
    for at in ours(&freezer, path, &|at| tags.iter().any(|tag| directory::is_marked(at, tag))) {
        let thawed = open_directory(CWD, &at).and_then(|cgroup| write(&cgroup, "freezer.state", "THAWED"));
        match thawed {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
            Err(errno) => return Err(EffectError::call(format!("thaw {}", at.display()), errno)),
        }
    }
    Ok(())
}

/// The path of its cgroup below the freezer's top.
fn path_of(text: &[u8]) -> Option<&Path> {
    let freezer = |controllers: &str| controllers.split(',').any(|name| name == "freezer");
    let path = cgroup_of(text, freezer)?;
    Some(path.strip_prefix("/").unwrap_or(path))
}

/// From the topmost cgroup that is the run's down to the process's own; none if none is.
fn ours(top: &Path, path: &Path, is_ours: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let at = top.join(path);
    let mut chain: Vec<PathBuf> = at.ancestors().take_while(|above| *above != top).map(Path::to_owned).collect();
    match chain.iter().rposition(|at| is_ours(at)) {
        Some(last) => {
            chain.truncate(last + 1);
            chain.reverse();
            chain
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn only_what_is_below_the_runs_own_cgroup_is_thawed() {
        let text = b"5:pids:/a\n4:cpu,freezer:/lifecycle/web/inner\n0::/\n";
        assert_eq!(path_of(text), Some(Path::new("lifecycle/web/inner")));
        assert_eq!(path_of(b"4:freezer:/web/\xff\n"), Some(Path::new(OsStr::from_bytes(b"web/\xff"))));
        assert_eq!(path_of(b"0::/x\n"), None);
        let of = |own: &str| ours(Path::new("/cg"), Path::new("lifecycle/web/inner"), &|at| at.ends_with(own));
        let all = ["/cg/lifecycle/web", "/cg/lifecycle/web/inner"].map(PathBuf::from);
        assert_eq!(of("web"), all);
        assert_eq!(of("inner"), all[1..]);
        assert!(of("other").is_empty());
    }
}
