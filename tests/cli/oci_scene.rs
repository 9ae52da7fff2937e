//! `lifecycle-oci` as its callers use it, in a lab with a bundle and a container's id of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::lab::Lab;
use lifecycle_tests::{Error, PATIENCE, Result, While, program};
use serde_json::Value;

use crate::scene::{self, Scene, Started, Told};

/// A lab with a bundle, and what `lifecycle-oci` does with it.
pub struct Oci<'a> {
    pub lab: &'a Lab,
    pub scene: Scene<'a>,
    pub bundle: Bundle,
    /// The container's id, which is part of its cgroup's name.
    pub id: String,
}

impl<'a> Oci<'a> {
    /// A bundle whose program is this.
    pub fn new(lab: &'a Lab, arguments: &[&str]) -> Result<Self> {
        let mut scene = Scene::new(lab)?;
        let bundle = Bundle::create(lab.dir().join("bundle"))?;
        bundle.runs(arguments)?;
        scene.begins_here()?;
        Ok(Self { lab, scene, bundle, id: format!("{}-c1", lab.token()) })
    }

    /// Changes the config, which the machine then has from the beginning.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        self.bundle.edit(change)?;
        self.scene.begins_here()
    }

    /// The program with these arguments, in the lab's directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.lab);
        command.args(arguments);
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn told(&self, arguments: &[&str]) -> Told {
        scene::told(&mut self.command(arguments))
    }

    /// A verb with the container's id behind it.
    #[track_caller]
    pub fn verb(&self, verb: &str) -> Told {
        self.told(&[verb, &self.id])
    }

    /// Starts it with a pipe to its stdin.
    pub fn start(&self, arguments: &[&str]) -> Result<Started> {
        Started::new(&mut self.command(arguments))
    }

    /// `create` with more options; its success is silent.
    #[track_caller]
    pub fn create(&self, options: &[&str]) {
        let told = self.told(&[&["create", "--bundle", "bundle"], options, &[&self.id]].concat()).ended(0);
        assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
    }

    /// `create` and `start`.
    #[track_caller]
    pub fn running(&self, options: &[&str]) {
        self.create(options);
        self.verb("start").ended(0);
    }

    /// `exec` of a command, which is to end well; what it printed.
    #[track_caller]
    pub fn inside(&self, command: &[&str]) -> String {
        self.told(&[&["exec", &self.id], command].concat()).ended(0).out
    }

    /// What `state` prints.
    #[track_caller]
    pub fn state(&self) -> Result<Value> {
        let told = self.verb("state").ended(0);
        serde_json::from_str(&told.out).when(|| format!("parsing {}", told.out))
    }

    /// Waits until `state` says so.
    pub fn wait_for_status(&self, status: &str) -> Result<()> {
        eventually(&format!("status {status}"), || Ok(self.state()?["status"] == status))
    }

    /// The first process's id.
    pub fn pid(&self) -> Result<i32> {
        let state = self.state()?;
        state["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| Error::new("reading state", "no pid"))
    }

    /// The directory of the container's cgroup that has this controller: where the kernel says that its first process is.
    pub fn cgroup(&self, controller: &str) -> Result<PathBuf> {
        let text =
            std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid()?)).when(|| "reading the cgroup".into())?;
        let find = |wanted: &dyn Fn(&str) -> bool| {
            text.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (names, path) = (parts.next()?, parts.next()?);
                wanted(names).then(|| (names.to_owned(), path.trim_start_matches('/').to_owned()))
            })
        };
        let v1 = find(&|names: &str| names.split(',').any(|name| name == controller));
        let (mount, path) = if let Some((names, path)) = v1 {
            (Path::new("/sys/fs/cgroup").join(names), path)
        } else {
            let (_, path) = find(&str::is_empty).ok_or_else(|| Error::new("reading the cgroup", text.clone()))?;
            let unified = Path::new("/sys/fs/cgroup/unified");
            (if unified.is_dir() { unified.into() } else { "/sys/fs/cgroup".into() }, path)
        };
        Ok(mount.join(path))
    }

    /// What a file of that cgroup says.
    pub fn limit(&self, controller: &str, file: &str) -> Result<String> {
        let path = self.cgroup(controller)?.join(file);
        let text = std::fs::read_to_string(&path).when(|| format!("reading {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// Takes these files of the test's own away again.
    pub fn without(&self, files: &[&str]) -> Result<()> {
        files
            .iter()
            .try_for_each(|name| std::fs::remove_file(self.lab.dir().join(name)).when(|| format!("removing {name}")))
    }

    /// Deletes the container, whatever it does, and looks that nothing is left.
    #[track_caller]
    pub fn gone(&self) -> Result<()> {
        let told = self.told(&["delete", "--force", &self.id]).ended(0);
        assert_eq!((told.out.as_str(), told.err.as_str()), ("", ""));
        self.scene.nothing_left()
    }
}

/// The program in a lab, with its state root.
pub fn command(lab: &Lab) -> Command {
    // A test without the program has nothing to test.
    let mut command = Command::new(program::lifecycle_oci().unwrap_or_else(|error| panic!("{error}")));
    command.arg("--root").arg(lab.state_root()).current_dir(lab.dir()).stdin(Stdio::null());
    for variable in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        command.env_remove(variable);
    }
    command
}

/// Waits until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    // Where the processor is emulated, criu alone takes most of a minute.
    let slow = if std::env::var_os("LIFECYCLE_IN_GUEST").is_some() { 3 } else { 1 };
    let deadline = Instant::now() + slow * PATIENCE;
    while !is_so()? {
        if Instant::now() > deadline {
            return Err(Error::new(format!("waiting for {what}"), "it did not come"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The program with more descriptors open, as a shell's redirections have them. With $PASSED_PID = own it is told that LISTEN_FDS is for it.
pub fn passing(lab: &Lab, arguments: &[&str], redirections: &str) -> Command {
    let oci = command(lab);
    let script = format!(
        "case ${{PASSED_PID-}} in '') ;; own) export LISTEN_PID=$$ ;; *) export LISTEN_PID=$PASSED_PID ;; esac
exec \"$0\" \"$@\" {redirections}"
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(oci.get_program()).args(oci.get_args()).args(arguments);
    shell.current_dir(lab.dir()).stdin(Stdio::null());
    shell
}

/// Reaps a process that has lost its parent, as conmon or containerd's shim does: until that the kernel does not end its PID namespace.
pub fn reap_later(pid: i32) {
    std::thread::spawn(move || {
        rustix::process::Pid::from_raw(pid)
            .map(|pid| rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()))
    });
}
