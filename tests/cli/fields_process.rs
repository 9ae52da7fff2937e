//! The fields of config.json's `process`, each performed on a real container and read off its process. A test's name begins with the fields'
//! path in the runtime-spec.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Error, Result, While};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::fields::{Field, line, proc, stat};

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        process_apparmor_profile,
        process_selinux_label,
        linux_mount_label,
        process_args_env_and_cwd,
        process_env_that_names_a_variable_twice_has_the_last_one_once,
        process_env_with_an_empty_home_is_without_one,
        process_cwd_that_its_user_may_not_enter,
        process_capabilities_ambient_that_cannot_be_is_a_warning,
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

/// Whatever looks into it: the program, and who looks for the program.
pub fn process_env_that_names_a_variable_twice_has_the_last_one_once(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.config(|config| {
        config["process"]["env"] = json!(["A=1", "PATH=/nowhere", "HOME=/old", "A=2", "PATH=/bin", "HOME=/new"]);
    })?;
    // Read off the kernel: a shell would put it in order.
    let environ = field.prints(&["cat", "/proc/self/environ"])?;
    assert_eq!(environ.split_terminator('\0').collect::<Vec<_>>(), ["A=2", "PATH=/bin", "HOME=/new"]);
    Ok(())
}

pub fn process_env_with_an_empty_home_is_without_one(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    for homes in [&["HOME="][..], &["HOME=/somewhere", "HOME="], &[]] {
        field.config(|config| config["process"]["env"] = json!([&["PATH=/bin"], homes].concat()))?;
        let environ = field.prints(&["cat", "/proc/self/environ"])?;
        assert_eq!(environ.split_terminator('\0').collect::<Vec<_>>(), ["PATH=/bin", "HOME=/root"], "{homes:?}");
    }
    Ok(())
}

/// Root may enter it, and its user, whom a root without CAP_DAC_OVERRIDE is as well, may not.
pub fn process_cwd_that_its_user_may_not_enter(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.directories(&["home"])?;
    let home = field.bundle.rootfs().join("home");
    std::os::unix::fs::chown(&home, Some(65532), Some(65532))?;
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    for (uid, capabilities) in [(1000, json!([])), (0, json!(["CAP_KILL"]))] {
        field.config(|config| {
            config["process"]["cwd"] = json!("/home");
            config["process"]["user"] = json!({ "uid": uid, "gid": uid });
            let sets = ["bounding", "effective", "permitted"];
            config["process"]["capabilities"] = sets.into_iter().map(|set| (set, capabilities.clone())).collect();
        })?;
        assert_eq!(field.prints(&["readlink", "/proc/self/cwd"])?, "/home\n", "uid {uid}");
    }
    Ok(())
}

pub fn process_capabilities_ambient_that_cannot_be_is_a_warning(lab: &Lab) -> TestResult {
    let mut field = Field::new(lab)?;
    field.bundle.runs(&["grep", "CapAmb", "/proc/self/status"])?;
    field.config(|config| {
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            "inheritable": ["CAP_KILL", "CAP_CHOWN"], "ambient": ["CAP_KILL", "CAP_CHOWN", "CAP_SETGID"],
        });
    })?;
    let told = field.told().ended(0).says(&["CAP_CHOWN, CAP_SETGID cannot be ambient", "permitted and inheritable"]);
    assert_eq!(told.out, "CapAmb:\t0000000000000020\n");
    field.config(|config| config["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]))?;
    assert!(!field.told().ended(0).err.contains("ambient"));
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
