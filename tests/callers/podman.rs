//! podman, with conmon below it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::Need::{Other, Program, Root};
use lifecycle_tests::harness::{Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::{Change, Part, Snapshot};
use lifecycle_tests::{Error, Result, While, program, tests};

use crate::compare::{
    Started, Told, Transcript, at_a_terminal, has_verb, nothing_left, remove_own_cgroups, scope, told, until,
};
use crate::wordings::{
    CGROUPS_READ_ONLY, MASKED, NOT_EXECUTABLE, NOT_EXECUTABLE_BY_EXEC, NOT_IN_PATH, NOT_IN_PATH_OF_EXEC, NOT_THERE,
    Wording,
};

/// Where podman lets a runtime keep its state: it does not say, so that it is where ours keeps it by itself.
const STATE_ROOT: &str = "/run/lifecycle";
/// The image, by name.
const IMAGE: &str = "box";

/// podman with one runtime, in a lab.
pub struct Podman<'a> {
    lab: &'a Lab,
    dir: PathBuf,
    runtime: PathBuf,
    said: RefCell<Transcript>,
}

/// A case: what is asked of podman.
type Case = fn(&Podman) -> Result<()>;

/// The containers.conf of the README. The limits are this machine's, where the superuser may not raise them.
fn containers_conf(name: &str, path: &Path) -> String {
    format!(
        r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
init_path = "{init}"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "{name}"
runtime_supports_json = ["crun", "runc", "lifecycle-oci"]
[engine.runtimes]
{name} = ["{path}"]
"#,
        init = program::find("catatonit").unwrap_or_default().display(),
        path = path.display()
    )
}

impl<'a> Podman<'a> {
    fn new(lab: &'a Lab, name: &str, runtime: PathBuf) -> Result<Self> {
        let dir = lab.dir().join("podman");
        std::fs::create_dir_all(dir.join("tmp")).when(|| "making podman's directory".into())?;
        std::fs::write(dir.join(name), containers_conf(name, &runtime)).when(|| "writing containers.conf".into())?;
        Ok(Self { lab, dir: dir.join(name), runtime, said: RefCell::default() })
    }

    /// podman with these arguments. A container gets no network, and its cgroup below the lab's.
    fn command(&self, arguments: &[&str]) -> Command {
        let base = self.dir.parent().unwrap_or(&self.dir);
        let mut command = Command::new("podman");
        for (option, dir) in [("--root", "root"), ("--runroot", "runroot"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(base.join(dir));
        }
        command.args(["--storage-driver", "vfs"]);
        let (verb, rest) = arguments.split_at(1.min(arguments.len()));
        command.args(verb);
        if matches!(verb, ["run" | "create"]) {
            command.args(["--network=none", "--cgroup-parent", &format!("/{}", self.lab.token())]);
        }
        command
            .args(rest)
            .env("CONTAINERS_CONF", &self.dir)
            .env("TMPDIR", base.join("tmp"))
            .current_dir(self.lab.dir());
        command
    }

    fn note(&self, arguments: &[&str], told: Told) -> Told {
        self.said.borrow_mut().note(arguments.join(" "), &told, &self.runtime);
        told
    }

    /// Runs it to its end, and notes what it came to.
    fn says(&self, arguments: &[&str]) -> Result<Told> {
        Ok(self.note(arguments, told(&mut self.command(arguments), "")?))
    }

    /// The same with something on stdin.
    fn hears(&self, arguments: &[&str], stdin: &str) -> Result<Told> {
        Ok(self.note(arguments, told(&mut self.command(arguments), stdin)?))
    }

    /// The same at a terminal.
    fn at_a_terminal(&self, arguments: &[&str]) -> Result<Told> {
        Ok(self.note(arguments, told(&mut at_a_terminal(&self.command(arguments)), "")?))
    }

    /// As [`Self::says`], and fails unless it ended so with this on stdout: what holds the comparison itself to the truth.
    fn prints(&self, arguments: &[&str], out: &str) -> Result<()> {
        self.ends(arguments, 0, out)
    }

    fn ends(&self, arguments: &[&str], code: i32, out: &str) -> Result<()> {
        let told = self.says(arguments)?;
        if (told.code, told.out.trim()) == (code, out.trim()) {
            Ok(())
        } else {
            Err(Error::new(format!("podman {}", arguments.join(" ")), format!("{told:?}")))
        }
    }

    /// Runs it to its end, without a note: what has to be asked until it is so.
    fn silent(&self, arguments: &[&str]) -> Result<Told> {
        told(&mut self.command(arguments), "")
    }

    /// Waits until a container's output has these words.
    fn until_logged(&self, container: &str, words: &str) -> Result<()> {
        until(&format!("{words:?} of {container}"), || Ok(self.silent(&["logs", container])?.out.contains(words)))
    }
}

fn host_name() -> Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").when(|| "reading the host's name".into())
}

/// Runs the case with runc, then with ours, and compares.
fn hold(lab: &Lab, case: Case, wordings: &[Wording]) -> TestResult {
    let bundle = Bundle::create(lab.dir().join("image"))?;
    std::fs::write(bundle.rootfs().join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")?;
    std::fs::write(bundle.rootfs().join("etc/group"), "root:x:0:\nuser:x:1000:\nmore:x:2000:user\n")?;
    let tar = lab.dir().join("image.tar").display().to_string();
    program::quiet("tar", &["-C", &bundle.rootfs().display().to_string(), "-cf", &tar, "."])?;
    let runc = program::find("runc").ok_or("no runc")?;
    let theirs = Podman::new(lab, "runc", runc)?;
    let imported = told(&mut theirs.command(&["import", "-q", &tar, IMAGE]), "")?;
    if imported.code != 0 {
        return Err(format!("podman import: {imported:?}").into());
    }
    case(&theirs).map_err(|error| Error::new("with runc", error))?;
    // podman's own are there by now: its mounts, and the cgroup of its monitors.
    let scope = scope(lab, Path::new(STATE_ROOT));
    until("podman to clear up", || Ok(monitors()?.is_empty()))?;
    let before = Snapshot::take(&scope)?;
    let ours = Podman::new(lab, "lifecycle-oci", program::lifecycle_oci()?)?;
    case(&ours).map_err(|error| Error::new("with lifecycle-oci", error))?;
    nothing_left(&before, &scope, |change| change.part == Part::Files && is_the_state_root(change))?;
    theirs.said.borrow().same(&ours.said.borrow(), wordings)?;
    // podman leaves the cgroup in which it puts conmon, and the parent that it was told.
    Ok(remove_own_cgroups(&[format!("{}/conmon", lab.token()), lab.token().to_owned()])?)
}

/// The state root itself stays, as /run/runc does; what is in it does not.
fn is_the_state_root(change: &Change) -> bool {
    change.name == STATE_ROOT
}

/// conmon, and the podman that it starts when a container has ended.
fn monitors() -> Result<Vec<String>> {
    let entries = std::fs::read_dir("/proc").when(|| "listing /proc".into())?;
    let names = entries.flatten().filter_map(|entry| {
        // A zombie has no executable, and holds nothing.
        std::fs::read_link(entry.path().join("exe")).ok()?.file_name()?.to_str().map(str::to_owned)
    });
    Ok(names.filter(|name| matches!(name.as_str(), "conmon" | "podman")).collect())
}

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
            podman.says(&["top", "c", "user", "comm"])?;
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

/// One test for each case.
pub fn tests() -> Vec<Test> {
    let verb = |there: bool, what| Other(there, what);
    let pause = verb(has_verb(&["pause"]), "the verb pause in lifecycle-oci");
    let update = verb(has_verb(&["update", "--memory=1"]), "the verb update in lifecycle-oci");
    let all = tests![
        output_and_exit_codes,
        a_program_that_cannot_run_is_126_or_127,
        #[needs(Program("script"))]
        a_terminal,
        limits,
        files,
        identity,
        #[needs(Program("catatonit"))]
        namespaces,
        a_life,
        #[needs(pause)]
        paused_and_going_on,
        #[needs(update)]
        limits_are_changed,
        a_pod,
    ];
    let needs = [Root, Program("podman"), Program("conmon"), Program("runc"), Program("busybox")];
    all.into_iter().map(|test| test.within("podman").needs(&needs).limit(Duration::from_secs(120))).collect()
}
