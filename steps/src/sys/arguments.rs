//! The arguments that the process was started with, as everybody sees them in /proc/PID/cmdline.

use lifecycle_engine::proc;
use std::io;

/// Overwrites them with zeros, for a process that others than the caller's own will see: they may hold secrets, and the kernel shows them to
/// everybody who sees the process.
///
/// `std::env::args` gives empty strings from here on. The process must have one thread.
pub fn forget() -> io::Result<()> {
    let stat = proc::text("/proc/self/stat")?;
    let Some((start, end)) = bounds(&stat) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "/proc/self/stat does not tell where the arguments are",
        ));
    };
    // SAFETY: the kernel's own account of where it put the arguments when it executed this program: `end - start` bytes of the stack, which the
    // process may write to and which stay for as long as it lives. Only the C library's and std's lists of arguments point there, as C strings,
    // and a string of zeros is one; no thread reads them meanwhile, for there is one.
    unsafe { std::ptr::write_bytes(std::ptr::with_exposed_provenance_mut::<u8>(start), 0, end - start) };
    Ok(())
}

/// arg_start and arg_end, fields 48 and 49 of proc_pid_stat(5), since Linux 3.5. The name in field 2 may hold anything.
fn bounds(stat: &str) -> Option<(usize, usize)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(45);
    let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    // Both are zero for a process that may not be looked at.
    (start != 0 && start <= end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::fork;
    use rustix::process::{WaitOptions, waitpid};

    #[test]
    fn nobody_sees_them_any_more() {
        let child = fork(|| {
            let shown = || std::fs::read("/proc/self/cmdline").unwrap();
            let before = shown();
            forget().unwrap();
            i32::from(before.iter().all(|b| *b == 0) || shown().iter().any(|b| *b != 0))
        });
        let (_, status) = waitpid(Some(child.unwrap()), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
    }

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_move_the_fields() {
        let fields = (3..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(bounds(&format!("1 (a) b) {fields}\n")), Some((48, 49)));
        assert_eq!(bounds("1 (a) S 1"), None);
    }
}
