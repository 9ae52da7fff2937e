//! seccomp(2).

use super::check;
use nix::libc;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: [`Filter::load`] answers with a descriptor that gets the notified calls.
pub const NEW_LISTENER: u64 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;

/// A filter, laid out for the kernel: loading it is one call and nothing besides.
pub struct Filter {
    instructions: Vec<libc::sock_filter>,
    flags: u64,
}

impl Filter {
    /// A BPF program as libseccomp exports it, 8 bytes per instruction in the machine's own byte order. `flags` are seccomp(2)'s
    /// `SECCOMP_FILTER_FLAG_*`.
    pub fn new(program: &[u8], flags: u64) -> io::Result<Self> {
        let (instructions, rest) = program.as_chunks::<8>();
        if rest.is_empty() && u16::try_from(instructions.len()).is_ok() {
            return Ok(Self { instructions: instructions.iter().map(decode).collect(), flags });
        }
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }

    /// How many instructions it has.
    pub fn length(&self) -> usize {
        self.instructions.len()
    }

    /// Loads it. The caller needs no_new_privs or CAP_SYS_ADMIN. There is no way back.
    pub fn load(&self) -> io::Result<Option<OwnedFd>> {
        let program =
            libc::sock_fprog { len: self.instructions.len() as u16, filter: self.instructions.as_ptr().cast_mut() };
        // SAFETY: the program has `len` instructions and outlives the call, which copies it.
        let answer = check(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, self.flags, &raw const program)
        })?;
        if self.flags & NEW_LISTENER == 0 {
            // With TSYNC the answer is the id of a thread that could not take the filter.
            return if answer == 0 { Ok(None) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) };
        }
        // SAFETY: with this flag the answer is a new descriptor, which nobody else owns.
        Ok(Some(unsafe { OwnedFd::from_raw_fd(answer as i32) }))
    }
}

/// struct sock_filter of linux/filter.h.
fn decode([c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; 8]) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::from_ne_bytes([*c0, *c1]),
        jt: *jt,
        jf: *jf,
        k: u32::from_ne_bytes([*k0, *k1, *k2, *k3]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::fork;
    use rustix::process::{WaitOptions, waitpid};

    fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> [u8; 8] {
        let [c0, c1] = (code as u16).to_ne_bytes();
        let [k0, k1, k2, k3] = k.to_ne_bytes();
        [c0, c1, jt, jf, k0, k1, k2, k3]
    }

    /// Refuses one call with ENOTTY, which nothing else answers here.
    fn refuse(call: libc::c_long) -> Vec<u8> {
        [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOTTY as u32),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]
        .concat()
    }

    #[test]
    fn a_filter_refuses_what_it_says() {
        let child = fork(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            assert!(Filter::new(&refuse(libc::SYS_sethostname), 0).unwrap().load().unwrap().is_none());
            i32::from(rustix::system::sethostname(b"x") != Err(rustix::io::Errno::NOTTY))
        });
        let (_, status) = waitpid(Some(child.unwrap()), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
    }

    #[test]
    fn half_an_instruction_is_refused() {
        assert_eq!(Filter::new(&[0; 12], 0).err().and_then(|e| e.raw_os_error()), Some(libc::EINVAL));
    }
}
