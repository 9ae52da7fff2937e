//! `linux.seccomp`: what the container's program may call.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::seccomp;
use serde_json::{Value, json};

use crate::boxed::Boxed;
use crate::oci_scene::Oci;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        linux_seccomp_default_action_and_default_errno_ret,
        linux_seccomp_architectures,
        linux_seccomp_syscalls_action,
        linux_seccomp_syscalls_args_op,
        linux_seccomp_flags,
        linux_seccomp_is_loaded_with_and_without_no_new_privileges,
        linux_seccomp_with_no_new_privileges_allows_execve_and_the_programs_own_calls_alone,
        linux_seccomp_without_no_new_privileges_allows_what_is_documented_besides,
        linux_seccomp_gives_up_what_loading_it_took,
        linux_seccomp_that_refuses_everything_ends_the_container,
        linux_seccomp_is_compiled_once_and_kept_by_content,
    ];
    tests.into_iter().map(|test| test.within("fields_seccomp").needs(&[Root, Program("busybox")])).collect()
}

/// SIGSYS, as a shell says it.
const KILLED: i32 = 128 + 31;

/// A container with this filter that runs the script.
pub(crate) fn filtered<'a>(lab: &'a Lab, script: &str, profile: &Value) -> lifecycle_tests::Result<Boxed<'a>> {
    let mut container = Boxed::runs(lab, script)?;
    container.edit(|config| config["linux"]["seccomp"] = profile.clone())?;
    Ok(container)
}

/// Everything is allowed but what the rules say.
pub(crate) fn but(rules: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules })
}

/// The smallest program that makes one system call and exits with its errno, or with 0.
fn probe(bits: u8, call: u32, path: &Path) -> TestResult {
    let [a, b, c, d] = call.to_le_bytes();
    let (code, machine): (Vec<u8>, u8) = match bits {
        // mov eax, CALL; xor edi, edi; syscall; mov edi, eax; neg edi; cmovs edi, zero; mov eax, exit; syscall
        64 => (
            [
                vec![0xb8, a, b, c, d],
                vec![0x31, 0xff, 0x31, 0xd2, 0x0f, 0x05, 0x89, 0xc7, 0xf7, 0xdf, 0x0f, 0x48, 0xfa],
                vec![0xb8, 60, 0, 0, 0, 0x0f, 0x05],
            ]
            .concat(),
            62,
        ),
        // mov eax, CALL; xor edx, edx; int 0x80; mov ebx, eax; neg ebx; cmovs ebx, edx; mov eax, exit; int 0x80
        _ => (
            [
                vec![0xb8, a, b, c, d],
                vec![0x31, 0xd2, 0xcd, 0x80, 0x89, 0xc3, 0xf7, 0xdb, 0x0f, 0x48, 0xda],
                vec![0xb8, 1, 0, 0, 0, 0xcd, 0x80],
            ]
            .concat(),
            3,
        ),
    };
    let word = |n: u32| if bits == 64 { u64::from(n).to_le_bytes().to_vec() } else { n.to_le_bytes().to_vec() };
    let (head, part, base) = if bits == 64 { (64_u16, 56_u16, 0x40_0000_u32) } else { (52, 32, 0x40_0000) };
    let start = u32::from(head + part);
    let length = start + code.len() as u32;
    let mut file = vec![0x7f, b'E', b'L', b'F', if bits == 64 { 2 } else { 1 }, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2, 0, machine, 0, 1, 0, 0, 0]);
    file.extend([word(base + start), word(head.into()), word(0), vec![0; 4]].concat());
    for half in [head, part, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let (load, readable_and_executable) = (1_u32.to_le_bytes().to_vec(), 5_u32.to_le_bytes().to_vec());
    let places = [word(0), word(base), word(base), word(length), word(length)].concat();
    file.extend(match bits {
        64 => [load, readable_and_executable, places, word(0x1000)].concat(),
        _ => [load, places, readable_and_executable, word(0x1000)].concat(),
    });
    file.extend(code);
    fs::write(path, file)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The errno that the call gets in a container with this filter; [`KILLED`] where that is the answer.
fn answer(container: &mut Boxed, bits: u8, call: u32) -> Result<i32, Box<dyn std::error::Error>> {
    probe(bits, call, &container.bundle.rootfs().join("probe"))?;
    container.edit(|config| config["process"]["args"] = json!(["/probe"]))?;
    let told = container.plan("oci/run", &[]);
    assert!(told.code < 125 || told.code == KILLED, "{}{}", told.out, told.err);
    container.scene.nothing_left()?;
    Ok(told.code)
}

pub fn linux_seccomp_default_action_and_default_errno_ret(lab: &Lab) -> TestResult {
    let allowed = [
        "execve",
        "exit",
        "write",
        "openat",
        "rt_sigaction",
        "rt_sigprocmask",
        "chdir",
        "getcwd",
        "close",
        "close_range",
        "fcntl",
        "brk",
        "sigaltstack",
        "munmap",
        "mmap",
        "getuid",
        "fstat",
        "newfstatat",
        "statx",
        "read",
        "lseek",
        "getuid",
        "pidfd_open",
    ];
    let profile = |more: Value| {
        let mut profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": allowed, "action": "SCMP_ACT_ALLOW" }] });
        if let (Some(profile), Some(more)) = (profile.as_object_mut(), more.as_object()) {
            profile.extend(more.clone());
        }
        profile
    };
    let mut container = filtered(lab, "", &profile(json!({})))?;
    // 102 is getuid, 39 getpid. 450 is set_mempolicy_home_node: above close_range, the newest that the profile names. 999 is nothing.
    assert_eq!(answer(&mut container, 64, 102)?, 0);
    assert_eq!(answer(&mut container, 64, 39)?, libc::EPERM);
    assert_eq!(answer(&mut container, 64, 450)?, libc::ENOSYS, "a call newer than the profile");
    assert_eq!(answer(&mut container, 64, 999)?, libc::ENOSYS);
    container.edit(|config| config["linux"]["seccomp"] = profile(json!({ "defaultErrnoRet": 25 })))?;
    assert_eq!(answer(&mut container, 64, 39)?, 25);
    assert_eq!(answer(&mut container, 64, 450)?, libc::ENOSYS);
    container
        .edit(|config| config["linux"]["seccomp"] = profile(json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS" })))?;
    assert_eq!(answer(&mut container, 64, 39)?, KILLED);
    Ok(())
}

pub fn linux_seccomp_architectures(lab: &Lab) -> TestResult {
    const X32: u32 = 0x4000_0000;
    let rule = json!([{ "names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 25 }]);
    let mut container = filtered(lab, "", &but(rule))?;
    // getpid is 39 on x86_64 and x32, and 20 on x86.
    assert_eq!(answer(&mut container, 64, 39)?, 25);
    assert_eq!(answer(&mut container, 32, 20)?, KILLED, "a call of an architecture that is not listed");
    assert_eq!(answer(&mut container, 64, X32 + 39)?, KILLED);
    container.edit(|config| {
        config["linux"]["seccomp"]["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    })?;
    assert_eq!(answer(&mut container, 64, 39)?, 25);
    assert_eq!(answer(&mut container, 32, 20)?, 25);
    assert_eq!(answer(&mut container, 64, X32 + 39)?, 25);
    Ok(())
}

/// What a container that has been created may do is in the kernel's own copy of its filter.
pub(crate) fn returns(pid: i32) -> std::io::Result<Vec<(Vec<u32>, u64)>> {
    let constants = |program: &seccomp::Program| {
        let returns =
            program.iter().filter(|i| u32::from(u16::from_ne_bytes([i[0], i[1]])) == libc::BPF_RET | libc::BPF_K);
        returns.map(|i| u32::from_ne_bytes([i[4], i[5], i[6], i[7]])).collect()
    };
    Ok(seccomp::filters(pid)?.iter().map(|(program, flags)| (constants(program), *flags)).collect())
}

pub fn linux_seccomp_syscalls_action(lab: &Lab) -> TestResult {
    let script = "mkdir /dev/shm/made; echo $?; trap 'echo trapped' SYS; umask 0; echo still here";
    let rule = |action: &str| {
        but(
            json!([{ "names": ["mkdir"], "action": action }, { "names": ["umask"], "action": action, "errnoRet": null }]),
        )
    };
    let mut container = filtered(lab, script, &rule("SCMP_ACT_ALLOW"))?;
    let (kernel, data) = (libc::SECCOMP_RET_ACTION_FULL, libc::SECCOMP_RET_DATA);
    // What the shell sees of each, and what the kernel holds.
    let cases = [
        ("SCMP_ACT_ALLOW", "0\nstill here\n", 0, libc::SECCOMP_RET_ALLOW),
        ("SCMP_ACT_LOG", "0\nstill here\n", 0, libc::SECCOMP_RET_LOG),
        ("SCMP_ACT_ERRNO", "1\nstill here\n", 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        // Without a tracer the call is not there.
        ("SCMP_ACT_TRACE", "1\nstill here\n", 0, libc::SECCOMP_RET_TRACE | libc::EPERM as u32),
        ("SCMP_ACT_TRAP", "159\ntrapped\n", 0, libc::SECCOMP_RET_TRAP),
        ("SCMP_ACT_KILL", "159\n", KILLED, libc::SECCOMP_RET_KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", "159\n", KILLED, libc::SECCOMP_RET_KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", "159\n", KILLED, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    for (action, out, code, answer) in cases {
        container.edit(|config| {
            // A shell that is process 1 of its namespace is deaf to its own SIGSYS.
            if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
                namespaces.retain(|namespace| namespace["type"] != "pid");
            }
            // With no_new_privileges a container that is only created has no filter yet.
            config["process"]["noNewPrivileges"] = json!(false);
            config["linux"]["seccomp"] = rule(action);
        })?;
        let told = container.plan("oci/run", &[]);
        assert_eq!(told.code, code, "{action}: {}{}", told.out, told.err);
        assert!(told.out.starts_with(out), "{action}: {}{}", told.out, told.err);
        let pid = container.create()?;
        let filters = returns(pid)?;
        assert_eq!(filters.len(), 1, "{action}");
        assert!(filters[0].0.contains(&answer), "{action}: {:x?} has no {answer:x}", filters[0].0);
        container.delete().ended(0);
        container.scene.nothing_left()?;
    }
    // errnoRet is for the actions that have one.
    for (action, kind) in [("SCMP_ACT_ERRNO", libc::SECCOMP_RET_ERRNO), ("SCMP_ACT_TRACE", libc::SECCOMP_RET_TRACE)] {
        container.edit(|config| {
            config["linux"]["seccomp"] = but(json!([{ "names": ["mkdir"], "action": action, "errnoRet": 99 }]));
        })?;
        let pid = container.create()?;
        let all = returns(pid)?.remove(0).0;
        assert!(all.iter().any(|answer| answer & kernel == kind && answer & data == 99), "{action}: {all:x?}");
        container.delete().ended(0);
    }
    container.edit(|config| {
        config["linux"]["seccomp"] = but(json!([{ "names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1 }]));
    })?;
    container.plan("oci/run", &[]).ended(125).says(&["linux.seccomp.syscalls[0].errnoRet", "SCMP_ACT_ERRNO"]);
    Ok(container.scene.nothing_left()?)
}

pub fn linux_seccomp_syscalls_args_op(lab: &Lab) -> TestResult {
    // Signals that do nothing to a shell.
    let script = "for n in 0 17 18 23 28; do kill -$n $$ 2>/dev/null && echo -n \"$n \"; done";
    let mut container = filtered(lab, script, &but(json!([])))?;
    let cases = [
        ("SCMP_CMP_NE", 18, 0, "18 "),
        ("SCMP_CMP_LT", 18, 0, "18 23 28 "),
        ("SCMP_CMP_LE", 18, 0, "23 28 "),
        ("SCMP_CMP_EQ", 18, 0, "0 17 23 28 "),
        ("SCMP_CMP_GE", 18, 0, "0 17 "),
        ("SCMP_CMP_GT", 18, 0, "0 17 18 "),
        // 23 and 28 have the bit.
        ("SCMP_CMP_MASKED_EQ", 4, 4, "0 17 18 "),
        ("SCMP_CMP_MASKED_EQ", 4, 0, "23 28 "),
    ];
    for (op, value, value_two, passes) in cases {
        let arg = json!({ "index": 1, "value": value, "valueTwo": value_two, "op": op });
        container.edit(|config| {
            config["linux"]["seccomp"] = but(json!([{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [arg] }]));
        })?;
        let told = container.plan("oci/run", &[]);
        assert_eq!(told.out, passes, "{op} {value} {value_two}: {}", told.err);
    }
    // All conditions of a rule must hold.
    let both =
        json!([{ "index": 1, "value": 17, "op": "SCMP_CMP_GT" }, { "index": 2, "value": 0, "op": "SCMP_CMP_NE" }]);
    container.edit(|config| {
        config["linux"]["seccomp"] = but(json!([{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": both }]));
    })?;
    assert!(container.plan("oci/run", &[]).out.starts_with("0 17 "));
    Ok(container.scene.nothing_left()?)
}

pub fn linux_seccomp_flags(lab: &Lab) -> TestResult {
    let mut container = filtered(lab, "true", &but(json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }])))?;
    let flags = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    for (flags, kept) in
        [(&flags[..0], 0), (&flags[1..2], libc::SECCOMP_FILTER_FLAG_LOG), (&flags[..], libc::SECCOMP_FILTER_FLAG_LOG)]
    {
        container.edit(|config| {
            config["process"]["noNewPrivileges"] = json!(false);
            config["linux"]["seccomp"]["flags"] = json!(flags);
        })?;
        let pid = container.create()?;
        // The kernel remembers this one alone.
        assert_eq!(returns(pid)?[0].1, kept, "{flags:?}");
        container.delete().ended(0);
    }
    container
        .plan("oci/run", &["--mask", "seccomp.flags"])
        .ended(125)
        .says(&["SECCOMP_FILTER_FLAG_TSYNC", "Linux 3.17"]);
    container.plan("oci/run", &["--mask", "seccomp.actions"]).ended(125).says(&["does not have the action `allow`"]);
    Ok(container.scene.nothing_left()?)
}

pub fn linux_seccomp_is_loaded_with_and_without_no_new_privileges(lab: &Lab) -> TestResult {
    let rule = but(json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 25 }]));
    let mut container =
        filtered(lab, "mkdir /dev/shm/made 2>&1; grep -E 'NoNewPrivs|Seccomp:' /proc/self/status", &rule)?;
    for no_new_privileges in [true, false] {
        container.edit(|config| config["process"]["noNewPrivileges"] = json!(no_new_privileges))?;
        let told = container.plan("oci/run", &[]).ended(0);
        let wanted = format!("NoNewPrivs:\t{}\nSeccomp:\t2", u8::from(no_new_privileges));
        assert!(told.out.contains("Inappropriate ioctl") && told.out.contains(&wanted), "{}{}", told.out, told.err);
    }
    Ok(container.scene.nothing_left()?)
}

/// Whatever else is called ends the process. The program makes the one call that is its own, and exits.
fn allows(more: &[&str]) -> Value {
    let names = [&["execve", "getpid", "exit"], more].concat();
    json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }] })
}

/// In run, in create and start, and in exec; whatever else the process has to do before.
fn is_enough(lab: &Lab, profile: &Value, no_new_privileges: bool) -> TestResult {
    let mut oci = Oci::new(lab, &["/probe"])?;
    probe(64, libc::SYS_getpid as u32, &oci.bundle.rootfs().join("probe"))?;
    fs::create_dir(oci.bundle.rootfs().join("home"))?;
    oci.edit(|config| {
        config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [7] });
        config["process"]["cwd"] = json!("/home");
        config["linux"]["seccomp"] = profile.clone();
    })?;
    oci.told(&["run", "--bundle", "bundle", &oci.id]).ended(0);
    oci.create(&[]);
    oci.verb("start").ended(0);
    oci.wait_for_status("stopped")?;
    oci.told(&["delete", &oci.id]).ended(0);
    // Under a filter of its own that lets the container live.
    oci.edit(|config| {
        config["process"]["args"] = json!(["sleep", "600"]);
        config["linux"]["seccomp"] = json!(null);
    })?;
    oci.running(&[]);
    oci.bundle.edit(|config| config["linux"]["seccomp"] = profile.clone())?;
    oci.told(&["exec", &oci.id, "/probe"]).ended(0);
    oci.bundle.edit(|config| config["linux"]["seccomp"] = json!(null))?;
    Ok(oci.gone()?)
}

pub fn linux_seccomp_with_no_new_privileges_allows_execve_and_the_programs_own_calls_alone(lab: &Lab) -> TestResult {
    is_enough(lab, &allows(&[]), true)
}

/// The calls that docs/security.md says a profile has to allow.
const DOCUMENTED: &str = include_str!("../../docs/security.md");

pub fn linux_seccomp_without_no_new_privileges_allows_what_is_documented_besides(lab: &Lab) -> TestResult {
    let (_, after) = DOCUMENTED.split_once("has to allow, besides what the program calls: ").ok_or("no list")?;
    let (list, _) = after.split_once('.').ok_or("no end of the list")?;
    let calls: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    let mut profile = allows(&calls);
    let refused = json!({ "names": ["capset"], "action": "SCMP_ACT_ERRNO" });
    profile["syscalls"].as_array_mut().ok_or("no rules")?.push(refused);
    is_enough(lab, &profile, false)
}

/// CAP_SYS_ADMIN, capabilities(7).
const SYS_ADMIN: u64 = 1 << 21;

/// It is kept for the filter, and neither a created container nor its program has it.
pub fn linux_seccomp_gives_up_what_loading_it_took(lab: &Lab) -> TestResult {
    let rule = but(json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }]));
    let mut container = filtered(lab, "grep -E '^Cap|^Seccomp:' /proc/self/status", &rule)?;
    for uid in [0, 1000] {
        container.edit(|config| {
            config["process"]["noNewPrivileges"] = json!(false);
            config["process"]["user"] = json!({ "uid": uid, "gid": uid });
        })?;
        let sets = |status: &str| -> Vec<u64> {
            let sets = status.lines().filter_map(|line| line.strip_prefix("Cap")?.split_whitespace().nth(1));
            sets.flat_map(|set| u64::from_str_radix(set, 16)).collect()
        };
        let pid = container.create()?;
        let created = fs::read_to_string(format!("/proc/{pid}/status"))?;
        assert!(created.contains("Seccomp:\t2"), "{created}");
        container.delete().ended(0);
        let program = container.plan("oci/run", &[]).ended(0).out;
        assert!(program.contains("Seccomp:\t2"), "{program}");
        for status in [&created, &program] {
            assert!(sets(status).len() == 5 && sets(status).iter().all(|set| set & SYS_ADMIN == 0), "{status}");
        }
    }
    Ok(container.scene.nothing_left()?)
}

/// Neither execve nor exit is there any more, nor a way to tell anybody.
pub fn linux_seccomp_that_refuses_everything_ends_the_container(lab: &Lab) -> TestResult {
    let nothing = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [] });
    let mut container = filtered(lab, "true", &nothing)?;
    for no_new_privileges in [true, false] {
        container.edit(|config| config["process"]["noNewPrivileges"] = json!(no_new_privileges))?;
        let told = container.plan("oci/run", &[]).ended_badly();
        assert!(no_new_privileges || told.err.contains("seccomp filter"), "{}", told.err);
        container.scene.nothing_left()?;
    }
    Ok(())
}

/// Compiled once, and then taken from the cache, if that is to be trusted.
pub fn linux_seccomp_is_compiled_once_and_kept_by_content(lab: &Lab) -> TestResult {
    let cache = Path::new("/var/cache/lifecycle/seccomp");
    let rule = but(json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }]));
    let mut container =
        filtered(lab, "mkdir /dev/shm/made 2>/dev/null; s=$?; rmdir /dev/shm/made 2>/dev/null; exit $s", &rule)?;
    container.plan("oci/run", &[]).ended(1);
    let kept = || -> std::io::Result<Vec<_>> { fs::read_dir(cache)?.map(|entry| Ok(entry?.path())).collect() };
    let [file] = &kept()?[..] else { return Err(format!("{:?}", kept()?).into()) };
    assert_eq!(fs::metadata(file)?.permissions().mode() & 0o7777, 0o600);
    let whole = fs::read(file)?;
    // One that allows everything, and is whole: used, so this is where the filter comes from.
    let key = file.file_name().and_then(|name| name.to_str()).ok_or("no name")?;
    let allows: [u8; 8] = [6, 0, 0, 0, 0, 0, 0xff, 0x7f];
    let hash = lifecycle_engine::facts::sha256(&allows);
    let other = [format!("lifecycle-seccomp-1 {key} {hash}\n").as_bytes(), &allows].concat();
    fs::write(file, &other)?;
    container.plan("oci/run", &[]).ended(0);
    assert_eq!(fs::read(file)?, other, "what was found was written again");
    // The same, but somebody else could have written it.
    fs::set_permissions(file, fs::Permissions::from_mode(0o666))?;
    container.plan("oci/run", &[]).ended(1);
    assert_eq!(fs::read(file)?, whole, "it was made good");
    // Damaged, and made good.
    let mut damaged = other.clone();
    damaged[100] ^= 1;
    fs::write(file, &damaged)?;
    container.plan("oci/run", &[]).ended(1);
    assert_eq!(fs::read(file)?, whole);
    // Another profile, another file.
    container.edit(|config| config["linux"]["seccomp"]["syscalls"][0]["errnoRet"] = json!(2))?;
    container.plan("oci/run", &[]).ended(1);
    assert_eq!(kept()?.len(), 2);
    // No cache to be had: compiled.
    fs::remove_dir_all("/var/cache/lifecycle")?;
    fs::write("/var/cache/lifecycle", "in the way")?;
    container.plan("oci/run", &[]).ended(1);
    Ok(container.scene.nothing_left()?)
}
