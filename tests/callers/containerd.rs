//! containerd, with its runc shim below it, asked through `ctr`.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::Need::{Other, Program, Root};
use lifecycle_tests::harness::{Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::{Part, Snapshot};
use lifecycle_tests::{Error, Result, While, program, tests};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::compare::{
    Started, Told, Transcript, at_a_terminal, has_verb, nothing_left, remove_own_cgroups, scope, told, until,
};
use crate::wordings::{MASKED, NOT_EXECUTABLE, NOT_IN_PATH, NOT_IN_PATH_OF_EXEC, Wording};

/// Where the shim lets a runtime keep its state, one directory for each of containerd's namespaces.
const STATE_ROOT: &str = "/run/containerd/runc";
/// The image, by name.
const IMAGE: &str = "docker.io/library/box:latest";

/// containerd by itself, in a lab, and ended with it.
struct Daemon {
    process: Option<Started>,
    socket: PathBuf,
}

impl Daemon {
    fn start(lab: &Lab) -> Result<Self> {
        let dir = lab.dir().join("containerd");
        std::fs::create_dir_all(&dir).when(|| "making containerd's directory".into())?;
        let (config, socket) = (dir.join("config.toml"), dir.join("socket"));
        // Kubernetes's plugin wants a network.
        let text = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        std::fs::write(&config, text).when(|| "writing config.toml".into())?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(config).arg("--address").arg(&socket);
        command.arg("--root").arg(dir.join("root")).arg("--state").arg(dir.join("state"));
        let process = Some(Started::new(&mut command, Stdio::null())?);
        let daemon = Self { process, socket };
        until("containerd", || Ok(told(daemon.ctr().arg("version"), "")?.code == 0))?;
        Ok(daemon)
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket);
        command
    }

    fn end(mut self) -> Result<()> {
        let Some(process) = self.process.take() else { return Ok(()) };
        process.terminate()?;
        process.end().map(|_| ())
    }
}

/// containerd with one runtime.
pub struct Ctr<'a> {
    lab: &'a Lab,
    daemon: &'a Daemon,
    runtime: PathBuf,
    said: RefCell<Transcript>,
}

/// A case: what is asked of ctr.
type Case = fn(&Ctr) -> Result<()>;

impl<'a> Ctr<'a> {
    fn new(lab: &'a Lab, daemon: &'a Daemon, runtime: PathBuf) -> Self {
        Self { lab, daemon, runtime, said: RefCell::default() }
    }

    /// ctr with these arguments; `run` with the runtime. The namespace is part of the cgroups' names.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.daemon.ctr();
        command.args(["--namespace", self.lab.token()]);
        let (verb, rest) = arguments.split_at(1.min(arguments.len()));
        command.args(verb);
        if verb == ["run"] {
            command.args(["--snapshotter", "native", "--runtime", "io.containerd.runc.v2", "--runc-binary"]);
            command.arg(&self.runtime);
        }
        command.args(rest).current_dir(self.lab.dir());
        command
    }

    /// Notes what it came to; of what it prints, as much as `of` leaves.
    fn note(&self, arguments: &[&str], told: Told, of: impl Fn(&str) -> String) -> Told {
        let noted = Told { out: of(&told.out), ..told.clone() };
        self.said.borrow_mut().note(arguments.join(" "), &noted, &self.runtime);
        told
    }

    /// Runs it to its end, and notes what it came to.
    fn says(&self, arguments: &[&str]) -> Result<Told> {
        Ok(self.note(arguments, told(&mut self.command(arguments), "")?, str::to_owned))
    }

    /// The same, and fails unless it ended so.
    fn ends(&self, arguments: &[&str], code: i32, out: &str) -> Result<()> {
        expect(arguments, self.says(arguments)?, code, out)
    }

    /// The same at a terminal.
    fn at_a_terminal(&self, arguments: &[&str], code: i32, out: &str) -> Result<()> {
        let told = told(&mut at_a_terminal(&self.command(arguments)), "")?;
        expect(arguments, self.note(arguments, told, str::to_owned), code, out)
    }

    /// The state of a container's task, as `ctr task ls` says it.
    fn status(&self, container: &str) -> Result<String> {
        let all = told(&mut self.command(&["task", "ls"]), "")?.out;
        let line = all.lines().find(|line| line.split_whitespace().next() == Some(container));
        Ok(line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or("none").to_owned())
    }

    fn until(&self, container: &str, status: &str) -> Result<()> {
        until(&format!("{container} to be {status}"), || Ok(self.status(container)? == status))
    }
}

/// Fails unless it ended so.
fn expect(arguments: &[&str], told: Told, code: i32, out: &str) -> Result<()> {
    if (told.code, told.out.replace('\r', "").trim()) == (code, out) {
        Ok(())
    } else {
        Err(Error::new(format!("ctr {}", arguments.join(" ")), format!("{told:?}")))
    }
}

/// An image that `ctr` takes: one layer, as `docker save` writes it.
fn archive(lab: &Lab) -> Result<PathBuf> {
    let bundle = Bundle::create(lab.dir().join("image"))?;
    let dir = lab.dir().join("archive");
    std::fs::create_dir(&dir).when(|| "making the archive's directory".into())?;
    let pack = |from: &Path, to: &Path| {
        program::quiet("tar", &["-C", &from.display().to_string(), "-cf", &to.display().to_string(), "."])
    };
    pack(&bundle.rootfs(), &dir.join("layer.tar"))?;
    let layer = std::fs::read(dir.join("layer.tar")).when(|| "reading the layer".into())?;
    let mut digest = String::new();
    for byte in Sha256::digest(&layer) {
        // Writing to a string cannot fail.
        let _ = write!(digest, "{byte:02x}");
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": [path], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    for (file, text) in [("config.json", config), ("manifest.json", manifest)] {
        std::fs::write(dir.join(file), text.to_string()).when(|| format!("writing {file}"))?;
    }
    let tar = lab.dir().join("archive.tar");
    pack(&dir, &tar)?;
    Ok(tar)
}

/// Runs the case with runc, then with ours, and compares.
fn hold(lab: &Lab, case: Case, wordings: &[Wording]) -> TestResult {
    let daemon = Daemon::start(lab)?;
    let theirs = Ctr::new(lab, &daemon, program::find("runc").ok_or("no runc")?);
    let tar = archive(lab)?.display().to_string();
    let imported = told(&mut theirs.command(&["image", "import", "--snapshotter", "native", &tar]), "")?;
    if imported.code != 0 {
        return Err(format!("ctr image import: {imported:?}").into());
    }
    case(&theirs).map_err(|error| Error::new("with runc", error))?;
    // runc leaves the cgroup of containerd's namespace, which it has made as a parent. Ours has to remove it.
    remove_own_cgroups(&[lab.token().to_owned()])?;
    let scope = scope(lab, Path::new(STATE_ROOT));
    until("the shims to end", || Ok(shims()? == 0))?;
    let before = Snapshot::take(&scope)?;
    let ours = Ctr::new(lab, &daemon, program::lifecycle_oci()?);
    case(&ours).map_err(|error| Error::new("with lifecycle-oci", error))?;
    let roots = [STATE_ROOT.to_owned(), format!("{STATE_ROOT}/{}", lab.token())];
    // The state roots themselves stay, as runc's do.
    nothing_left(&before, &scope, |change| change.part == Part::Files && roots.contains(&change.name))?;
    theirs.said.borrow().same(&ours.said.borrow(), wordings)?;
    Ok(daemon.end()?)
}

fn shims() -> Result<usize> {
    let entries = std::fs::read_dir("/proc").when(|| "listing /proc".into())?;
    let executables = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path().join("exe")).ok());
    Ok(executables.filter(|exe| exe.ends_with("containerd-shim-runc-v2")).count())
}

fn output_and_exit_codes(lab: &Lab) -> TestResult {
    hold(
        lab,
        |ctr| {
            ctr.ends(&["run", "--rm", IMAGE, "c", "echo", "hello"], 0, "hello")?;
            ctr.ends(&["run", "--rm", IMAGE, "c", "sh", "-c", "echo problem >&2; exit 7"], 7, "")?;
            ctr.ends(
                &["run", "--rm", "--env", "A=b", "--cwd", "/tmp", IMAGE, "c", "sh", "-c", "pwd; echo $A"],
                0,
                "/tmp\nb",
            )?;
            ctr.ends(&["run", "--rm", "--memory-limit=67108864", IMAGE, "c", "sleep", "0.1"], 0, "")?;
            ctr.ends(&["run", "--rm", "--read-only", IMAGE, "c", "touch", "/file"], 1, "")?;
            ctr.ends(
                &["run", "--rm", "--privileged", IMAGE, "c", "sh", "-c", "mount -t tmpfs none /tmp && echo mounted"],
                0,
                "mounted",
            )?;
            ctr.says(&[
                "run",
                "--rm",
                "--seccomp",
                IMAGE,
                "c",
                "grep",
                "-E",
                "^(Cap|Seccomp|NoNew)",
                "/proc/self/status",
            ])?;
            ctr.says(&[
                "run",
                "--rm",
                IMAGE,
                "c",
                "sh",
                "-c",
                "sort -k2 /proc/mounts | cut -d' ' -f1-4 | grep -v ' / '",
            ])?;
            ctr.says(&["run", "--rm", IMAGE, "c", "no-such-program"])?;
            ctr.says(&["run", "--rm", IMAGE, "c", "/etc/passwd"])?;
            Ok(())
        },
        &[NOT_IN_PATH, NOT_EXECUTABLE, MASKED[0], MASKED[2]],
    )
}

/// At a terminal ctr drops what it has not read when the program ends: so the programs stay for a moment.
fn a_terminal(lab: &Lab) -> TestResult {
    hold(
        lab,
        |ctr| {
            ctr.at_a_terminal(
                &["run", "--rm", "-t", IMAGE, "c", "sh", "-c", "tty; sleep 0.3; exit 4"],
                4,
                "/dev/pts/0",
            )?;
            ctr.says(&["run", "-d", IMAGE, "c", "sleep", "1000"])?;
            ctr.at_a_terminal(
                &["task", "exec", "-t", "--exec-id", "e", "c", "sh", "-c", "tty; sleep 0.3; exit 6"],
                6,
                "/dev/pts/0",
            )?;
            ctr.says(&["task", "kill", "-s", "KILL", "c"])?;
            ctr.until("c", "STOPPED")?;
            ctr.says(&["task", "rm", "c"])?;
            ctr.says(&["container", "rm", "c"])?;
            Ok(())
        },
        &[],
    )
}

/// The first word of each line: what goes before a number that is never the same twice.
fn first_words(text: &str) -> String {
    text.lines().filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>().join("\n")
}

fn a_life(lab: &Lab) -> TestResult {
    hold(
        lab,
        |ctr| {
            let program =
                r#"trap "exit 5" TERM; trap "touch /tmp/hup" HUP; touch /tmp/up; while :; do sleep 0.05; done"#;
            ctr.says(&["run", "-d", IMAGE, "c", "sh", "-c", program])?;
            ctr.until("c", "RUNNING")?;
            let there = |file: &str| {
                let look = ["task", "exec", "--exec-id", "look", "c", "test", "-e", file];
                until(file, || Ok(told(&mut ctr.command(&look), "")?.code == 0))
            };
            there("/tmp/up")?;
            ctr.ends(&["task", "exec", "--exec-id", "e", "c", "sh", "-c", "echo inside; exit 4"], 4, "inside")?;
            ctr.ends(
                &[
                    "task",
                    "exec",
                    "--exec-id",
                    "e",
                    "--user",
                    "1:2",
                    "--cwd",
                    "/tmp",
                    "c",
                    "sh",
                    "-c",
                    "id -u; id -g; pwd",
                ],
                0,
                "1\n2\n/tmp",
            )?;
            ctr.says(&["task", "exec", "--exec-id", "e", "c", "no-such-program"])?;
            ctr.says(&["task", "exec", "-d", "--exec-id", "e", "c", "touch", "/tmp/detached"])?;
            there("/tmp/detached")?;
            let metrics = ["task", "metrics", "c"];
            ctr.note(&metrics, told(&mut ctr.command(&metrics), "")?, first_words);
            ctr.says(&["task", "kill", "-s", "HUP", "c"])?;
            there("/tmp/hup")?;
            ctr.says(&["task", "kill", "c"])?;
            ctr.until("c", "STOPPED")?;
            ctr.says(&["task", "rm", "c"])?;
            ctr.says(&["container", "rm", "c"])?;
            // The task is removed while it runs.
            ctr.says(&["run", "-d", IMAGE, "c", "sh", "-c", "sleep 1000 & sleep 1000"])?;
            ctr.until("c", "RUNNING")?;
            ctr.says(&["task", "rm", "c"])?;
            ctr.says(&["task", "rm", "-f", "c"])?;
            ctr.says(&["container", "rm", "c"])?;
            ctr.says(&["task", "kill", "c"])?;
            Ok(())
        },
        &[NOT_IN_PATH_OF_EXEC],
    )
}

fn its_processes(lab: &Lab) -> TestResult {
    hold(
        lab,
        |ctr| {
            ctr.says(&["run", "-d", IMAGE, "c", "sh", "-c", "sleep 1000 & sleep 1000"])?;
            ctr.until("c", "RUNNING")?;
            let ps = ["task", "ps", "c"];
            let lines = |text: &str| text.lines().count().to_string();
            until("two programs", || Ok(lines(&told(&mut ctr.command(&ps), "")?.out) == "3"))?;
            ctr.note(&ps, told(&mut ctr.command(&ps), "")?, lines);
            ctr.says(&["task", "rm", "-f", "c"])?;
            ctr.says(&["container", "rm", "c"])?;
            Ok(())
        },
        &[],
    )
}

fn paused_and_going_on(lab: &Lab) -> TestResult {
    hold(
        lab,
        |ctr| {
            ctr.says(&["run", "-d", IMAGE, "c", "sleep", "1000"])?;
            ctr.until("c", "RUNNING")?;
            ctr.says(&["task", "pause", "c"])?;
            ctr.until("c", "PAUSED")?;
            ctr.says(&["task", "exec", "--exec-id", "e", "c", "true"])?;
            ctr.says(&["task", "resume", "c"])?;
            ctr.until("c", "RUNNING")?;
            ctr.ends(&["task", "exec", "--exec-id", "e", "c", "true"], 0, "")?;
            ctr.says(&["task", "rm", "-f", "c"])?;
            ctr.says(&["container", "rm", "c"])?;
            Ok(())
        },
        &[],
    )
}

/// One test for each case.
pub fn tests() -> Vec<Test> {
    let pause = Other(has_verb(&["pause"]), "the verb pause in lifecycle-oci");
    let ps = Other(has_verb(&["ps"]), "the verb ps in lifecycle-oci");
    let all = tests![
        output_and_exit_codes,
        #[needs(Program("script"))]
        a_terminal,
        a_life,
        #[needs(ps)]
        its_processes,
        #[needs(pause)]
        paused_and_going_on,
    ];
    let needs = [Root, Program("containerd"), Program("ctr"), Program("runc"), Program("busybox")];
    all.into_iter().map(|test| test.within("containerd").needs(&needs).limit(Duration::from_secs(120))).collect()
}
