//! A machine of its own for each test.
//!
//! A test that needs root runs as process 1 of a PID namespace, in its own mount, network, IPC and UTS namespaces, with an empty `/run`.
//! What it sees there is all its own, so a snapshot needs no filters, tests run side by side, and whatever a failing test leaves running
//! dies with it. Mounts are shared within the lab, as on a machine under systemd, so that propagation is at work. Cgroups are the
//! machine's: their names carry the lab's token.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::machine::{Processes, Scope, Snapshot};
use crate::{Result, While};

/// Says which test to run, and where between the harness and the lab a process stands.
pub(crate) const INSIDE: &str = "LIFECYCLE_TESTS_INSIDE";
/// Says the token of the lab.
pub(crate) const TOKEN: &str = "LIFECYCLE_TESTS_TOKEN";

/// The machine that a test has for itself.
#[derive(Debug)]
pub struct Lab {
    token: String,
    dir: PathBuf,
    private: bool,
}

impl Lab {
    /// The lab of this process. `private` when [`enter`] has given it namespaces of its own.
    pub(crate) fn here(token: String, private: bool) -> Result<Self> {
        let base = if private { PathBuf::from("/run") } else { std::env::temp_dir() };
        let dir = base.join(&token);
        fs::create_dir_all(&dir).when(|| format!("making {}", dir.display()))?;
        Ok(Self { token, dir, private })
    }

    /// A name that no other test has: part of every cgroup name of this one.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// An empty directory, on a tmpfs when the lab is private.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The state root for this test's runs.
    pub fn state_root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Everything that a run in this lab could change.
    pub fn scope(&self) -> Scope {
        let me = std::process::id().cast_signed();
        Scope {
            trees: if self.private { vec!["/run".into(), "/dev/shm".into()] } else { vec![self.dir.clone()] },
            listings: if self.private {
                ["/", "/dev", "/etc", "/mnt", "/var/lib"].map(PathBuf::from).into()
            } else {
                vec![]
            },
            cgroups: vec![self.token.clone()],
            processes: if self.private { Processes::All } else { Processes::DescendantsOf(me) },
            witnesses: Vec::new(),
            descriptors_of: vec![me],
        }
    }

    /// The machine as it is now, in this lab's scope.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(&self.scope())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A private lab's directory goes with its mount namespace; for the other, what cannot be removed is what the test has to report.
        if !self.private {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Starts this program once more as process 1 of a lab, waits for it, and ends as it ended.
///
/// The harness calls it in a process that it made for one test. A PID namespace takes in only children, hence the second start.
pub(crate) fn enter(inside: &str) -> Result<ExitCode> {
    let doing = || "making namespaces for the test".to_owned();
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )
    .when(doing)?;
    let program = std::env::current_exe().when(|| "finding this program".into())?;
    let status = Command::new(program).env(INSIDE, inside).status().when(doing)?;
    Ok(ExitCode::from(status.code().unwrap_or(128 + status.signal().unwrap_or_default()) as u8))
}

/// Gives the lab its mounts and its loopback interface. In process 1 of the lab, first of all.
pub(crate) fn furnish() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .when(|| "tying the test to the harness".into())?;
    let none: Option<&str> = None;
    // First a slave, so that nothing of ours gets out; then shared again, so that propagation works inside.
    for flag in [MsFlags::MS_SLAVE, MsFlags::MS_SHARED] {
        mount(none, "/", none, flag | MsFlags::MS_REC, none).when(|| "setting the propagation of /".into())?;
    }
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), safe, none).when(|| "mounting /proc".into())?;
    // Executables stay allowed: the tests' bundles lie here.
    let options = Some("mode=0755");
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, options)
        .when(|| "mounting /run".into())?;
    // What the program keeps for later runs: cold at the start of each test, and gone with the lab.
    if Path::new("/var/cache").is_dir() {
        mount(Some("cache"), "/var/cache", Some("tmpfs"), safe, Some("mode=0755"))
            .when(|| "mounting /var/cache".into())?;
    }
    mount(Some("shm"), "/dev/shm", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=1777"))
        .when(|| "mounting /dev/shm".into())?;
    crate::program::quiet("ip", &["link", "set", "lo", "up"])
}
