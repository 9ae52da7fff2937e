//! System calls that are newer than the profile.
//!
//! A profile that lists what is allowed cannot know the calls of later kernels, and its default says EPERM. But a C library that tries a new call
//! falls back to an older one only where the answer is ENOSYS: with EPERM, programs fail for no reason after an update of the image. So every
//! call whose number is above the newest that the profile names gets ENOSYS, as with the other runtimes. Numbers grow with time on every
//! architecture, but for a few calls that were added out of order.

use libseccomp::{ScmpArch, ScmpSyscall};
use nix::libc;

use super::compile::native;
use crate::spec::{Seccomp, SeccompAction};

/// Set in the number of every x32 call (asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;
/// struct seccomp_data's members.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// An instruction of the program, as linux/filter.h has it.
type Instruction = [u8; 8];

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    let [c0, c1] = (code as u16).to_ne_bytes();
    let [k0, k1, k2, k3] = k.to_ne_bytes();
    [c0, c1, jt, jf, k0, k1, k2, k3]
}

fn load(at: u32) -> Instruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
}

/// Skips `jt` instructions if the accumulator compares so, `jf` if not.
fn jump(comparison: u32, with: u32, jt: u8, jf: u8) -> Instruction {
    instruction(libc::BPF_JMP | comparison | libc::BPF_K, jt, jf, with)
}

fn no_such_call() -> Instruction {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)
}

/// What comes before the filter proper: answers for the newer calls, and falls through for all others. Empty where the default lets calls
/// through, or answers ENOSYS itself.
pub(super) fn prefix(profile: &Seccomp) -> Vec<u8> {
    use SeccompAction::{Allow, Errno, Log, Trace};
    let lets_through = matches!(profile.default_action, Allow | Log | Trace);
    let says_so = profile.default_action == Errno && profile.default_errno_ret == Some(libc::ENOSYS as u32);
    if lets_through || says_so {
        return Vec::new();
    }
    let mut archs: Vec<ScmpArch> = profile.architectures.iter().map(|arch| native(*arch)).collect();
    // The filter holds for it whether it is listed or not.
    archs.insert(0, ScmpArch::native());
    let mut seen: Vec<(u32, Vec<Instruction>)> = Vec::new();
    for (_, arch) in archs.iter().enumerate().filter(|(index, arch)| !archs[..*index].contains(arch)) {
        let Some(last) = newest(profile, *arch) else { continue };
        let token = audit_arch(*arch);
        let block = block(*arch, last);
        match seen.iter_mut().find(|(other, _)| *other == token) {
            Some((_, blocks)) => blocks.extend(block),
            None => seen.push((token, block)),
        }
    }
    let mut program = Vec::new();
    for (token, block) in seen {
        // Over the load of the number and the block. Blocks have a handful of instructions.
        program.push(load(ARCH));
        program.push(jump(libc::BPF_JEQ, token, 0, block.len() as u8 + 1));
        program.push(load(NUMBER));
        program.extend(block);
    }
    program.concat()
}

/// With the number in the accumulator.
fn block(arch: ScmpArch, last: u32) -> Vec<Instruction> {
    let mut block = Vec::new();
    match arch {
        // The two share an architecture's name in the kernel, and are told apart by a bit of the number. What has the bit and no x32 in the
        // profile is for the filter to refuse.
        ScmpArch::X8664 => block.push(jump(libc::BPF_JSET, X32_BIT, 2, 0)),
        ScmpArch::X32 => block.push(jump(libc::BPF_JSET, X32_BIT, 0, 2)),
        // Call 0 stands for one whose number the kernel does not know.
        ScmpArch::S390 | ScmpArch::S390X => block.extend([jump(libc::BPF_JEQ, 0, 0, 1), no_such_call()]),
        _ => {}
    }
    block.extend([jump(libc::BPF_JGT, last, 0, 1), no_such_call()]);
    block
}

/// The highest number of a call that the profile names; none if the architecture has none of them.
fn newest(profile: &Seccomp, arch: ScmpArch) -> Option<u32> {
    let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
    let numbers = names.filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok());
    // A call that the architecture does not have gets a negative number from the library.
    numbers.filter_map(|call| u32::try_from(i32::from(call)).ok()).max().filter(|last| *last > 0)
}

/// The kernel's name of it, linux/audit.h: the ELF machine, and flags for its word length, byte order and calling convention.
fn audit_arch(arch: ScmpArch) -> u32 {
    const BITS_64: u32 = 0x8000_0000;
    const LITTLE: u32 = 0x4000_0000;
    const N32: u32 = 0x2000_0000;
    match arch {
        ScmpArch::Native => audit_arch(ScmpArch::native()),
        ScmpArch::X86 => 0x0003 | LITTLE,
        ScmpArch::X8664 | ScmpArch::X32 => 0x003e | BITS_64 | LITTLE,
        ScmpArch::Arm => 0x0028 | LITTLE,
        ScmpArch::Aarch64 => 0x00b7 | BITS_64 | LITTLE,
        ScmpArch::Loongarch64 => 0x0102 | BITS_64 | LITTLE,
        ScmpArch::M68k => 0x0004,
        ScmpArch::Mips => 0x0008,
        ScmpArch::Mips64 => 0x0008 | BITS_64,
        ScmpArch::Mips64N32 => 0x0008 | BITS_64 | N32,
        ScmpArch::Mipsel => 0x0008 | LITTLE,
        ScmpArch::Mipsel64 => 0x0008 | BITS_64 | LITTLE,
        ScmpArch::Mipsel64N32 => 0x0008 | BITS_64 | LITTLE | N32,
        ScmpArch::Ppc => 0x0014,
        ScmpArch::Ppc64 => 0x0015 | BITS_64,
        ScmpArch::Ppc64Le => 0x0015 | BITS_64 | LITTLE,
        ScmpArch::S390 => 0x0016,
        ScmpArch::S390X => 0x0016 | BITS_64,
        ScmpArch::Parisc => 0x000f,
        ScmpArch::Parisc64 => 0x000f | BITS_64,
        ScmpArch::Riscv64 => 0x00f3 | BITS_64 | LITTLE,
        ScmpArch::Sheb => 0x002a,
        ScmpArch::Sh => 0x002a | LITTLE,
        // An architecture that a later version of the library adds: no call of it is taken for another one's.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::compile;
    use super::*;
    use crate::sys::clone::fork;
    use crate::sys::seccomp::Filter;
    use crate::sys::testing::raw_call;
    use rustix::process::{WaitOptions, waitpid};

    fn profile(json: &str) -> Seccomp {
        serde_json::from_str(json).unwrap()
    }

    const LIST: &str = r#""syscalls": [{ "names": ["write", "exit_group", "pidfd_open", "no_such_call"], "action": "SCMP_ACT_ALLOW" }]"#;

    /// What the calls answer under the filter.
    fn answers(json: &str, calls: [i64; 3]) -> [i32; 3] {
        let program = compile(&profile(json)).unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let child = fork(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            Filter::new(&program, 0).unwrap().load().unwrap();
            for call in calls {
                rustix::io::write(&write, &raw_call(call).to_ne_bytes()).unwrap();
            }
            0
        });
        let (_, status) = waitpid(Some(child.unwrap()), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0), "{status:?}");
        let mut bytes = [0; 12];
        assert_eq!(rustix::io::read(&read, &mut bytes).unwrap(), 12);
        std::array::from_fn(|k| i32::from_ne_bytes(std::array::from_fn(|b| bytes[4 * k + b])))
    }

    #[test]
    fn a_call_above_the_newest_one_is_not_there_and_one_below_is_forbidden() {
        // pidfd_open is 434 on every architecture; 430 is fsopen, 435 clone3, 999 nothing at all.
        let calls = [430, 435, 999];
        let (eperm, enosys) = (libc::EPERM, libc::ENOSYS);
        let plain = format!(r#"{{ "defaultAction": "SCMP_ACT_ERRNO", {LIST} }}"#);
        assert_eq!(answers(&plain, calls), [eperm, enosys, enosys]);
        let more = r#""architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]"#;
        let three = format!(r#"{{ "defaultAction": "SCMP_ACT_ERRNO", {more}, {LIST} }}"#);
        assert_eq!(answers(&three, calls), [eperm, enosys, enosys]);
        let own = format!(r#"{{ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 25, {LIST} }}"#);
        assert_eq!(answers(&own, calls), [libc::ENOTTY, enosys, enosys]);
    }

    #[test]
    fn where_the_default_lets_calls_through_nothing_is_added() {
        for default in [r#""SCMP_ACT_ALLOW""#, r#""SCMP_ACT_LOG""#, r#""SCMP_ACT_ERRNO", "defaultErrnoRet": 38"#] {
            assert!(prefix(&profile(&format!(r#"{{ "defaultAction": {default}, {LIST} }}"#))).is_empty());
        }
        assert!(prefix(&profile(r#"{ "defaultAction": "SCMP_ACT_ERRNO" }"#)).is_empty(), "there is no newest call");
    }

    /// 32-bit calls cannot be made from here, so the program is looked at.
    #[test]
    fn each_architecture_has_its_own_newest_call() {
        let prefix = prefix(&profile(
            r#"{ "defaultAction": "SCMP_ACT_KILL", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
               "syscalls": [{ "names": ["readv"], "action": "SCMP_ACT_ALLOW" }] }"#,
        ));
        let limits: Vec<u32> = prefix
            .as_chunks::<8>()
            .0
            .iter()
            .filter(|i| u32::from(u16::from_ne_bytes([i[0], i[1]])) == libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K)
            .map(|i| u32::from_ne_bytes([i[4], i[5], i[6], i[7]]))
            .collect();
        if cfg!(target_arch = "x86_64") {
            // readv is 19 on x86_64, 515 with the bit on x32, 145 on x86.
            assert_eq!(limits, [19, X32_BIT + 515, 145]);
        }
    }
}
