//! podman, with conmon below it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::Need::{Other, Program, Root};
use lifecycle_tests::harness::{Test, TestResult};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::{Change, Part, Snapshot};
use lifecycle_tests::{Error, Result, While, program, tests};

use crate::compare::{Told, Transcript, at_a_terminal, has_verb, nothing_left, remove_own_cgroups, scope, told, until};
use crate::wordings::Wording;

mod cases;

use cases::*;

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
