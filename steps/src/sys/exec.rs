//! execve(2) of what was laid out beforehand.

use nix::libc;
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::ptr;

/// A program and all that execve(2) takes. Where a filter of system calls is in force that allows nothing but execve(2), not even memory can be
/// asked for any more.
pub struct Program {
    candidates: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    errors: Vec<Errno>,
    /// What the pointers lead to.
    _owned: [Vec<CString>; 2],
}

impl Program {
    /// The places where the program may be, its arguments and its whole environment.
    pub fn new(candidates: Vec<CString>, args: Vec<CString>, env: Vec<CString>) -> Self {
        let pointers = |texts: &[CString]| texts.iter().map(|t| t.as_ptr()).chain([ptr::null()]).collect();
        let errors = Vec::with_capacity(candidates.len());
        Self { candidates, argv: pointers(&args), envp: pointers(&env), errors, _owned: [args, env] }
    }

    /// Executes the first candidate that can be executed. Comes back only with the failure of each.
    pub fn execute(&mut self) -> impl Iterator<Item = (&CStr, Errno)> {
        for candidate in &self.candidates {
            // SAFETY: all strings end in NUL and both lists in a null pointer; they live as long as `self`.
            unsafe { libc::execve(candidate.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
            let errno = std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
            self.errors.push(errno);
        }
        self.candidates.iter().map(CString::as_c_str).zip(self.errors.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::fork;
    use rustix::process::{WaitOptions, waitpid};

    fn texts(all: &[&str]) -> Vec<CString> {
        all.iter().map(|text| CString::new(*text).unwrap()).collect()
    }

    #[test]
    fn the_first_that_can_be_executed_is() {
        let candidates = texts(&["/nosuch/sh", "/etc/passwd", "/bin/sh"]);
        let (args, env) = (texts(&["sh", "-c", "exit $CODE"]), texts(&["CODE=7"]));
        let child = fork(|| {
            Program::new(candidates, args, env).execute().for_each(drop);
            1
        });
        let (_, status) = waitpid(Some(child.unwrap()), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(7));
    }

    #[test]
    fn every_failure_is_told() {
        let mut program = Program::new(texts(&["/nosuch/sh", "/etc/passwd"]), texts(&["sh"]), Vec::new());
        let failures: Vec<Errno> = program.execute().map(|(_, errno)| errno).collect();
        assert_eq!(failures, [Errno::NOENT, Errno::ACCESS]);
    }
}
