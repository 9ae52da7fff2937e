//! From a profile to the BPF program that the kernel runs.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek};

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use lifecycle_engine::error::PlanError;
use nix::libc;
use rustix::fs::{MemfdFlags, memfd_create};

use super::unknown;
use crate::spec::{Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompOperator, SeccompSyscall};

/// Calls are looked up in a binary tree, which is faster than one after the other from some thirty on.
const BINARY_TREE: u32 = 2;

/// The program, as seccomp(2) takes it.
pub(crate) fn compile(profile: &Seccomp) -> Result<Vec<u8>, PlanError> {
    let default = action(profile.default_action, profile.default_errno_ret, "default_action")?;
    let build = |e| failed("", "the filter cannot be made", &e);
    let mut filter = ScmpFilterContext::new(default).map_err(build)?;
    // Loading is ours, and so is the decision on no_new_privs.
    filter.set_ctl_nnp(false).map_err(build)?;
    filter.set_ctl_optimize(BINARY_TREE).map_err(build)?;
    for (i, arch) in profile.architectures.iter().enumerate() {
        let at = format!("architectures.{i}");
        filter
            .add_arch(native(*arch))
            .map_err(|e| failed(&at, &format!("architecture {arch:?} cannot be added"), &e))?;
    }
    for (i, rule) in profile.syscalls.iter().enumerate() {
        add(&mut filter, rule, default, &format!("syscalls.{i}"))?;
    }
    let mut program = unknown::prefix(profile);
    program.extend(exported(&filter)?);
    Ok(program)
}

/// libseccomp writes programs to descriptors; to memory only since 2.6.
fn exported(filter: &ScmpFilterContext) -> Result<Vec<u8>, PlanError> {
    let no_memory = |e: io::Error| PlanError::new("", format!("no memory for the filter: {e}"));
    let memory = memfd_create("seccomp", MemfdFlags::CLOEXEC).map_err(|e| no_memory(e.into()))?;
    filter.export_bpf(&memory).map_err(|e| failed("", "the filter cannot be made", &e))?;
    let mut file = std::fs::File::from(memory);
    let mut program = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut program)).map_err(no_memory)?;
    Ok(program)
}

fn add(filter: &mut ScmpFilterContext, rule: &SeccompSyscall, default: ScmpAction, at: &str) -> Result<(), PlanError> {
    let action = action(rule.action, rule.errno_ret, &format!("{at}.action"))?;
    // libseccomp takes no rule that says what holds anyway.
    if action == default {
        return Ok(());
    }
    for name in &rule.names {
        // "names … not recognised by the kernel are ignored", as profiles are written for many kernels.
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        let wrong =
            |e: SeccompError| failed(&format!("{at}.names"), &format!("the rule for {name} cannot be added"), &e);
        for conditions in alternatives(&rule.args) {
            if conditions.is_empty() {
                filter.add_rule(action, call).map_err(wrong)?;
            } else {
                filter.add_rule_conditional(action, call, &conditions).map_err(wrong)?;
            }
        }
    }
    Ok(())
}

/// All conditions of a rule must hold. But libseccomp takes one per argument, and where a profile has more, every runtime makes each of them a rule
/// of its own; profiles rely on it.
fn alternatives(args: &[SeccompArg]) -> Vec<Vec<ScmpArgCompare>> {
    let mut seen = BTreeSet::new();
    let twice = args.iter().any(|arg| !seen.insert(arg.index));
    let compare = args.iter().map(condition);
    if twice { compare.map(|c| vec![c]).collect() } else { vec![compare.collect()] }
}

fn condition(arg: &SeccompArg) -> ScmpArgCompare {
    let (operator, value) = match arg.op {
        SeccompOperator::NotEqual => (ScmpCompareOp::NotEqual, arg.value),
        SeccompOperator::LessThan => (ScmpCompareOp::Less, arg.value),
        SeccompOperator::LessEqual => (ScmpCompareOp::LessOrEqual, arg.value),
        SeccompOperator::Equal => (ScmpCompareOp::Equal, arg.value),
        SeccompOperator::GreaterEqual => (ScmpCompareOp::GreaterEqual, arg.value),
        SeccompOperator::GreaterThan => (ScmpCompareOp::Greater, arg.value),
        SeccompOperator::MaskedEqual => (ScmpCompareOp::MaskedEqual(arg.value), arg.value_two),
    };
    ScmpArgCompare::new(arg.index, operator, value)
}

fn action(action: SeccompAction, errno: Option<u32>, at: &str) -> Result<ScmpAction, PlanError> {
    let errno = || {
        let errno = errno.unwrap_or(libc::EPERM as u32);
        u16::try_from(errno)
            .map_err(|_| PlanError::new(at, format!("{errno} is not an errno: it takes more than 16 bits")))
    };
    Ok(match action {
        SeccompAction::Kill | SeccompAction::KillThread => ScmpAction::KillThread,
        SeccompAction::KillProcess => ScmpAction::KillProcess,
        SeccompAction::Trap => ScmpAction::Trap,
        SeccompAction::Errno => ScmpAction::Errno(errno()?.into()),
        SeccompAction::Trace => ScmpAction::Trace(errno()?),
        SeccompAction::Allow => ScmpAction::Allow,
        SeccompAction::Log => ScmpAction::Log,
        SeccompAction::Notify => ScmpAction::Notify,
    })
}

fn failed(at: &str, what: &str, error: &SeccompError) -> PlanError {
    PlanError::new(at, format!("{what}: libseccomp says {error}"))
}

/// The library's name of it.
pub(super) fn native(arch: SeccompArch) -> ScmpArch {
    match arch {
        SeccompArch::X86 => ScmpArch::X86,
        SeccompArch::X86_64 => ScmpArch::X8664,
        SeccompArch::X32 => ScmpArch::X32,
        SeccompArch::Arm => ScmpArch::Arm,
        SeccompArch::Aarch64 => ScmpArch::Aarch64,
        SeccompArch::Mips => ScmpArch::Mips,
        SeccompArch::Mips64 => ScmpArch::Mips64,
        SeccompArch::Mips64n32 => ScmpArch::Mips64N32,
        SeccompArch::Mipsel => ScmpArch::Mipsel,
        SeccompArch::Mipsel64 => ScmpArch::Mipsel64,
        SeccompArch::Mipsel64n32 => ScmpArch::Mipsel64N32,
        SeccompArch::Ppc => ScmpArch::Ppc,
        SeccompArch::Ppc64 => ScmpArch::Ppc64,
        SeccompArch::Ppc64le => ScmpArch::Ppc64Le,
        SeccompArch::S390 => ScmpArch::S390,
        SeccompArch::S390x => ScmpArch::S390X,
        SeccompArch::Parisc => ScmpArch::Parisc,
        SeccompArch::Parisc64 => ScmpArch::Parisc64,
        SeccompArch::Riscv64 => ScmpArch::Riscv64,
        SeccompArch::Loongarch64 => ScmpArch::Loongarch64,
        SeccompArch::M68k => ScmpArch::M68k,
        SeccompArch::Sh => ScmpArch::Sh,
        SeccompArch::Sheb => ScmpArch::Sheb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clone::fork;
    use crate::sys::seccomp::Filter;
    use rustix::process::{WaitOptions, waitpid};

    fn profile(json: &str) -> Seccomp {
        serde_json::from_str(json).expect("profile")
    }

    /// Runs the body under the filter; it answers with what is wrong.
    fn under(json: &str, body: fn() -> i32) {
        let program = compile(&profile(json)).expect("compiles");
        let child = fork(|| {
            rustix::thread::set_no_new_privs(true).expect("no_new_privs");
            Filter::new(&program, 0).and_then(|filter| filter.load()).expect("load");
            body()
        });
        let (_, status) = waitpid(Some(child.expect("fork")), WaitOptions::empty()).expect("wait").expect("status");
        assert_eq!(status.exit_status(), Some(0), "{status:?}");
    }

    #[test]
    fn a_call_is_refused_with_the_errno_of_its_rule_and_others_are_not() {
        under(
            r#"{ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": [
                 { "names": ["sethostname", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 25 },
                 { "names": ["setdomainname"], "action": "SCMP_ACT_ERRNO" } ] }"#,
            || {
                let host = rustix::system::sethostname(b"x") == Err(rustix::io::Errno::NOTTY);
                let domain = rustix::system::setdomainname(b"x") == Err(rustix::io::Errno::PERM);
                i32::from(!(host && domain && rustix::process::getpid().as_raw_nonzero().get() > 0))
            },
        );
    }

    #[test]
    fn conditions_on_arguments_hold_and_two_on_one_argument_are_alternatives() {
        under(
            r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                 { "names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 25, "args": [
                   { "index": 0, "value": 18, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 23, "op": "SCMP_CMP_EQ" } ] },
                 { "names": ["dup"], "action": "SCMP_ACT_ERRNO", "errnoRet": 25, "args": [
                   { "index": 0, "value": 65536, "valueTwo": 65536, "op": "SCMP_CMP_MASKED_EQ" } ] } ] }"#,
            || {
                let mask = |m| nix::errno::Errno::result(sys_umask(m)) == Err(nix::errno::Errno::ENOTTY);
                let dup = |fd| nix::errno::Errno::result(sys_dup(fd)) == Err(nix::errno::Errno::ENOTTY);
                i32::from(!(mask(18) && mask(23) && !mask(7) && dup(65536) && !dup(0)))
            },
        );
    }

    use crate::sys::testing::{dup as sys_dup, umask as sys_umask};

    #[test]
    fn what_cannot_be_compiled_is_an_error_with_its_place() {
        let error =
            compile(&profile(r#"{ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 70000 }"#)).expect_err("errno");
        assert_eq!(error.field, "default_action");
    }

    #[test]
    fn the_same_profile_gives_the_same_program() {
        let text = r#"{ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read", "write", "exit_group"], "action": "SCMP_ACT_ALLOW" }] }"#;
        assert_eq!(compile(&profile(text)), compile(&profile(text)));
    }
}
