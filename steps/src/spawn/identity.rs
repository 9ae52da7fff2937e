//! What the journal's identity of a process is good for: finding it while it runs, and killing its group.

use lifecycle_engine::error::EffectError;
use rustix::process::Pid;

use crate::outcomes::Process;
use crate::process::Watched;
use crate::sys::child::kill_group;

/// The identity of a process that exists.
pub fn identify(pid: Pid) -> Result<Process, EffectError> {
    Process::of(pid).map_err(|e| EffectError::call(format!("read(/proc/{pid}/stat)"), e))
}

/// The process, if it still runs. A zombie has ended.
pub(crate) fn find(process: &Process) -> Result<Option<Watched>, EffectError> {
    let watched = process.watch().map_err(|e| EffectError::call(format!("pidfd_open({})", process.pid), e))?;
    match watched {
        Some(watched) if !watched.is_dead()? => Ok(Some(watched)),
        _ => Ok(None),
    }
}

/// Kills what is left of a process that we started and of its group, and says what to wait for; `None` if it has ended.
pub(crate) fn kill(process: &Process) -> Result<Option<Watched>, EffectError> {
    let (Some(watched), Some(pid)) = (find(process)?, Pid::from_raw(process.pid)) else { return Ok(None) };
    kill_group(watched.as_fd(), pid)
        .map_err(|e| EffectError::call(format!("kill(process group {pid}, SIGKILL)"), e))?;
    Ok(Some(watched))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_all_of_its_identity_only() {
        let me = identify(rustix::process::getpid()).unwrap();
        let found = |process: Process| matches!(find(&process), Ok(Some(_)));
        assert!(found(me.clone()));
        assert!(!found(Process { start: me.start + 1, ..me.clone() }));
        assert!(!found(Process { boot: "another".into(), ..me.clone() }));
        assert!(!found(Process { pid: 0, ..me.clone() }));
        assert!(!found(Process { pid: -1, ..me }));
    }
}
