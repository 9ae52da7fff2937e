//! System calls that neither rustix nor nix wraps, and the one place of this crate for unsafe code.
//!
//! Each function is safe to call; what the kernel needs from its arguments is checked by their types. One file per group of calls.
#![expect(unsafe_code, reason = "raw system calls; each block says why it is sound")]

pub mod arguments;
pub mod bpf;
pub mod child;
pub mod clone;
pub mod exec;
pub mod fd;
pub mod keyring;
pub mod limits;
pub mod mount;
pub mod namespace;
pub mod probe;
pub mod rlimit;
pub mod schedule;
pub mod seccomp;
pub mod signal;
#[cfg(test)]
pub mod testing;

use std::io;

/// The answer of a raw system call, as a result.
fn check(answer: nix::libc::c_long) -> io::Result<nix::libc::c_long> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
