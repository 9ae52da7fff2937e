//! Which process a journal means: a pid is used again, but not with the same start time in the same boot.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use lifecycle_engine::error::EffectError;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::outcomes::Process;
use crate::sys::child::kill_group;

/// The identity of a process that exists.
pub fn identify(pid: Pid) -> Result<Process, EffectError> {
    let (start, _) = stat(pid)?.ok_or_else(|| EffectError::new(format!("process {pid} has gone")))?;
    Ok(Process { pid: pid.as_raw_nonzero().get(), start, boot: boot()? })
}

/// A descriptor for the process, if it still runs. A zombie has ended.
pub fn find(process: &Process) -> Result<Option<OwnedFd>, EffectError> {
    let Some(pid) = Pid::from_raw(process.pid.max(0)) else { return Ok(None) };
    if process.boot != boot()? {
        return Ok(None);
    }
    // The descriptor comes first: what is then read of the pid is read of the process that the descriptor stands for, or it has ended.
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(errno) => return Err(EffectError::call(format!("pidfd_open({pid})"), errno)),
    };
    let runs = stat(pid)?.is_some_and(|(start, state)| start == process.start && !matches!(state, 'Z' | 'X'));
    Ok(runs.then_some(pidfd))
}

/// Kills what is left of a process that we started and of its group, and says what to wait for; `None` if it has ended.
pub fn kill(process: &Process) -> Result<Option<OwnedFd>, EffectError> {
    let (Some(pidfd), Some(pid)) = (find(process)?, Pid::from_raw(process.pid.max(0))) else { return Ok(None) };
    kill_group(pidfd.as_fd(), pid).map_err(|e| EffectError::call(format!("kill(process group {pid}, SIGKILL)"), e))?;
    Ok(Some(pidfd))
}

/// Takes an ended process out of the kernel's table, if it is a child of ours.
pub fn reap(pidfd: &OwnedFd) {
    // Not a child of ours, or already taken: somebody else's to do.
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

/// The start time in clock ticks since boot, and the state; proc_pid_stat(5).
fn stat(pid: Pid) -> Result<Option<(u64, char)>, EffectError> {
    let path = format!("/proc/{pid}/stat");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ESRCH) => return Ok(None),
        Err(e) => return Err(EffectError::call(format!("read({path})"), e)),
    };
    // The second field is the program's name in parentheses, and may hold anything.
    let mut fields = text.rsplit(") ").next().unwrap_or("").split(' ');
    let state = fields.next().and_then(|f| f.chars().next());
    let start = fields.nth(18).and_then(|f| f.parse().ok());
    match (start, state) {
        (Some(start), Some(state)) => Ok(Some((start, state))),
        _ => Err(EffectError::new(format!("{path} is not what proc_pid_stat(5) says: {text:?}"))),
    }
}

fn boot() -> Result<String, EffectError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(|e| EffectError::call(format!("read({path})"), e))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_all_of_its_identity_only() {
        let me = identify(rustix::process::getpid()).unwrap();
        assert!(find(&me).unwrap().is_some());
        assert!(find(&Process { start: me.start + 1, ..me.clone() }).unwrap().is_none());
        assert!(find(&Process { boot: "another".into(), ..me.clone() }).unwrap().is_none());
        assert!(find(&Process { pid: 0, ..me.clone() }).unwrap().is_none());
        assert!(find(&Process { pid: -1, ..me }).unwrap().is_none());
    }
}
