//! What is asked of podman.

use std::process::Stdio;

use lifecycle_tests::harness::TestResult;
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Error, Result, While};

use super::{IMAGE, Podman, hold, host_name};
use crate::compare::{Started, Told, at_a_terminal, until};
use crate::wordings::{
    CGROUPS_READ_ONLY, MASKED, NOT_EXECUTABLE, NOT_EXECUTABLE_BY_EXEC, NOT_IN_PATH, NOT_IN_PATH_OF_EXEC, NOT_THERE,
};

pub fn output_and_exit_codes(lab: &Lab) -> TestResult {
    hold(
        lab,
        |podman| {
            podman.prints(&["run", "--rm", IMAGE, "echo", "hello"], "hello")?;
            podman.ends(&["run", "--rm", IMAGE, "sh", "-c", "echo problem >&2; exit 7"], 7, "")?;
            podman.ends(&["run", "--rm", "--init", IMAGE, "sh", "-c", "kill -USR1 $$"], 138, "")?;
            podman.hears(&["run", "--rm", "-i", IMAGE, "sh", "-c", "cat; exit 3"], "typed\n")?;
            podman.prints(&["run", "--rm", "-w", "/tmp", "-e", "A=b", IMAGE, "sh", "-c", "pwd; echo $A"], "/tmp\nb")?;
            Ok(())
        },
        &[],
    )
}

pub fn a_program_that_cannot_run_is_126_or_127(lab: &Lab) -> TestResult {
    hold(
        lab,
        |podman| {
            podman.ends(&["run", "--rm", IMAGE, "no-such-program"], 127, "")?;
            podman.ends(&["run", "--rm", IMAGE, "/no/such/program"], 127, "")?;
            podman.ends(&["run", "--rm", IMAGE, "/etc/passwd"], 126, "")?;
            podman.ends(&["run", "-d", "--name", "c", IMAGE, "no-such-program"], 127, "")?;
            podman.says(&["rm", "-f", "c"])?;
            Ok(())
        },
        &[NOT_IN_PATH, NOT_THERE, NOT_EXECUTABLE],
    )
}

pub fn a_terminal(lab: &Lab) -> TestResult {
    hold(
        lab,
        |podman| {
            podman.at_a_terminal(&[
                "run",
                "--rm",
                "-t",
                IMAGE,
                "sh",
                "-c",
                "tty; test -t 0 && test -t 2 && echo yes",
            ])?;
            podman.at_a_terminal(&["run", "--rm", "-t", IMAGE, "sh", "-c", "stty size; exit 4"])?;
            podman.at_a_terminal(&["run", "--rm", "-t", "--user", "1000", IMAGE, "sh", "-c", "stat -c %u $(tty)"])?;
            typed_at(podman, &["run", "--rm", "-it", IMAGE, "sh"])?;
            podman.says(&["run", "-d", "--name", "c", IMAGE, "sleep", "1000"])?;
            podman.at_a_terminal(&["exec", "-t", "c", "sh", "-c", "tty; exit 6"])?;
            typed_at(podman, &["exec", "-it", "c", "sh"])?;
            podman.says(&["rm", "-f", "-t", "0", "c"])?;
            Ok(())
        },
        &[],
    )
}

/// A shell that is typed at.
fn typed_at(podman: &Podman, arguments: &[&str]) -> Result<()> {
    let mut shell = Started::new(&mut at_a_terminal(&podman.command(arguments)), Stdio::piped())?;
    shell.wait_for("#")?;
    shell.type_in("echo $((6 * 7)) at $(tty)\n")?;
    shell.wait_for("42 at /dev/pts/0")?;
    // The container's own: its shell takes it, and goes on.
    shell.type_in("sh -c 'echo u$((1))p; exec sleep 1000'\n")?;
    shell.wait_for("u1p")?;
    shell.type_in("\u{3}")?;
    shell.type_in("echo still $((40 + 3)); exit 5\n")?;
    let told = shell.end()?;
    if told.code != 5 || !told.out.contains("still 43") {
        return Err(Error::new("a shell at a terminal", format!("{told:?}")));
    }
    // What is echoed depends on when it is typed.
    podman.note(arguments, Told { out: String::new(), ..told });
    Ok(())
}

pub fn limits(lab: &Lab) -> TestResult {
    hold(
        lab,
        |podman| {
            let cat = |option: &str, file: &str, text: &str| {
                podman.prints(&["run", "--rm", option, IMAGE, "cat", &format!("/sys/fs/cgroup/{file}")], text)
            };
            cat("--memory=64m", "memory/memory.limit_in_bytes", "67108864")?;
            cat("--pids-limit=50", "pids/pids.max", "50")?;
            cat("--cpus=0.5", "cpu/cpu.cfs_quota_us", "50000")?;
            cat("--cpu-shares=77", "cpu/cpu.shares", "77")?;
            cat("--cpuset-cpus=0", "cpuset/cpuset.cpus", "0")?;
            let see = |options: &[&str], command: &str, text: &str| {
                podman.prints(&[&["run", "--rm"], options, &[IMAGE, "sh", "-c", command]].concat(), text)
            };
            see(&["--oom-score-adj=500"], "cat /proc/self/oom_score_adj", "500")?;
            let files = ["--ulimit=nofile=100:200", "--ulimit=nproc=500:600"];
            let see_both = "ulimit -n; ulimit -Hn; grep processes /proc/self/limits | tr -s ' '";
            see(&files, see_both, "100\n200\nMax processes 500 600 processes")?;
            // Out of memory: the kernel ends the program.
            podman.ends(&["run", "--rm", "--memory=16m", IMAGE, "tail", "/dev/zero"], 137, "")
        },
        &[],
    )
}

pub fn files(lab: &Lab) -> TestResult {
    hold(
        lab,
        |podman| {
            let volume = podman.lab.dir().join("volume");
            std::fs::create_dir_all(&volume).when(|| "making the volume".into())?;
            std::fs::write(volume.join("file"), "of the host\n").when(|| "writing to the volume".into())?;
            let volume = volume.display();
            let see = |options: &[&str], command: &str, code: i32, text: &str| {
                podman.ends(&[&["run", "--rm"], options, &[IMAGE, "sh", "-c", command]].concat(), code, text)
            };
            see(&["--read-only"], "touch /tmp/file && touch /file", 1, "")?;
            see(
                &["-v", &format!("{volume}:/volume")],
                "cat /volume/file; echo from inside > /volume/new",
                0,
                "of the host",
            )?;
            see(&["-v", &format!("{volume}:/volume:ro")], "cat /volume/new; touch /volume/other", 1, "from inside")?;
            let file = format!("type=bind,source={volume}/file,destination=/etc/file,readonly");
            see(&["--mount", &file], "cat /etc/file; echo no > /etc/file", 1, "of the host")?;
            let mounts = "grep ' /some ' /proc/mounts | cut -d' ' -f2,3; stat -c %a /some";
            see(&["--tmpfs", "/some:size=1m,mode=700"], mounts, 0, "/some tmpfs\n700")?;
            see(&["-v", "/new/volume"], "touch /new/volume/file; ls /new/volume", 0, "file")?;
            see(
                &["--device", "/dev/fuse:/dev/other"],
                "stat -c '%F %t:%T %a' /dev/other",
                0,
                "character special file a:e5 600",
            )?;
            // All of /dev and every mount, as they are: held only against runc's.
            podman.says(&["run", "--rm", IMAGE, "sh", "-c", "cd /dev; stat -c '%n %N %F %a %u:%g %t:%T' * pts/*"])?;
            podman.says(&["run", "--rm", IMAGE, "sh", "-c", "sort -k2 /proc/mounts | cut -d' ' -f1-4"])?;
            Ok(())
        },
        &[CGROUPS_READ_ONLY, MASKED[0], MASKED[1], MASKED[2]],
    )
}

pub fn identity(lab: &Lab) -> TestResult {
    hold(
        lab,
        |podman| {
            let see = |options: &[&str], command: &str, text: &str| {
                podman.prints(&[&["run", "--rm"], options, &[IMAGE, "sh", "-c", command]].concat(), text)
            };
            see(
                &["--user", "user"],
                "id; echo $HOME",
                "uid=1000(user) gid=1000(user) groups=1000(user),2000(more)\n/",
            )?;
            see(&["--user", "5:6", "--group-add", "7"], "id -u; id -g; id -G", "5\n6\n6 7")?;
            see(&["--cap-drop", "all"], "grep CapEff /proc/self/status", "CapEff:\t0000000000000000")?;
            let status = "grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status";
            for options in [
                &[][..],
                &["--cap-add=net_admin,sys_time"],
                &["--user=1000", "--cap-add=net_raw"],
                &["--security-opt=no-new-privileges"],
                &["--security-opt=seccomp=unconfined"],
            ] {
                podman.says(&[&["run", "--rm"], options, &[IMAGE, "sh", "-c", status]].concat())?;
            }
            podman.says(&["run", "--rm", "--privileged", IMAGE, "sh", "-c", status])?;
            see(&["--privileged"], "test -c /dev/fuse && mount -t tmpfs none /tmp && echo mounted", "mounted")?;
            // What is masked and what is read-only.
            podman.says(&["run", "--rm", IMAGE, "sh", "-c", "head -c 1 /proc/kcore; ls /sys/firmware /proc/acpi"])?;
            podman.says(&[
                "run",
                "--rm",
                IMAGE,
                "sh",
                "-c",
                "echo 1 > /proc/sys/vm/drop_caches; mkdir /sys/fs/cgroup/cpu/x",
            ])?;
            podman.says(&["run", "--rm", IMAGE, "mount", "-t", "tmpfs", "none", "/tmp"])?;
            podman.says(&["run", "--rm", IMAGE, "mknod", "/tmp/sda", "b", "8", "0"])?;
            podman.says(&["run", "--rm", IMAGE, "sh", "-c", "mknod /tmp/mem c 1 1 && cat /tmp/mem"])?;
            Ok(())
        },
        &[],
    )
}

pub fn namespaces(lab: &Lab) -> TestResult {
    hold(
        lab,
        |podman| {
            let see = |options: &[&str], command: &str, text: &str| {
                podman.prints(&[&["run", "--rm"], options, &[IMAGE, "sh", "-c", command]].concat(), text)
            };
            see(&["--hostname", "named"], "hostname", "named")?;
            see(&["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward", "1")?;
            let map =
                "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; touch /file; stat -c %u /file /etc/passwd";
            see(&["--uidmap", "0:100000:65536"], map, " 0 100000 65536\n 0 100000 65536\n0\n0")?;
            see(&["--uidmap", "0:100000:1000", "--user", "500"], "id -u", "500")?;
            see(&["--pid=host"], "test $PPID != 0 && test $(ps | wc -l) -gt 3 && echo many", "many")?;
            see(&[], "echo $$; test $(ps | wc -l) -lt 6 && echo few", "1\nfew")?;
            see(&["--uts=host"], "hostname", host_name()?.trim())?;
            see(&["--ipc=host"], "echo shared", "shared")?;
            see(
                &["--cgroupns=host"],
                &format!("grep -c {} /proc/self/cgroup > /dev/null && echo seen", podman.lab.token()),
                "seen",
            )?;
            see(&["--cgroupns=private"], "grep pids /proc/self/cgroup | cut -d: -f2,3", "pids:/")?;
            see(&["--init"], "ps -o pid,comm | sed -n '2p' | tr -s ' '", " 1 podman-init")?;
            Ok(())
        },
        &[],
    )
}

pub fn a_life(lab: &Lab) -> TestResult {
    hold(
        lab,
        |podman| {
            let program = r#"trap "echo end; exit 5" TERM; trap "echo hup" HUP; echo up; while :; do sleep 0.05; done"#;
            let status =
                |wanted: &str| podman.prints(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "c"], wanted);
            podman.says(&["run", "-d", "--name", "c", IMAGE, "sh", "-c", program])?;
            podman.until_logged("c", "up")?;
            status("running 0")?;
            podman.prints(&["exec", "c", "echo", "inside"], "inside")?;
            podman.ends(
                &["exec", "-u", "1000", "-w", "/tmp", "-e", "A=b", "c", "sh", "-c", "id -u; pwd; echo $A; exit 4"],
                4,
                "1000\n/tmp\nb",
            )?;
            podman.hears(&["exec", "-i", "c", "cat"], "typed\n")?;
            podman.says(&[
                "exec",
                "c",
                "sh",
                "-c",
                "grep -E '^(Cap|Seccomp|NoNew)' /proc/self/status; ls /proc/self/fd",
            ])?;
            podman.says(&[
                "exec",
                "--privileged",
                "c",
                "sh",
                "-c",
                "grep -E '^(Cap|Seccomp|NoNew)' /proc/self/status",
            ])?;
            podman.ends(&["exec", "c", "no-such-program"], 127, "")?;
            podman.ends(&["exec", "c", "/etc/passwd"], 126, "")?;
            podman.says(&["exec", "-d", "c", "sh", "-c", "echo detached > /tmp/file"])?;
            until("the detached program", || {
                Ok(podman.silent(&["exec", "c", "cat", "/tmp/file"])?.out == "detached\n")
            })?;
            // The program's own `sleep` comes and goes.
            let top = podman.silent(&["top", "c", "user", "comm"])?;
            let line = top.out.lines().nth(1).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
            if (top.code, line.as_str()) != (0, "root sh") {
                return Err(Error::new("podman top", format!("{top:?}")));
            }
            podman.prints(&["stats", "--no-stream", "--format", "{{.Name}}", "c"], "c")?;
            podman.says(&["kill", "-s", "HUP", "c"])?;
            podman.until_logged("c", "hup")?;
            podman.says(&["stop", "-t", "10", "c"])?;
            status("exited 5")?;
            podman.prints(&["logs", "c"], "up\nhup\nend")?;
            podman.ends(&["exec", "c", "true"], 255, "")?;
            podman.ends(&["kill", "c"], 125, "")?;
            podman.says(&["start", "c"])?;
            status("running 0")?;
            podman.says(&["restart", "-t", "0", "c"])?;
            status("running 0")?;
            podman.says(&["kill", "c"])?;
            podman.prints(&["wait", "c"], "137")?;
            podman.says(&["rm", "c"])?;
            // Removed with all that it has started, though none of that shares a PID namespace with it.
            let more = "sleep 1234 & sleep 1234";
            podman.says(&["run", "-d", "--name", "c", "--pid=host", IMAGE, "sh", "-c", more])?;
            podman.says(&["rm", "-f", "-t", "0", "c"])?;
            podman.says(&["create", "--name", "c", IMAGE, "true"])?;
            podman.says(&["start", "-a", "c"])?;
            podman.says(&["rm", "c"])?;
            Ok(())
        },
        &[NOT_IN_PATH_OF_EXEC, NOT_EXECUTABLE_BY_EXEC],
    )
}

pub fn paused_and_going_on(lab: &Lab) -> TestResult {
    hold(
        lab,
        |podman| {
            let status = |wanted: &str| podman.prints(&["inspect", "-f", "{{.State.Status}}", "c"], wanted);
            podman.says(&["run", "-d", "--name", "c", IMAGE, "sleep", "1000"])?;
            podman.says(&["pause", "c"])?;
            status("paused")?;
            podman.ends(&["exec", "c", "true"], 255, "")?;
            podman.says(&["unpause", "c"])?;
            status("running")?;
            podman.ends(&["exec", "c", "true"], 0, "")?;
            podman.says(&["pause", "c"])?;
            podman.says(&["rm", "-f", "-t", "0", "c"])?;
            Ok(())
        },
        &[],
    )
}

pub fn limits_are_changed(lab: &Lab) -> TestResult {
    hold(
        lab,
        |podman| {
            podman.says(&["run", "-d", "--name", "c", "--memory=200m", IMAGE, "sleep", "1000"])?;
            podman.says(&["update", "--memory=100m", "--cpu-shares=55", "c"])?;
            let files = ["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/cpu/cpu.shares"];
            podman.prints(&["exec", "c", "cat", files[0], files[1]], "104857600\n55")?;
            podman.says(&["rm", "-f", "-t", "0", "c"])?;
            Ok(())
        },
        &[],
    )
}

/// Without an infra container, which would want an image of its own, the containers of a pod share no namespace.
pub fn a_pod(lab: &Lab) -> TestResult {
    hold(
        lab,
        |podman| {
            podman.says(&[
                "pod",
                "create",
                "--infra=false",
                "--cgroup-parent",
                &format!("/{}", podman.lab.token()),
                "--name",
                "p",
            ])?;
            podman.says(&["run", "-d", "--pod", "p", "--name", "one", IMAGE, "sleep", "1000"])?;
            podman.prints(&["run", "--rm", "--pod", "p", IMAGE, "echo", "two"], "two")?;
            podman
                .prints(&["pod", "ps", "--format", "{{.Name}} {{.Status}} {{.NumberOfContainers}}"], "p Running 1")?;
            podman.says(&["pod", "stop", "-t", "0", "p"])?;
            podman.says(&["pod", "rm", "p"])?;
            Ok(())
        },
        &[],
    )
}
