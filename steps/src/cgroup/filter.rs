//! Device rules as the eBPF program that cgroup v2 wants.

use super::devices::{DeviceRules, Exception};
use crate::sys::bpf::Instruction;

impl DeviceRules {
    /// The program that decides by these rules: 1 allows, 0 denies. Its argument is `struct bpf_cgroup_dev_ctx`: access << 16 | type, major,
    /// minor.
    pub fn program(&self) -> Vec<Instruction> {
        let mut code = vec![
            load(TYPE, 0),
            and(TYPE, 0xFFFF),
            load(ACCESS, 0),
            shift_right(ACCESS, 16),
            load(MAJOR, 4),
            load(MINOR, 8),
        ];
        for exception in &self.exceptions {
            exception.compile(!self.allow_all, &mut code);
        }
        code.extend([set(RESULT, i32::from(self.allow_all)), EXIT]);
        code
    }
}

impl Exception {
    /// linux/bpf.h: BPF_DEVCG_ACC_MKNOD 1, READ 2, WRITE 4.
    fn access_bits(&self) -> i32 {
        let bits = [('m', 1), ('r', 2), ('w', 4)];
        bits.iter().filter(|(letter, _)| self.access.contains(*letter)).map(|(_, bit)| bit).sum()
    }

    /// An exception that allows has to cover all the access asked for; one that denies, any of it. As cgroup v1 does.
    fn compile(&self, allow: bool, code: &mut Vec<Instruction>) {
        // BPF_DEVCG_DEV_BLOCK 1, CHAR 2
        let mut block = vec![jump_unless_equal(TYPE, if self.kind == 'b' { 1 } else { 2 })];
        block.extend(self.major.map(|n| jump_unless_equal(MAJOR, n as i32)));
        block.extend(self.minor.map(|n| jump_unless_equal(MINOR, n as i32)));
        block.push(copy(SCRATCH, ACCESS));
        if allow {
            block.extend([and(SCRATCH, !self.access_bits()), jump_unless_equal(SCRATCH, 0)]);
        } else {
            block.extend([and(SCRATCH, self.access_bits()), jump_if_equal(SCRATCH, 0)]);
        }
        block.extend([set(RESULT, i32::from(allow)), EXIT]);
        // Each jump leads past the end of the block, to the next exception.
        let length = block.len();
        for (index, instruction) in block.iter_mut().enumerate() {
            if matches!(instruction.code, JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL) {
                instruction.offset = (length - index - 1) as i16;
            }
        }
        code.append(&mut block);
    }
}

// Registers: the kernel takes the result in 0 and gives the argument in 1.
const RESULT: u8 = 0;
const ARGUMENT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 0;

// linux/bpf_common.h and linux/bpf.h: class | operation | source. All on 32 bits; jumps on 32 bits came with Linux 5.1.
const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const SET: u8 = 0xb4;
const COPY: u8 = 0xbc;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

fn load(to: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: (ARGUMENT << 4) | to, offset, immediate: 0 }
}

fn copy(to: u8, from: u8) -> Instruction {
    Instruction { code: COPY, registers: (from << 4) | to, offset: 0, immediate: 0 }
}

fn with_constant(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

fn and(register: u8, mask: i32) -> Instruction {
    with_constant(AND, register, mask)
}

fn shift_right(register: u8, bits: i32) -> Instruction {
    with_constant(SHIFT_RIGHT, register, bits)
}

fn set(register: u8, value: i32) -> Instruction {
    with_constant(SET, register, value)
}

fn jump_if_equal(register: u8, value: i32) -> Instruction {
    with_constant(JUMP_IF_EQUAL, register, value)
}

fn jump_unless_equal(register: u8, value: i32) -> Instruction {
    with_constant(JUMP_UNLESS_EQUAL, register, value)
}

#[cfg(test)]
mod tests {
    use super::super::devices::rules;
    use super::*;
    use crate::spec::{DeviceRule, DeviceType};

    const BLOCK: i32 = 1;
    const CHAR: i32 = 2;
    const MKNOD: i32 = 1;
    const READ: i32 = 2;
    const WRITE: i32 = 4;

    /// Runs the program as the kernel would.
    fn decide(code: &[Instruction], kind: i32, major: i32, minor: i32, access: i32) -> bool {
        let mut r = [0_i32; 10];
        let mut at = 0;
        loop {
            let i = &code[at];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            at += 1;
            match i.code {
                LOAD_WORD => r[to] = [access << 16 | kind, major, minor][i.offset as usize / 4],
                AND => r[to] &= i.immediate,
                SHIFT_RIGHT => r[to] = (r[to] as u32 >> i.immediate) as i32,
                SET => r[to] = i.immediate,
                COPY => r[to] = r[from],
                JUMP_IF_EQUAL if r[to] == i.immediate => at += i.offset as usize,
                JUMP_UNLESS_EQUAL if r[to] != i.immediate => at += i.offset as usize,
                JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL => {}
                _ => return r[0] == 1,
            }
        }
    }

    fn program(given: &[DeviceRule]) -> Vec<Instruction> {
        DeviceRules::of(&rules(given).expect("legal")).expect("expressible").program()
    }

    fn rule(allow: bool, kind: Option<DeviceType>, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
        DeviceRule { allow, kind, major, minor, access: Some(access.into()) }
    }

    #[test]
    fn the_default_devices_are_usable_and_no_others() {
        let code = program(&[rule(false, None, None, None, "rwm")]);
        assert!(decide(&code, CHAR, 1, 3, READ | WRITE));
        assert!(decide(&code, CHAR, 136, 7, READ | WRITE));
        assert!(decide(&code, BLOCK, 8, 0, MKNOD), "a node may be made");
        assert!(!decide(&code, BLOCK, 8, 0, READ), "and not read");
        assert!(!decide(&code, CHAR, 1, 1, WRITE), "nor /dev/mem written");
    }

    #[test]
    fn an_exception_from_allow_all_denies_any_of_its_access() {
        let block = Some(DeviceType::B);
        let code = program(&[rule(true, None, None, None, "rwm"), rule(false, block, Some(8), Some(0), "w")]);
        assert!(decide(&code, BLOCK, 8, 0, READ));
        assert!(!decide(&code, BLOCK, 8, 0, READ | WRITE));
        assert!(decide(&code, BLOCK, 8, 1, WRITE));
        assert!(decide(&code, CHAR, 1, 1, WRITE));
    }

    #[test]
    fn the_kernel_accepts_the_program() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let program = crate::sys::bpf::load_device_program(&program(&[])).expect("the verifier's consent");
        assert_ne!(crate::sys::bpf::program_id(&program).expect("a number"), 0);
    }
}
