//! The arguments and the environment that the process was started with, as others see them in /proc/PID/cmdline and /proc/PID/environ.

use lifecycle_engine::proc;
use std::io;

/// Overwrites them with zeros, for a process that others than the caller's own will see: they may hold secrets. The kernel shows arguments to
/// everybody who sees the process, and the environment to who may trace it.
///
/// `std::env` gives empty strings and no variables from here on. The process must have one thread.
pub fn forget() -> io::Result<()> {
    let stat = proc::text("/proc/self/stat")?;
    let Some(bounds) = bounds(&stat) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "/proc/self/stat does not tell where the arguments and the environment are",
        ));
    };
    for (start, end) in bounds {
        // SAFETY: the kernel's own account of where it put the strings when it executed this program: `end - start` bytes of the stack, which the
        // process may write to and which stay for as long as it lives. Only the C library's and std's lists point there, as C strings, and a
        // string of zeros is one; no thread reads them meanwhile, for there is one.
        unsafe { std::ptr::write_bytes(std::ptr::with_exposed_provenance_mut::<u8>(start), 0, end - start) };
    }
    Ok(())
}

/// arg_start and arg_end, env_start and env_end: fields 48 to 51 of proc_pid_stat(5), since Linux 3.5. The name in field 2 may hold anything.
fn bounds(stat: &str) -> Option<[(usize, usize); 2]> {
    let fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(45).map(|field| field.parse().ok());
    let fields = fields.take(4).collect::<Option<Vec<usize>>>()?;
    let &[arguments, arguments_end, environment, environment_end] = &*fields else { return None };
    // All are zero for a process that may not be looked at.
    let sound = arguments != 0 && arguments <= arguments_end && environment != 0 && environment <= environment_end;
    sound.then_some([(arguments, arguments_end), (environment, environment_end)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::fork;
    use rustix::process::{WaitOptions, waitpid};

    #[test]
    fn nobody_sees_them_any_more() {
        let child = fork(|| {
            let shown = || ["cmdline", "environ"].map(|name| std::fs::read(format!("/proc/self/{name}")).unwrap());
            let empty = |text: &Vec<u8>| text.iter().all(|b| *b == 0);
            let before = shown();
            forget().unwrap();
            let hidden = !before.iter().any(empty) && shown().iter().all(empty);
            i32::from(!hidden || std::env::vars_os().next().is_some())
        });
        let (_, status) = waitpid(Some(child.unwrap()), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
    }

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_move_the_fields() {
        let fields = (3..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(bounds(&format!("1 (a) b) {fields}\n")), Some([(48, 49), (50, 51)]));
        assert_eq!(bounds("1 (a) S 1"), None);
    }
}
