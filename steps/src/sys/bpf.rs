//! bpf(2), as far as device rules of cgroups need it.

use super::check;
use nix::libc;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// One instruction (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What it does.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high ones.
    pub registers: u8,
    /// A jump's distance, or an offset in memory.
    pub offset: i16,
    /// The constant.
    pub immediate: i32,
}

// linux/bpf.h
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_DETACH: i32 = 9;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Rules of the cgroups above go on being asked, and a container's own manager can add its own.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The call's argument: a union, of which these are the first words.
#[repr(C, align(8))]
struct Attributes([u32; 32]);

fn call(command: i32, attributes: &mut Attributes) -> io::Result<i32> {
    let size = size_of::<Attributes>();
    // SAFETY: the structure is writable, of the size given, and larger than what any of these commands reads; the rest is zero, as the
    // kernel demands. Addresses in it point to memory that its makers below keep alive across the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    check(answer).map(|answer| answer as i32)
}

fn attributes(words: &[u32]) -> Attributes {
    let mut attributes = Attributes([0; 32]);
    attributes.0[..words.len()].copy_from_slice(words);
    attributes
}

/// The two words of an address, as a 64-bit field has them.
fn address<T>(of: *const T) -> [u32; 2] {
    let bytes = (of as u64).to_ne_bytes();
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [word(0), word(4)]
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just given this descriptor to the caller, who has it nowhere else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Has the kernel check and take a program that decides about devices.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let (code, license) = (address(program.as_ptr()), address(c"Apache-2.0".as_ptr()));
    let words = [BPF_PROG_TYPE_CGROUP_DEVICE, program.len() as u32, code[0], code[1], license[0], license[1]];
    call(BPF_PROG_LOAD, &mut attributes(&words)).map(owned)
}

/// The kernel's number for a program.
pub fn program_id(program: impl AsFd) -> io::Result<u32> {
    // struct bpf_prog_info: type, id, …
    let mut info = [0_u32; 2];
    let at = address(info.as_mut_ptr());
    let words = [program.as_fd().as_raw_fd() as u32, size_of_val(&info) as u32, at[0], at[1]];
    call(BPF_OBJ_GET_INFO_BY_FD, &mut attributes(&words))?;
    Ok(info[1])
}

/// Makes the program decide about devices for the cgroup and those below it.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let (cgroup, program) = (cgroup.as_fd().as_raw_fd() as u32, program.as_fd().as_raw_fd() as u32);
    call(BPF_PROG_ATTACH, &mut attributes(&[cgroup, program, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI])).map(drop)
}

/// Takes the program of that number off the cgroup. One that is not there counts as taken off.
pub fn detach_device_program(cgroup: impl AsFd, id: u32) -> io::Result<()> {
    let program = match call(BPF_PROG_GET_FD_BY_ID, &mut attributes(&[id])) {
        Ok(fd) => owned(fd),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
        Err(e) => return Err(e),
    };
    let words = [cgroup.as_fd().as_raw_fd() as u32, program.as_raw_fd() as u32, BPF_CGROUP_DEVICE];
    match call(BPF_PROG_DETACH, &mut attributes(&words)) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        answer => answer.map(drop),
    }
}
