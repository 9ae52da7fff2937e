//! The fields of config.json's `process`, each performed on a real container and read off its process. A test's name begins with the fields'
//! path in the runtime-spec.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Error, Result, While, program};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::fields::{Field, line, proc};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Kernel, Program, Root};
    let tests = lifecycle_tests::tests![
        process_scheduler_policy_and_nice,
        process_scheduler_priority_and_flags,
        #[needs(Program("chrt"))]
        process_scheduler_runtime_deadline_and_period,
        #[needs(Program("ionice"))]
        process_io_priority,
        #[needs(Kernel("/sys/devices/system/cpu/cpu1", "a second CPU"))]
        process_exec_cpu_affinity_initial_and_final,
        #[needs(Kernel("/sys/devices/system/cpu/cpu1", "a second CPU"))]
        process_scheduler_io_priority_and_exec_cpu_affinity_of_an_exec,
        linux_personality,
        #[needs(Kernel("/proc/self/numa_maps", "a kernel with NUMA"))]
        linux_memory_policy_mode_nodes_and_flags,
        process_apparmor_profile,
        process_selinux_label,
        linux_mount_label,
        process_args_env_and_cwd,
        process_rlimits,
        process_rlimits_above_the_callers_own,
        process_user_uid_gid_umask_and_additional_gids,
        process_capabilities,
        process_no_new_privileges,
        process_oom_score_adj,
        process_terminal_and_console_size,
        hostname_and_domainname,
        linux_sysctl,
    ];
    tests.into_iter().map(|test| test.within("fields_process").needs(&[Root, Program("busybox")])).collect()
}

/// A field of /proc/PID/stat, numbered as in proc_pid_stat(5).
fn stat(text: &str, field: usize) -> i64 {
    let after = text.lines().next().and_then(|line| line.rsplit(')').next()).unwrap_or_default();
    let word = after.split_whitespace().nth(field - 3).unwrap_or_default();
    word.parse().unwrap_or_else(|error| panic!("field {field} is {word:?} ({error}): {text}"))
}

const NICE: usize = 19;
const PRIORITY: usize = 40;
const POLICY: usize = 41;

pub fn process_scheduler_policy_and_nice(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    for (policy, number, nice) in [("SCHED_BATCH", 3, 7), ("SCHED_OTHER", 0, 3), ("SCHED_IDLE", 5, 0)] {
        field.config(|config| config["process"]["scheduler"] = json!({ "policy": policy, "nice": nice }))?;
        let inside = field.prints(&["cat", "/proc/self/stat"])?;
        assert_eq!(stat(&inside, POLICY), number, "{policy}: {inside}");
        // SCHED_IDLE is below every nice value.
        assert!(policy == "SCHED_IDLE" || stat(&inside, NICE) == nice, "{policy}: {inside}");
    }
    field.running(|pid| {
        assert_eq!(stat(&proc(pid, "stat")?, POLICY), 5);
        Ok(())
    })?;
    field.config(|config| config["process"]["scheduler"] = json!({ "policy": "SCHED_ISO" }))?;
    Ok(field.is_refused(&["process.scheduler.policy", "SCHED_ISO"])?)
}

/// With CONFIG_RT_GROUP_SCHED the container's cgroup needs real time of its own.
pub fn process_scheduler_priority_and_flags(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.config(|config| {
        config["process"]["scheduler"] =
            json!({ "policy": "SCHED_FIFO", "priority": 42, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
        if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
            config["linux"]["resources"]["cpu"] = json!({ "realtimeRuntime": 5000, "realtimePeriod": 1_000_000 });
        }
    })?;
    // The shell has it; what it forks does not.
    let inside = field.shell("cat /proc/$$/stat /proc/self/stat | cat")?;
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!((stat(lines[0], POLICY), stat(lines[0], PRIORITY)), (1, 42), "{inside}");
    assert_eq!((stat(lines[1], POLICY), stat(lines[1], PRIORITY)), (0, 0), "{inside}");
    Ok(())
}

pub fn process_scheduler_runtime_deadline_and_period(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let deadline = |runtime: u64| {
        json!({ "policy": "SCHED_DEADLINE", "runtime": runtime, "deadline": 10_000_000, "period": 20_000_000,
                "flags": ["SCHED_FLAG_RESET_ON_FORK"] })
    };
    field.config(|config| config["process"]["scheduler"] = deadline(1_000_000))?;
    field.running(|pid| {
        assert_eq!(stat(&proc(pid, "stat")?, POLICY), 6);
        let shown = program::output("chrt", &["-p", &pid.to_string()])?;
        assert!(shown.contains("1000000/10000000/20000000"), "{shown}");
        Ok(())
    })?;
    field.config(|config| config["process"]["scheduler"] = deadline(11_000_000))?;
    Ok(field.is_refused(&["process.scheduler.runtime", "longer than the deadline"])?)
}

pub fn process_io_priority(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    for (class, level, shown) in [
        ("IOPRIO_CLASS_BE", 6, "best-effort: prio 6"),
        ("IOPRIO_CLASS_RT", 3, "realtime: prio 3"),
        ("IOPRIO_CLASS_IDLE", 0, "idle"),
    ] {
        field.config(|config| config["process"]["ioPriority"] = json!({ "class": class, "priority": level }))?;
        field.running(|pid| {
            assert_eq!(program::output("ionice", &["-p", &pid.to_string()])?.trim(), shown);
            Ok(())
        })?;
    }
    field.config(|config| config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }))?;
    Ok(field.is_refused(&["process.ioPriority.priority"])?)
}

/// As an exec's plan uses them: where the process is before it is in its cgroup, and where after.
pub fn process_exec_cpu_affinity_initial_and_final(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let cpus = |with: &str, last: &str| -> Result<String> {
        let script = "grep Cpus_allowed_list /proc/self/status";
        let plan = format!(
            "plan: {}\nsteps:\n  cgroup: {{ uses: cgroup.create, with: {{ path: \"/{0}/affinity\" }} }}\n  init:\n    uses: process.clone\n    \
             with: {{ new: [pid], cgroup: \"${{cgroup.join}}\", {with} }}\n  \
             affinity: {{ uses: process.affinity, site: \"${{init}}\", with: {{ {last} }} }}\n  \
             exec: {{ uses: process.exec, site: \"${{init}}\", with: {{ args: [/bin/sh, -c, \"{script}\"] }} }}\n  \
             wait: {{ uses: process.wait, with: {{ process: \"${{init.process}}\" }} }}\nmain: wait\n",
            lab.token()
        );
        field.scene.write("affinity.yaml", &plan)?;
        let told = field.scene.told(&["run", "affinity.yaml"]).ended(0);
        Ok(line(&told.out, "Cpus_allowed_list"))
    };
    assert_eq!(cpus("cpu_affinity: \"1\"", "")?, "1");
    assert_eq!(cpus("cpu_affinity: \"1\"", "cpus: \"0\"")?, "0");
    assert_eq!(cpus("oom_score_adj: 1", "cpus: 0-1")?, "0-1");
    for (name, list) in [("initial", "0 1"), ("final", "3-1")] {
        field.config(|config| config["process"]["execCPUAffinity"] = json!({ name: list }))?;
        field.is_refused(&[&format!("process.execCPUAffinity.{name}"), list])?;
    }
    // It is for exec alone: the container's own process runs everywhere.
    field.config(|config| config["process"]["execCPUAffinity"] = json!({ "initial": "1", "final": "1" }))?;
    assert_ne!(line(&field.prints(&["cat", "/proc/self/status"])?, "Cpus_allowed_list"), "1");
    Ok(())
}

/// What an exec's own process asks for, and not what the container's does.
pub fn process_scheduler_io_priority_and_exec_cpu_affinity_of_an_exec(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.config(|config| config["process"]["scheduler"] = json!({ "policy": "SCHED_IDLE" }))?;
    let process = |more: Value| {
        let mut process =
            json!({ "args": ["cat", "/proc/self/stat", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"] });
        for (name, value) in more.as_object().into_iter().flatten() {
            process[name] = value.clone();
        }
        process
    };
    field.running(|_| {
        let asked = json!({
            "scheduler": { "policy": "SCHED_BATCH", "nice": 11 },
            "ioPriority": { "class": "IOPRIO_CLASS_IDLE", "priority": 0 },
            "execCPUAffinity": { "initial": "1", "final": "0" },
        });
        let inside = field.executes(&process(asked))?.ended(0).out;
        assert_eq!((stat(&inside, POLICY), stat(&inside, NICE)), (3, 11), "{inside}");
        assert_eq!(line(&inside, "Cpus_allowed_list"), "0");
        // Without a final one it stays where it began.
        let inside = field.executes(&process(json!({ "execCPUAffinity": { "initial": "1" } })))?.ended(0).out;
        assert_eq!((stat(&inside, POLICY), line(&inside, "Cpus_allowed_list").as_str()), (0, "1"), "{inside}");
        for (name, value, words) in [
            ("execCPUAffinity", json!({ "final": "1-" }), "process.execCPUAffinity.final"),
            ("apparmorProfile", json!("docker-default"), "AppArmor is not in force"),
            ("selinuxLabel", json!("a:b:c:s0"), "SELinux is not in force"),
        ] {
            let told = field.executes(&process(json!({ name: value })))?;
            // A machine that has the module may also have what was asked for.
            assert!(told.code != 0 || name != "execCPUAffinity", "{name}: {}", told.out);
            if told.code != 0 {
                told.says(&[words]);
            }
        }
        Ok(())
    })?;
    Ok(())
}

pub fn linux_personality(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let native = field.prints(&["uname", "-m"])?;
    field.config(|config| config["linux"]["personality"] = json!({ "domain": "LINUX32" }))?;
    field.running(|pid| {
        assert_eq!(proc(pid, "personality")?.trim(), "00000008");
        Ok(())
    })?;
    if native.trim() == "x86_64" {
        assert_eq!(field.prints(&["uname", "-m"])?.trim(), "i686");
    }
    field.config(|config| config["linux"]["personality"] = json!({ "domain": "LINUX" }))?;
    assert_eq!(field.prints(&["uname", "-m"])?, native);
    field.config(|config| config["linux"]["personality"]["flags"] = json!(["ADDR_NO_RANDOMIZE"]))?;
    Ok(field.is_refused(&["linux.personality.flags", "defines none"])?)
}

pub fn linux_memory_policy_mode_nodes_and_flags(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    for (policy, shown) in [
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), " bind:0 "),
        (json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }), " interleave=static:0 "),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"] }), " prefer=relative:0 "),
        (json!({ "mode": "MPOL_LOCAL" }), " local "),
    ] {
        field.config(|config| config["linux"]["memoryPolicy"] = policy)?;
        let maps = field.prints(&["cat", "/proc/self/numa_maps"])?;
        assert!(maps.contains(shown), "no{shown}in:\n{maps}");
    }
    for (policy, words) in [
        (json!({ "mode": "MPOL_BIND" }), "linux.memoryPolicy.nodes"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0,x" }), "`0,x` is not a list"),
        (json!({ "mode": "MPOL_LOCAL", "flags": ["MPOL_F_NUMA_BALANCING"] }), "linux.memoryPolicy.flags"),
    ] {
        field.config(|config| config["linux"]["memoryPolicy"] = policy)?;
        field.is_refused(&[words])?;
    }
    Ok(())
}

/// What the machine lacks is refused with the fact; where it is in force, only what is loaded there could be asked for.
fn refused_without(lab: &Lab, module: &str, set: impl FnOnce(&mut Value), words: &[&str]) -> TestResult {
    let mut field = Field::new(lab)?;
    let facts = field.scene.told(&["facts", "--format", "json"]).ended(0);
    let facts: Value = serde_json::from_str(&facts.out)?;
    let active = facts["host"]["lsm"].as_array().cloned().unwrap_or_default();
    field.config(set)?;
    if !active.contains(&json!(module)) {
        field.is_refused(words)?;
        field.is_refused(&["fact `lsm`"])?;
    }
    Ok(())
}

pub fn process_apparmor_profile(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    // What there is without any profile is not refused.
    field.config(|config| config["process"]["apparmorProfile"] = json!("unconfined"))?;
    assert_eq!(field.prints(&["echo", "unconfined"])?, "unconfined\n");
    drop(field);
    std::fs::remove_dir_all(lab.dir().join("bundle"))?;
    let set = |config: &mut Value| config["process"]["apparmorProfile"] = json!("docker-default");
    refused_without(lab, "apparmor", set, &["apparmor_profile", "AppArmor is not in force"])
}

pub fn process_selinux_label(lab: &Lab) -> TestResult {
    let set = |config: &mut Value| config["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0:c1,c2");
    refused_without(lab, "selinux", set, &["selinux_label", "SELinux is not in force"])
}

pub fn linux_mount_label(lab: &Lab) -> TestResult {
    let set = |config: &mut Value| config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c1,c2");
    refused_without(lab, "selinux", set, &["label", "linux.mountLabel", "SELinux is not in force"])
}

pub fn process_args_env_and_cwd(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.config(|config| {
        config["process"]["cwd"] = json!("/var");
        config["process"]["env"] = json!(["PATH=/bin", "GREETING=hello = world", "EMPTY="]);
    })?;
    let printed = field.prints(&["sh", "-c", "pwd; echo \"$GREETING|$EMPTY|$0|$1\"; env | sort", "zero", "o n e"])?;
    let lines: Vec<&str> =
        printed.lines().filter(|line| !["PWD=", "SHLVL=", "HOME="].iter().any(|p| line.starts_with(p))).collect();
    assert_eq!(lines, ["/var", "hello = world||zero|o n e", "EMPTY=", "GREETING=hello = world", "PATH=/bin"]);
    Ok(())
}

pub fn process_rlimits(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    // Below what a machine usually allows: raising a limit is not everybody's right. 0 is what these two have anyway.
    let limits: [(&str, &str, u64, u64); 16] = [
        ("RLIMIT_AS", "Max address space", 1 << 30, 1 << 31),
        ("RLIMIT_CORE", "Max core file size", 0, 4096),
        ("RLIMIT_CPU", "Max cpu time", 100, 200),
        ("RLIMIT_DATA", "Max data size", 1 << 29, 1 << 30),
        ("RLIMIT_FSIZE", "Max file size", 1 << 20, 1 << 21),
        ("RLIMIT_LOCKS", "Max file locks", 5, 6),
        ("RLIMIT_MEMLOCK", "Max locked memory", 4096, 8192),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size", 700, 800),
        ("RLIMIT_NICE", "Max nice priority", 0, 0),
        ("RLIMIT_NOFILE", "Max open files", 64, 128),
        ("RLIMIT_NPROC", "Max processes", 400, 500),
        ("RLIMIT_RSS", "Max resident set", 1 << 29, 1 << 30),
        ("RLIMIT_RTPRIO", "Max realtime priority", 0, 0),
        ("RLIMIT_RTTIME", "Max realtime timeout", 1000, 2000),
        ("RLIMIT_SIGPENDING", "Max pending signals", 70, 80),
        ("RLIMIT_STACK", "Max stack size", 1 << 20, 1 << 21),
    ];
    field.config(|config| {
        let all = limits.iter().map(|(kind, _, soft, hard)| json!({ "type": kind, "soft": soft, "hard": hard }));
        config["process"]["rlimits"] = all.collect();
    })?;
    let inside = field.prints(&["cat", "/proc/self/limits"])?;
    for (kind, name, soft, hard) in limits {
        let line = inside.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let numbers: Vec<&str> = line.split_whitespace().take(2).collect();
        assert_eq!(numbers, [soft.to_string(), hard.to_string()], "{kind}:\n{inside}");
    }
    field.config(|config| {
        let twice = json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 });
        config["process"]["rlimits"] = json!([twice, twice]);
    })?;
    Ok(field.is_refused(&["process.rlimits[1].type", "listed twice"])?)
}

/// In a user namespace nobody may raise a limit, so it is the engine that does; and whoever may not at all is told before anything is touched.
pub fn process_rlimits_above_the_callers_own(lab: &Lab) -> TestResult {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Msgqueue, Rlimit { current: Some(1000), maximum: Some(2000) })?;
    let may = caps_effective()?.contains(&"CAP_SYS_RESOURCE".to_owned());
    let mut field = Field::new(lab)?;
    field.config(|config| {
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_MSGQUEUE", "soft": 1500, "hard": 3000 }]);
    })?;
    for user_namespace in [false, true] {
        if user_namespace {
            field.user_namespace(100_000)?;
        }
        if may {
            let inside = field.prints(&["cat", "/proc/self/limits"])?;
            let line = inside.lines().find_map(|line| line.strip_prefix("Max msgqueue size")).unwrap_or_default();
            let numbers: Vec<&str> = line.split_whitespace().take(2).collect();
            assert_eq!(numbers, ["1500", "3000"], "in a user namespace: {user_namespace}");
        } else {
            field
                .cannot_be_planned(&["RLIMIT_MSGQUEUE of 3000 is above the caller's own, 2000", "CAP_SYS_RESOURCE"])?;
        }
    }
    Ok(())
}

fn caps_effective() -> Result<Vec<String>, std::io::Error> {
    let sets = rustix::thread::capabilities(None)?;
    Ok(sets.effective.iter_names().map(|(name, _)| format!("CAP_{name}")).collect())
}

pub fn process_user_uid_gid_umask_and_additional_gids(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.config(|config| {
        config["process"]["user"] =
            json!({ "uid": 1234, "gid": 2345, "umask": 0o027, "additionalGids": [7, 4_000_000] });
    })?;
    let inside = field.shell("id -u; id -g; umask; cat /proc/self/status")?;
    assert_eq!(inside.lines().take(3).collect::<Vec<_>>(), ["1234", "2345", "0027"], "{inside}");
    assert_eq!(line(&inside, "Groups"), "7 4000000");
    field.running(|pid| {
        let status = proc(pid, "status")?;
        assert_eq!(line(&status, "Uid"), "1234 1234 1234 1234");
        assert_eq!(line(&status, "Gid"), "2345 2345 2345 2345");
        assert_eq!((line(&status, "Groups").as_str(), line(&status, "Umask").as_str()), ("7 4000000", "0027"));
        Ok(())
    })?;
    // Without any, none of the caller's is left.
    field.config(|config| config["process"]["user"] = json!({ "uid": 0, "gid": 0 }))?;
    assert_eq!(line(&field.prints(&["cat", "/proc/self/status"])?, "Groups"), "");
    Ok(())
}

/// All five, before exec, which computes new ones from them; and what comes of it.
pub fn process_capabilities(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let mask = |bits: &[u32]| format!("{:016x}", bits.iter().fold(0u64, |all, bit| all | 1 << bit));
    field.config(|config| {
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_NET_RAW"],
            "permitted": ["CAP_CHOWN", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID"],
            "inheritable": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN", "CAP_FOWNER", "CAP_KILL"],
            "ambient": ["CAP_KILL"],
        });
    })?;
    field.created(|pid| {
        let status = proc(pid, "status")?;
        for (name, bits) in [
            ("CapBnd", &[0, 3, 5, 6, 13][..]),
            ("CapPrm", &[0, 3, 5, 6]),
            ("CapInh", &[0, 5]),
            ("CapEff", &[0, 3, 5]),
            ("CapAmb", &[5]),
        ] {
            assert_eq!(line(&status, name), mask(bits), "{name}:\n{status}");
        }
        Ok(())
    })?;
    let status = field.prints(&["cat", "/proc/self/status"])?;
    for (name, bits) in
        [("CapBnd", &[0, 3, 5, 6, 13][..]), ("CapPrm", &[5]), ("CapInh", &[0, 5]), ("CapEff", &[5]), ("CapAmb", &[5])]
    {
        assert_eq!(line(&status, name), mask(bits), "{name} after exec:\n{status}");
    }
    // CVE-2022-29162: nothing is inheritable unless it is asked for; nothing at all without the field.
    field.config(|config| {
        config["process"]["user"] = json!({ "uid": 0, "gid": 0 });
        config["process"]["capabilities"] = Value::Null;
    })?;
    let status = field.prints(&["cat", "/proc/self/status"])?;
    for name in ["CapBnd", "CapPrm", "CapInh", "CapEff", "CapAmb"] {
        assert_eq!(line(&status, name), mask(&[]), "{name} without the field");
    }
    Ok(())
}

pub fn process_no_new_privileges(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    for (asked, shown) in [(true, "1"), (false, "0")] {
        field.config(|config| config["process"]["noNewPrivileges"] = json!(asked))?;
        assert_eq!(line(&field.prints(&["cat", "/proc/self/status"])?, "NoNewPrivs"), shown);
    }
    Ok(())
}

pub fn process_oom_score_adj(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let own = field.prints(&["cat", "/proc/self/oom_score_adj"])?;
    // "If oomScoreAdj is not set, the runtime MUST NOT change the value."
    assert_eq!(own, std::fs::read_to_string("/proc/self/oom_score_adj")?);
    field.config(|config| config["process"]["oomScoreAdj"] = json!(543))?;
    field.running(|pid| {
        assert_eq!(proc(pid, "oom_score_adj")?, "543\n");
        Ok(())
    })?;
    assert_eq!(field.prints(&["cat", "/proc/self/oom_score_adj"])?, "543\n");
    field.config(|config| config["process"]["oomScoreAdj"] = json!(1001))?;
    Ok(field.is_refused(&["process.oomScoreAdj"])?)
}

/// The descriptor that comes by the socket.
fn received(listener: &UnixListener) -> Result<OwnedFd> {
    let (socket, _) = listener.accept().when(|| "accepting the terminal".into())?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut data = [0; 64];
    recvmsg(&socket, &mut [IoSliceMut::new(&mut data)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .when(|| "receiving the terminal".into())?;
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(|| Error::new("receiving the terminal", "no descriptor came"))
}

pub fn process_terminal_and_console_size(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let socket = lab.dir().join("console.sock");
    let listener = UnixListener::bind(&socket)?;
    field.config(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({ "height": 33, "width": 121 });
    })?;
    let parameter = format!("console_socket={}", socket.display());
    field.created_with(&["-p", &parameter], |pid| {
        let master = received(&listener)?;
        let size = rustix::termios::tcgetwinsize(&master).when(|| "asking for the size".into())?;
        assert_eq!((size.ws_row, size.ws_col), (33, 121));
        for fd in 0..3 {
            let link = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).when(|| "looking at its stdio".into())?;
            assert_eq!(link.to_string_lossy(), "/dev/pts/0");
        }
        // Its controlling terminal: the first of a devpts.
        assert_ne!(stat(&proc(pid, "stat")?, 7), 0);
        Ok(())
    })?;
    Ok(())
}

pub fn hostname_and_domainname(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    let outside = || {
        Ok::<_, std::io::Error>((
            std::fs::read_to_string("/proc/sys/kernel/hostname")?,
            std::fs::read_to_string("/proc/sys/kernel/domainname")?,
        ))
    };
    let before = outside()?;
    field.config(|config| {
        config["hostname"] = json!("mrsdalloway");
        config["domainname"] = json!("foobarbaz.test");
    })?;
    let inside = field.shell("hostname; cat /proc/sys/kernel/domainname")?;
    assert_eq!(inside, "mrsdalloway\nfoobarbaz.test\n");
    assert_eq!(outside()?, before);
    field.config(|config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "uts");
        }
    })?;
    field.is_refused(&["hostname: needs a uts namespace"])?;
    Ok(field.is_refused(&["domainname: needs a uts namespace"])?)
}

pub fn linux_sysctl(lab: &Lab) -> TestResult {
    const ALL: [(&str, &str); 4] = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ping_group_range", "7\t70"),
        ("kernel.shmmax", "123456"),
        ("fs.mqueue.msg_max", "7"),
    ];
    let mut field = Field::new(lab)?;
    let path = |name: &str| format!("/proc/sys/{}", name.replace('.', "/"));
    let paths: Vec<String> = ALL.iter().map(|(name, _)| path(name)).collect();
    let outside = || paths.iter().map(std::fs::read_to_string).collect::<std::io::Result<Vec<_>>>();
    let before = outside()?;
    field.config(|config| {
        config["linux"]["sysctl"] = ALL.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    })?;
    let inside = field.prints(&[&["cat"], paths.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat())?;
    assert_eq!(inside.lines().collect::<Vec<_>>(), ALL.map(|(_, value)| value));
    assert_eq!(outside()?, before, "the host's own have changed");
    for (name, value, words) in [
        ("kernel.core_pattern", "|/bin/sh", "belongs to the whole host"),
        ("kernel.sysrq", "0", "belongs to the whole host"),
        ("net.ipv4.ip_forward", "1+kernel.core_pattern=x", "linux.sysctl.net.ipv4.ip_forward"),
        ("vm/swappiness", "1", "belongs to the whole host"),
    ] {
        field.config(|config| config["linux"]["sysctl"] = json!({ name: value }))?;
        field.is_refused(&[words])?;
    }
    // Namespaced, but not in a namespace of the container's own.
    for (name, kind) in [("net.ipv4.ip_forward", "network"), ("kernel.shmmax", "ipc")] {
        field.config(|config| {
            config["linux"]["sysctl"] = json!({ name: "1" });
            if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
                namespaces.retain(|namespace| namespace["type"] != kind);
            }
        })?;
        field.is_refused(&[&format!("linux.sysctl.{name}"), &format!("needs a {kind} namespace")])?;
    }
    Ok(())
}
