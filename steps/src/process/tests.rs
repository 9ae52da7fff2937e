//! Containers' processes on the real kernel, as root.

use serde_json::{Value, json};

use super::testing::{Came, came_of, came_of_as, host, inside, process_of};

fn sh(script: &str) -> Value {
    json!({ "args": ["/bin/sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] })
}

/// Runs a script in a process made so.
fn ran(clone: Value, script: &str) -> Came {
    ran_by(clone, 0, script)
}

fn ran_by(mut clone: Value, effect: u32, script: &str) -> Came {
    clone["stdio"] = json!("log");
    let came = came_of(&[
        host("init", "process.clone", clone),
        inside("exec", "process.exec", sh(script)),
        host("wait", "process.wait", json!({ "process": process_of(effect), "accept": [] })),
    ]);
    nothing_is_left(&came);
    came
}

fn nothing_is_left(came: &Came) {
    assert_eq!((came.left.as_slice(), came.stuck, came.children), (&[] as &[String], 0, false), "{came:?}");
}

#[test]
fn a_program_runs_in_its_own_namespaces_and_its_exit_code_is_the_runs() {
    let new = json!({ "new": ["pid", "mount", "uts", "ipc", "network", "cgroup"] });
    let came = ran(new, "echo pid $$; readlink /proc/1/ns/uts >/dev/null; ls /proc/self/fd | wc -l; exit 7");
    assert_eq!(came.exit, Some(7), "{came:?}");
    // `ls` itself has the directory open as the fourth.
    assert_eq!(came.output, ["pid 1", "4"], "{came:?}");
}

#[test]
fn the_program_starts_with_clean_signals_in_a_session_of_its_own() {
    let came = ran(
        json!({}),
        "grep -E 'SigBlk|SigIgn' /proc/self/status; cut -d' ' -f6 /proc/$$/stat | grep -qx $$ && echo leader",
    );
    let clean: Vec<&str> = came.output.iter().map(|l| l.split_whitespace().last().unwrap_or("")).collect();
    assert_eq!(clean, ["0000000000000000", "0000000000000000", "leader"], "{came:?}");
}

#[test]
fn root_of_a_user_namespace_is_somebody_else_outside() {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let clone = json!({ "new": ["user", "pid", "mount"], "uid_mappings": map, "gid_mappings": map });
    let came = ran(clone, "id -u; id -G; cat /proc/self/uid_map");
    assert_eq!(came.output[..2], ["0".to_owned(), "0".to_owned()], "{came:?}");
    assert_eq!(came.output[2].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
}

#[test]
fn joined_namespaces_and_a_clock_of_its_own_take_a_stage() {
    let mut other = std::process::Command::new("/usr/bin/unshare")
        .args(["--uts", "--ipc", "/bin/sleep", "60"])
        .spawn()
        .expect("unshare");
    let ns = |kind: &str| format!("/proc/{}/ns/{kind}", other.id());
    let host_uts = std::fs::read_link("/proc/self/ns/uts").expect("link");
    while std::fs::read_link(ns("uts")).is_ok_and(|uts| uts == host_uts) {
        std::thread::yield_now();
    }
    let clone = json!({
        "namespaces": [{ "type": "uts", "path": ns("uts") }, { "type": "ipc", "path": ns("ipc") }, { "type": "pid" }, { "type": "time" }],
        "time_offsets": { "boottime": { "secs": 864_000_000 } },
        "oom_score_adj": 321,
    });
    let want = std::fs::read_link(ns("uts")).expect("link").to_string_lossy().into_owned();
    let came =
        ran_by(clone, 2, "readlink /proc/self/ns/uts; cat /proc/self/oom_score_adj; cut -d. -f1 /proc/uptime; echo $$");
    other.kill().expect("kill");
    other.wait().expect("wait");
    assert_eq!(came.output[0], want, "{came:?}");
    assert_eq!(came.output[1], "321");
    assert!(came.output[2].parse::<u64>().expect("seconds") > 864_000_000, "{came:?}");
    assert_eq!(came.output[3], "1");
}

#[test]
fn a_user_namespace_and_a_joined_one_go_together() {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    let clone = json!({
        "namespaces": [{ "type": "network", "path": "/proc/self/ns/net" }, { "type": "user" }, { "type": "pid" }],
        "uid_mappings": map, "gid_mappings": map,
    });
    let came = ran_by(clone, 2, "id -u; echo $$; readlink /proc/self/ns/net");
    let net = std::fs::read_link("/proc/self/ns/net").expect("link").to_string_lossy().into_owned();
    assert_eq!(came.output, ["0".to_owned(), "1".to_owned(), net], "{came:?}");
}

#[test]
fn a_program_that_is_not_there_is_127_and_one_that_cannot_be_executed_126() {
    for (args, code) in
        [(json!(["/no/such"]), 127), (json!(["no-such"]), 127), (json!(["/etc/passwd"]), 126), (json!(["/tmp"]), 126)]
    {
        let came = came_of(&[
            host("init", "process.clone", json!({ "new": ["pid"], "stdio": "null" })),
            inside("exec", "process.exec", json!({ "args": args })),
        ]);
        nothing_is_left(&came);
        let (failure, exit) = came.failure.expect("fails");
        assert_eq!(exit, Some(code), "{failure}");
        assert!(failure.starts_with("exec: "), "{failure}");
    }
}

#[test]
fn privileges_are_what_was_asked_for_and_no_more() {
    let came = came_of(&[
        host("init", "process.clone", json!({ "new": ["pid"], "stdio": "log" })),
        inside(
            "privileges",
            "process.privileges",
            json!({
                "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 }],
                "user": { "uid": 1234, "gid": 2345, "umask": 0o027, "additionalGids": [7, 8] },
                "capabilities": { "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NO_SUCH"], "permitted": ["CAP_KILL"],
                                  "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] },
                "no_new_privileges": true,
            }),
        ),
        inside(
            "exec",
            "process.exec",
            sh("id -u; id -g; id -G; umask; ulimit -n; ulimit -Hn; grep -E '^Cap|NoNewPrivs' /proc/self/status"),
        ),
        host("wait", "process.wait", json!({ "process": process_of(0), "accept": [] })),
    ]);
    nothing_is_left(&came);
    // The warning comes by another way than the program's output, and so at any place among it.
    let (warnings, lines): (Vec<&String>, Vec<&String>) = came.output.iter().partition(|l| l.starts_with("warning"));
    assert_eq!(warnings, ["warning: there is no capability CAP_NO_SUCH; it is left out"]);
    let lines: Vec<String> = lines.iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let kill = "0000000000000020";
    let mut want: Vec<String> = ["1234", "2345", "2345 7 8", "0027", "64", "128"].map(str::to_owned).to_vec();
    want.extend([format!("CapInh: {kill}"), format!("CapPrm: {kill}"), format!("CapEff: {kill}")]);
    want.extend(["CapBnd: 0000000000000021".to_owned(), format!("CapAmb: {kill}"), "NoNewPrivs: 1".to_owned()]);
    assert_eq!(lines, want);
}

#[test]
fn without_capabilities_in_the_config_there_are_none() {
    let came = came_of(&[
        host("init", "process.clone", json!({ "stdio": "log" })),
        inside("privileges", "process.privileges", json!({})),
        inside("exec", "process.exec", sh("grep -E '^Cap' /proc/self/status | cut -f2 | sort -u")),
        host("wait", "process.wait", json!({ "process": process_of(0), "accept": [] })),
    ]);
    assert_eq!(came.output, ["0000000000000000"], "{came:?}");
}

#[test]
fn a_name_or_parameter_of_a_shared_namespace_is_refused() {
    for (kind, with) in [
        ("uts.set", json!({ "hostname": "lifecycle-test" })),
        ("uts.set", json!({ "domainname": "lifecycle-test" })),
        ("sysctl.write", json!({ "sysctl": { "net.ipv4.ip_forward": "1" } })),
        ("sysctl.write", json!({ "sysctl": { "kernel.shm_rmid_forced": "1" } })),
    ] {
        let came = came_of(&[
            host("init", "process.clone", json!({ "new": ["pid"], "stdio": "null" })),
            inside("set", kind, with),
        ]);
        nothing_is_left(&came);
        assert!(came.failure.expect("refused").0.contains("the container shares the host's"));
    }
    assert_ne!(rustix::system::uname().nodename().to_bytes(), b"lifecycle-test");
}

#[test]
fn names_and_parameters_of_own_namespaces_are_set() {
    let came = came_of(&[
        host("init", "process.clone", json!({ "new": ["uts", "network", "ipc"], "stdio": "log" })),
        inside("names", "uts.set", json!({ "hostname": "box", "domainname": "example.org" })),
        inside("sysctl", "sysctl.write", json!({ "sysctl": { "net.ipv4.ip_forward": "1", "kernel.shmmax": "12345" } })),
        inside(
            "exec",
            "process.exec",
            sh("uname -n; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax"),
        ),
        host("wait", "process.wait", json!({ "process": process_of(0), "accept": [] })),
    ]);
    nothing_is_left(&came);
    assert_eq!(came.output, ["box", "example.org", "1", "12345"], "{came:?}");
}

#[test]
fn a_filter_refuses_what_the_profile_says() {
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30 }] });
    let came = came_of(&[
        host("init", "process.clone", json!({ "stdio": "log" })),
        inside("privileges", "process.privileges", json!({ "no_new_privileges": true })),
        inside("seccomp", "seccomp.load", json!({ "profile": profile })),
        inside("exec", "process.exec", sh("mkdir /tmp/lifecycle-forbidden; grep Seccomp: /proc/self/status")),
        host("wait", "process.wait", json!({ "process": process_of(0), "accept": [] })),
    ]);
    nothing_is_left(&came);
    assert!(came.output.iter().any(|l| l.contains("Read-only file system")), "{came:?}");
    assert!(came.output.iter().any(|l| l.ends_with('2')), "{came:?}");
}

#[test]
fn a_created_container_waits_to_be_started_and_its_failure_is_the_starters() {
    let handle = |effect| json!({ "$handle": { "step": "fifo", "effect": effect, "field": "" } });
    let fifo = json!({ "report": handle(0), "start": handle(1) });
    let create = |args: Value| {
        [
            host("fifo", "fifo.create", json!({})),
            host("init", "process.clone", json!({ "new": ["pid", "mount"], "stdio": "log", "fifo": fifo })),
            inside("privileges", "process.privileges", json!({ "user": { "uid": 1234, "gid": 1234 } })),
            inside("ready", "fifo.wait", json!({})),
            inside("exec", "process.exec", json!({ "args": args })),
            host("start", "fifo.release", json!({ "process": process_of(0) })),
            host("wait", "process.wait", json!({ "process": process_of(0), "accept": [] })),
        ]
    };
    let came = came_of(&create(json!(["/bin/echo", "started"])));
    nothing_is_left(&came);
    assert_eq!((came.exit, came.output.as_slice()), (Some(0), &["started".to_owned()] as &[String]), "{came:?}");
    let came = came_of(&create(json!(["/no/such"])));
    nothing_is_left(&came);
    let (failure, exit) = came.failure.expect("fails");
    assert!(failure.starts_with("start: ") && failure.contains("/no/such"), "{failure}");
    assert_eq!(exit, Some(127));
}

#[test]
fn a_program_that_ignores_a_signal_is_killed_after_the_grace() {
    for (script, grace) in [("trap '' TERM; while :; do sleep 1; done", "100ms"), ("sleep 60", "60s")] {
        let came = came_of(&[
            host("init", "process.clone", json!({ "stdio": "null" })),
            inside("exec", "process.exec", sh(script)),
            host("stop", "process.kill", json!({ "process": process_of(0), "grace": grace })),
        ]);
        nothing_is_left(&came);
        assert_eq!(came.failure, None, "{came:?}");
    }
}

fn with_terminals() -> Value {
    json!({ "mounts": [
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["newinstance", "ptmxmode=0666", "mode=0620"] },
    ] })
}

#[test]
fn a_terminal_is_the_containers_own_and_what_it_shows_is_the_callers() {
    let came = came_of(&[
        host("init", "process.clone", json!({ "new": ["pid", "mount", "uts", "ipc"], "terminal": true })),
        inside("rootfs", "rootfs.overlay", json!({})),
        inside("mounts", "rootfs.mount", with_terminals()),
        inside("pivot", "rootfs.pivot", json!({})),
        inside("console", "console.open", json!({ "size": { "width": 123, "height": 45 } })),
        inside(
            "exec",
            "process.exec",
            sh("tty; stty size; test -c /dev/console && echo console; echo there > /dev/tty; exit 4"),
        ),
        host("relay", "console.relay", json!({ "process": process_of(0) })),
        host("wait", "process.wait", json!({ "process": process_of(0), "accept": [] })),
    ]);
    nothing_is_left(&came);
    assert_eq!(came.exit, Some(4), "{came:?}");
    let lines: Vec<&str> = came.printed.lines().map(str::trim_end).collect();
    assert_eq!(lines, ["/dev/pts/0", "45 123", "console", "there"], "{came:?}");
}

#[test]
fn a_terminal_goes_to_whoever_listens_for_it() {
    use std::os::unix::net::UnixListener;
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("console.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let took = std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("accept");
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 64];
        let got = rustix::net::recvmsg(
            &socket,
            &mut [std::io::IoSliceMut::new(&mut name)],
            &mut ancillary,
            rustix::net::RecvFlags::empty(),
        );
        let master = ancillary.drain().find_map(|m| match m {
            rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let mut shown = [0; 64];
        let n = rustix::io::read(master.expect("master"), &mut shown).expect("read");
        (name[..got.expect("message").bytes].to_vec(), shown[..n].to_vec())
    });
    let came = came_of(&[
        host("init", "process.clone", json!({ "new": ["pid", "mount"], "terminal": true, "console_socket": path })),
        inside("rootfs", "rootfs.overlay", json!({})),
        inside("mounts", "rootfs.mount", with_terminals()),
        inside("pivot", "rootfs.pivot", json!({})),
        inside("console", "console.open", json!({})),
        inside("exec", "process.exec", sh("echo shown")),
        host("wait", "process.wait", json!({ "process": process_of(0), "accept": [] })),
    ]);
    nothing_is_left(&came);
    assert_eq!(came.failure, None);
    assert_eq!(took.join().expect("thread"), (b"/dev/ptmx".to_vec(), b"shown\r\n".to_vec()));
}

/// Makes init and stops before its first line, as an engine that dies there; the identity is written for the test to look for.
fn made_by_an_engine_that_dies(effect: &crate::effects::clone::CloneInit) -> crate::outcomes::Process {
    use lifecycle_engine::effect::{Applied, EffectDef};
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("socketpair");
    let engine = crate::sys::clone::fork(|| {
        let run = lifecycle_engine::effect::RunNames { root: "/nonexistent".into(), id: "test".into() };
        let (mut fds, outcomes) =
            (lifecycle_engine::effect::Fds::default(), lifecycle_engine::effect::Outcomes::default());
        let mut cx = lifecycle_engine::effect::Cx {
            run: &run,
            step: &"init".into(),
            effect: 0,
            outcomes: &outcomes,
            fds: &mut fds,
            site: None,
            outlives: false,
            output: &mut |_| {},
        };
        let Ok(Applied::Site { outcome, .. }) = effect.apply(&Value::Null, &mut cx) else { return 1 };
        i32::from(std::io::Write::write_all(&mut theirs, outcome.to_string().as_bytes()).is_err())
    });
    let (_, status) = rustix::process::waitpid(Some(engine.expect("fork")), rustix::process::WaitOptions::empty())
        .expect("wait")
        .expect("status");
    assert_eq!(status.exit_status(), Some(0));
    drop(theirs);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut ours, &mut text).expect("read");
    serde_json::from_str(&text).expect("identity")
}

#[test]
fn init_goes_with_an_engine_that_dies_before_its_first_line() {
    use lifecycle_engine::effect::EffectDef;
    for effect in crate::effects::clone::CloneInit::examples(std::path::Path::new("/nonexistent")) {
        let init = made_by_an_engine_that_dies(&effect);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // PID 1 of this machine reaps in its own time; a zombie has gone.
        while init.watch().expect("watch").is_some_and(|w| !w.is_dead().expect("poll")) {
            assert!(std::time::Instant::now() < until, "{init} lives on");
            std::thread::yield_now();
        }
        let record = lifecycle_engine::effect::Record {
            outcome: Some(serde_json::to_value(&init).expect("json")),
            ..Default::default()
        };
        let mut bench = crate::effects::testing::Bench::new(std::path::Path::new("/nonexistent"));
        bench.undo(&effect, &record).expect("undone");
        bench.undo(&effect, &record).expect("undone twice");
    }
}

#[test]
fn init_is_in_its_cgroups_before_anything_else() {
    let dir = format!("/sys/fs/cgroup/pids/lifecycle-test-{}", std::process::id());
    if std::fs::create_dir(&dir).is_err() {
        eprintln!("skipped: this host has no v1 hierarchy of pids, or the caller is not root");
        return;
    }
    let came =
        ran(json!({ "new": ["pid", "cgroup", "mount"], "cgroup": { "v1": [dir] } }), "grep pids /proc/self/cgroup");
    let host = ran(json!({ "new": ["pid"], "cgroup": { "v1": [dir] } }), "grep pids /proc/self/cgroup");
    std::fs::remove_dir(&dir).expect("the cgroup is empty again");
    let path = |came: &Came| came.output[0].rsplit(':').next().map(str::to_owned);
    assert_eq!(path(&came).as_deref(), Some("/"), "{came:?}");
    assert_eq!(path(&host).as_deref(), dir.strip_prefix("/sys/fs/cgroup/pids"), "{host:?}");
}

#[test]
fn an_ordinary_user_is_root_of_its_own_user_namespace() {
    if !std::fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|n| n.trim() != "0") {
        eprintln!("skipped: this host makes no user namespaces");
        return;
    }
    let nobody = 65534;
    let came = came_of_as(
        nobody,
        &[
            host(
                "init",
                "process.clone",
                json!({ "new": ["user", "pid", "mount", "uts", "network", "ipc"], "stdio": "log" }),
            ),
            inside("names", "uts.set", json!({ "hostname": "box" })),
            inside("privileges", "process.privileges", json!({ "no_new_privileges": true })),
            inside("exec", "process.exec", sh("id -u; uname -n; cat /proc/self/uid_map /proc/self/setgroups; echo $$")),
            host("wait", "process.wait", json!({ "process": process_of(0) })),
        ],
    );
    nothing_is_left(&came);
    let lines: Vec<String> = came.output.iter().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["0", "box", "0 65534 1", "deny", "1"], "{came:?}");
}

#[test]
fn an_engine_that_shows_output_is_not_held_up_by_a_program_that_prints_nothing() {
    let silent = "exec sleep 60";
    let came = came_of(&[
        host("init", "process.clone", json!({ "new": ["pid"], "stdio": "log" })),
        inside("exec", "process.exec", sh(silent)),
        host("stop", "process.kill", json!({ "process": process_of(0), "signal": "KILL" })),
    ]);
    nothing_is_left(&came);
    assert_eq!(came.failure, None, "{came:?}");
}
