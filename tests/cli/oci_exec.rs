//! `lifecycle-oci exec`: each option, seen from inside.

use std::path::Path;

use lifecycle_tests::harness::{Need, Test, TestResult};
use lifecycle_tests::lab::Lab;
use serde_json::json;

use crate::oci_scene::{Oci, eventually, passing, reap_later};
use crate::scene;

/// All of them.
pub fn tests() -> Vec<Test> {
    use Need::{Program, Root};
    let tests = lifecycle_tests::tests![
        oci_exec_ends_with_the_programs_exit_code,
        oci_exec_cwd_is_where_it_starts,
        oci_exec_cwd_that_its_user_may_not_enter,
        oci_exec_env_adds_variables,
        oci_exec_env_takes_the_place_of_the_containers,
        oci_exec_user_and_additional_gids_are_whom_it_runs_as,
        oci_exec_cap_adds_a_capability,
        oci_exec_cap_is_ambient_where_it_is_inheritable,
        oci_exec_no_new_privs_is_as_asked_and_otherwise_the_containers,
        oci_exec_process_is_the_whole_process,
        oci_exec_process_may_be_a_pipe,
        oci_exec_detach_leaves_it_running_and_pid_file_tells_which,
        oci_exec_tty_is_a_terminal_of_the_containers,
        oci_exec_cgroup_is_one_below_the_containers,
        oci_exec_ignore_paused_waits_until_the_container_goes_on,
        oci_exec_preserve_fds_are_the_programs,
        oci_exec_joins_a_cgroup_namespace_and_is_in_its_cgroup,
        oci_exec_apparmor_and_process_label_are_refused_where_no_module_is,
        oci_exec_in_a_stopped_or_absent_container_is_255,
    ];
    tests.into_iter().map(|test| test.within("oci_exec").needs(&[Root, Program("busybox")])).collect()
}

/// A container that does nothing.
fn idle(lab: &Lab) -> lifecycle_tests::Result<Oci<'_>> {
    let oci = Oci::new(lab, &["sleep", "600"])?;
    oci.running(&[]);
    Ok(oci)
}

pub fn oci_exec_ends_with_the_programs_exit_code(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    let told = oci.told(&["exec", &oci.id, "sh", "-c", "hostname; echo bad >&2; exit 42"]).ended(42);
    assert_eq!((told.out.as_str(), told.err.as_str()), ("runc\n", "bad\n"));
    oci.told(&["exec", &oci.id, "nosuch"]).ended(127).says(&["executable file not found in $PATH"]);
    oci.told(&["exec", &oci.id, "/nosuch/x"]).ended(127).says(&["No such file or directory"]);
    oci.told(&["exec", &oci.id, "/etc/passwd"]).ended(126).says(&["Permission denied"]);
    oci.told(&["exec", &oci.id]).ended(255).says(&["command"]);
    let mut run = oci.start(&["exec", &oci.id, "cat"])?;
    run.type_in("typed\n", true)?;
    assert_eq!(run.end()?.ended(0).out, "typed\n");
    Ok(oci.gone()?)
}

pub fn oci_exec_cwd_is_where_it_starts(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    assert_eq!(oci.inside(&["pwd"]), "/\n");
    assert_eq!(oci.told(&["exec", "--cwd", "/etc", &oci.id, "pwd"]).ended(0).out, "/etc\n");
    // Behind the id too, as long as the command has not begun.
    assert_eq!(oci.told(&["exec", &oci.id, "--cwd", "/etc", "pwd"]).ended(0).out, "/etc\n");
    assert_eq!(oci.told(&["exec", &oci.id, "echo", "--cwd", "-e"]).ended(0).out, "--cwd -e\n");
    oci.told(&["exec", "--cwd", "/nosuch", &oci.id, "pwd"]).ended(126).says(&["/nosuch", "No such file or directory"]);
    oci.told(&["exec", "--cwd", "relative", &oci.id, "pwd"]).ended(255).says(&["cwd", "absolute"]);
    Ok(oci.gone()?)
}

pub fn oci_exec_env_adds_variables(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    let env = oci.told(&["exec", "--env", "ONE=1", "-e", "TWO=2=2", &oci.id, "env"]).ended(0).out;
    for line in ["ONE=1", "TWO=2=2", "TERM=xterm", "HOME=/root"] {
        assert!(env.lines().any(|l| l == line), "{line} is not in\n{env}");
    }
    assert!(!oci.inside(&["env"]).contains("ONE="));
    Ok(oci.gone()?)
}

pub fn oci_exec_env_takes_the_place_of_the_containers(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    oci.edit(|config| {
        config["process"]["env"] = json!(["PATH=/nowhere", "A=1", "HOME=/old"]);
        config["process"]["args"] = json!(["/bin/sleep", "600"]);
    })?;
    oci.running(&[]);
    let environ = |options: &[&str], command: &str| {
        let told = oci.told(&[&["exec"], options, &[&oci.id, command, "/proc/self/environ"]].concat()).ended(0);
        told.out.split_terminator('\0').map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(environ(&[], "/bin/cat"), ["PATH=/nowhere", "A=1", "HOME=/old"]);
    let options = ["--env", "A=2", "--env", "PATH=/bin", "--env", "A=3", "-e", "HOME="];
    assert_eq!(environ(&options, "cat"), ["PATH=/bin", "A=3", "HOME=/root"]);
    let process = json!({ "args": ["cat", "/proc/self/environ"], "cwd": "/", "env": ["PATH=/nowhere", "B=1", "B=2", "PATH=/bin"] });
    oci.scene.write("process.json", &process.to_string())?;
    let told = oci.told(&["exec", "--process", "process.json", &oci.id]).ended(0);
    assert_eq!(told.out, "B=2\0PATH=/bin\0HOME=/root\0");
    oci.without(&["process.json"])?;
    Ok(oci.gone()?)
}

pub fn oci_exec_cwd_that_its_user_may_not_enter(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    let home = oci.bundle.rootfs().join("home");
    std::fs::create_dir(&home)?;
    std::os::unix::fs::chown(&home, Some(65532), Some(65532))?;
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    oci.edit(|_| ())?;
    oci.running(&[]);
    // Root of the default config has no CAP_DAC_OVERRIDE.
    for user in ["0", "1000:1000", "65532:65532"] {
        let told = oci.told(&["exec", "--user", user, "--cwd", "/home", &oci.id, "readlink", "/proc/self/cwd"]);
        assert_eq!(told.ended(0).out, "/home\n", "{user}");
    }
    Ok(oci.gone()?)
}

pub fn oci_exec_user_and_additional_gids_are_whom_it_runs_as(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    let id = |options: &[&str]| oci.told(&[&["exec"], options, &[&oci.id, "id"]].concat()).ended(0).out;
    assert!(id(&[]).starts_with("uid=0(root) gid=0(root)"));
    assert!(id(&["--user", "1000:50"]).starts_with("uid=1000 gid=50"));
    assert!(id(&["-u", "1000"]).starts_with("uid=1000 gid=0(root)"));
    let groups = id(&["-u", "1000:50", "--additional-gids", "7", "-g", "8"]);
    assert!(groups.contains(",7") && groups.contains(",8") || groups.contains("7,8"), "{groups}");
    oci.told(&["exec", "--user", "root", &oci.id, "id"]).ended(255).says(&["UID"]);
    oci.gone()?;
    // A group that nobody names is the container's own, and not the root's.
    let mut oci = oci;
    oci.edit(|config| config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }))?;
    oci.running(&[]);
    assert!(oci.told(&["exec", "-u", "1001", &oci.id, "id"]).ended(0).out.starts_with("uid=1001 gid=1000"));
    Ok(oci.gone()?)
}

/// CAP_NET_ADMIN, capabilities(7).
const NET_ADMIN: u64 = 1 << 12;

/// A line of the process's status.
fn status(oci: &Oci, options: &[&str], name: &str) -> String {
    let told = oci.told(&[&["exec"], options, &[&oci.id, "grep", name, "/proc/self/status"]].concat()).ended(0);
    told.out.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

pub fn oci_exec_cap_adds_a_capability(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    let has =
        |options: &[&str], set: &str| u64::from_str_radix(&status(&oci, options, set), 16).map(|s| s & NET_ADMIN != 0);
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        assert_eq!((has(&[], set), has(&["--cap", "CAP_NET_ADMIN"], set)), (Ok(false), Ok(true)), "{set}");
    }
    assert_eq!(has(&["--cap", "CAP_NET_ADMIN"], "CapInh"), Ok(false), "CVE-2022-29162");
    Ok(oci.gone()?)
}

/// The kernel takes no other for ambient: capabilities(7).
pub fn oci_exec_cap_is_ambient_where_it_is_inheritable(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    oci.edit(|config| {
        for set in ["bounding", "inheritable"] {
            config["process"]["capabilities"][set] = json!(["CAP_NET_ADMIN"]);
        }
        for set in ["effective", "permitted"] {
            config["process"]["capabilities"][set] = json!([]);
        }
    })?;
    oci.running(&[]);
    let as_user = ["--user", "1000:1000", "--cap", "CAP_NET_ADMIN", "--cap", "CAP_NET_RAW"];
    for set in ["CapAmb", "CapEff", "CapPrm"] {
        assert_eq!(status(&oci, &as_user, set), format!("{NET_ADMIN:016x}"), "{set}");
    }
    assert_eq!(status(&oci, &["--user", "1000:1000"], "CapAmb"), format!("{:016x}", 0));
    Ok(oci.gone()?)
}

pub fn oci_exec_no_new_privs_is_as_asked_and_otherwise_the_containers(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    let of = |options: &[&str]| status(&oci, options, "NoNewPrivs");
    assert_eq!(of(&[]), "1", "as the config has it");
    assert_eq!(of(&["--no-new-privs=false"]), "0");
    assert_eq!(of(&["--no-new-privs"]), "1");
    Ok(oci.gone()?)
}

pub fn oci_exec_process_is_the_whole_process(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    let process = json!({
        "args": ["sh", "-c", "pwd; id -u; echo $ONLY; env | grep -c TERM"],
        "cwd": "/tmp", "env": ["PATH=/bin", "ONLY=this"], "user": { "uid": 12, "gid": 13 },
    });
    oci.scene.write("process.json", &process.to_string())?;
    let wanted = "/tmp\n12\nthis\n0\n";
    assert_eq!(oci.told(&["exec", "--process", "process.json", &oci.id]).out, wanted);
    assert_eq!(oci.told(&["exec", "-p", "process.json", "--cwd", "/etc", "--user", "5", &oci.id]).out, wanted);
    oci.scene.write("wrong.json", r#"{ "args": [], "cwd": "tmp" }"#)?;
    oci.told(&["exec", "-p", "wrong.json", &oci.id]).ended(255).says(&["args", "cwd"]);
    oci.told(&["exec", "-p", "nosuch.json", &oci.id]).ended(255).says(&["nosuch.json", "No such file or directory"]);
    oci.without(&["process.json", "wrong.json"])?;
    Ok(oci.gone()?)
}

pub fn oci_exec_process_may_be_a_pipe(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    let process = json!({ "args": ["echo", "piped"], "cwd": "/", "env": ["PATH=/bin"] }).to_string();
    let mut run = oci.start(&["exec", "--process", "/dev/stdin", &oci.id])?;
    run.type_in(&process, true)?;
    assert_eq!(run.end()?.ended(0).out, "piped\n");
    // As a shell passes it.
    let told = |script: &str| {
        let mut shell = std::process::Command::new("bash");
        let command = oci.command(&["exec", "--process"]);
        shell
            .args(["-c", script])
            .arg(command.get_program())
            .args(command.get_args())
            .arg(&oci.id)
            .current_dir(lab.dir());
        scene::told(shell.env("PROCESS", &process).stdin(std::process::Stdio::null()))
    };
    assert_eq!(told("\"$0\" \"${@:1:$#-1}\" <(echo \"$PROCESS\") \"${@: -1}\"").ended(0).out, "piped\n");
    told("\"$0\" \"${@:1:$#-1}\" <(exec cat /dev/zero) \"${@: -1}\"").ended(255).says(&["File too large", "4 MiB"]);
    Ok(oci.gone()?)
}

pub fn oci_exec_detach_leaves_it_running_and_pid_file_tells_which(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    let file = lab.dir().join("exec.pid");
    oci.told(&["exec", "--detach", "--pid-file", "exec.pid", &oci.id, "sleep", "601"]).ended(0);
    let pid: i32 = std::fs::read_to_string(&file)?.parse()?;
    let command = || std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    eventually("the program", || Ok(command().contains("601")))?;
    let pids: Vec<i32> = serde_json::from_str(&oci.told(&["ps", "-f", "json", &oci.id]).ended(0).out)?;
    assert!(pids.contains(&pid), "{pids:?}");
    assert_eq!(
        std::fs::read_link(format!("/proc/{pid}/ns/pid"))?,
        std::fs::read_link(format!("/proc/{}/ns/pid", oci.pid()?))?
    );
    oci.without(&["exec.pid"])?;
    reap_later(pid);
    // It belongs to the container, and goes with it.
    Ok(oci.gone()?)
}

pub fn oci_exec_tty_is_a_terminal_of_the_containers(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    let told = oci.told(&["exec", "--tty", &oci.id, "tty"]).ended(0);
    assert_eq!(told.out, "/dev/pts/0\r\n");
    oci.told(&["exec", "-t", &oci.id, "sh", "-c", "exit 9"]).ended(9);
    oci.told(&["exec", "-t", "-d", &oci.id, "tty"]).ended(255).says(&["cannot allocate tty"]);
    oci.told(&["exec", "--console-socket", "x.sock", &oci.id, "tty"]).ended(255).says(&["cannot use console socket"]);
    Ok(oci.gone()?)
}

pub fn oci_exec_cgroup_is_one_below_the_containers(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    let pids = oci.cgroup("pids")?;
    std::fs::create_dir(pids.join("sub"))?;
    let line = oci.told(&["exec", "--cgroup", "pids:sub", &oci.id, "grep", "pids", "/proc/self/cgroup"]).ended(0).out;
    assert!(line.trim_end().ends_with("/sub"), "{line}");
    oci.told(&["exec", "--cgroup", "pids:../up", &oci.id, "true"]).ended(255).says(&["../up"]);
    oci.told(&["exec", "--cgroup", "pids:nosuch", &oci.id, "true"])
        .ended(255)
        .says(&["nosuch", "No such file or directory"]);
    std::fs::remove_dir(pids.join("sub"))?;
    Ok(oci.gone()?)
}

pub fn oci_exec_ignore_paused_waits_until_the_container_goes_on(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    oci.verb("pause").ended(0);
    oci.told(&["exec", &oci.id, "true"]).ended(255).says(&["paused", "--ignore-paused"]);
    let exec = oci.start(&["exec", "--ignore-paused", &oci.id, "echo", "at last"])?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    oci.verb("resume").ended(0);
    assert_eq!(exec.end()?.ended(0).out, "at last\n");
    Ok(oci.gone()?)
}

pub fn oci_exec_preserve_fds_are_the_programs(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    oci.scene.write("three", "third\n")?;
    oci.scene.write("four", "fourth\n")?;
    let script = "cat <&3; cat <&4; ls /proc/self/fd | wc -l";
    let exec = ["exec", "--preserve-fds", "2", &oci.id, "sh", "-c", script];
    let told = scene::told(&mut passing(lab, &exec, "3<three 4<four 5<three")).ended(0);
    // 0 to 4, and the directory that ls reads: the fifth is not passed on.
    assert!(told.out.starts_with("third\nfourth\n6\n"), "{}", told.out);
    oci.told(&["exec", "--preserve-fds", "1", &oci.id, "true"]).ended(255).says(&["preserved-fd 0 (of 1)"]);
    oci.without(&["three", "four"])?;
    Ok(oci.gone()?)
}

pub fn oci_exec_apparmor_and_process_label_are_refused_where_no_module_is(lab: &Lab) -> TestResult {
    let oci = idle(lab)?;
    let lsm = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    for (option, module) in [("--apparmor", "apparmor"), ("--process-label", "selinux")] {
        if lsm.contains(module) {
            lifecycle_tests::harness::note(format!("{module} is active here: not tried"));
            continue;
        }
        let told = oci.told(&["exec", option, "some", &oci.id, "true"]).ended(255);
        assert!(told.err.to_lowercase().contains(module), "{}", told.err);
    }
    Ok(oci.gone()?)
}

/// On a hierarchy of version 2 that is mounted nsdelegate, as podman's and Kubernetes' containers have it, the kernel allows it in one order only.
pub fn oci_exec_joins_a_cgroup_namespace_and_is_in_its_cgroup(lab: &Lab) -> TestResult {
    let mut oci = Oci::new(lab, &["sleep", "600"])?;
    oci.edit(|config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.push(json!({ "type": "cgroup" }));
        }
    })?;
    oci.running(&[]);
    let pid = oci.pid()?;
    let (own, of) = (oci.inside(&["readlink", "/proc/self/ns/cgroup"]), format!("/proc/{pid}/ns/cgroup"));
    assert_eq!(own.trim(), std::fs::read_link(of)?.to_string_lossy());
    let lines = oci.inside(&["cat", "/proc/self/cgroup"]);
    let named = |line: &&str| !line.starts_with("0:") || !Path::new("/sys/fs/cgroup/unified").exists();
    for line in lines.lines().filter(named) {
        assert!(line.ends_with(":/"), "{line} is not the container's own cgroup");
    }
    Ok(oci.gone()?)
}

pub fn oci_exec_in_a_stopped_or_absent_container_is_255(lab: &Lab) -> TestResult {
    let oci = Oci::new(lab, &["true"])?;
    oci.running(&[]);
    oci.wait_for_status("stopped")?;
    oci.told(&["exec", &oci.id, "true"]).ended(255).says(&["cannot exec in a stopped container"]);
    oci.told(&["exec", "absent", "true"]).ended(255).says(&["container does not exist"]);
    Ok(oci.gone()?)
}
