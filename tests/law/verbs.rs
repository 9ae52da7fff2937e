//! The verbs of `lifecycle-oci`, killed at any system call: `delete --force` then leaves nothing, and a container beside it, on the same root
//! file system and below the same cgroup, does not notice.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lifecycle_tests::bundle::Bundle;
use lifecycle_tests::harness::{Need, Test, TestResult, note};
use lifecycle_tests::killer::{Ending, Outcome, count, run_killed_at};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::{Scope, Snapshot};
use lifecycle_tests::rounds::{Kill, Sample, Tried, places};
use lifecycle_tests::{Error, PATIENCE, Result, While, program};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use serde_json::{Value, json};

use crate::plans::{hooks, stand_in_for_a_hook};

/// How many kills for each verb by default.
const SAMPLE: usize = 10;
/// How many where all are asked for. Places that are fewer are tried again: what runs side by side is in another order each time.
const MANY: usize = 200;
/// The container that it is about.
const ID: &str = "web";
/// The one that must not notice.
const NEIGHBOUR: &str = "neighbour";

const CREATE: &[&str] = &["create", "--bundle", "bundle", ID];
const START: &[&str] = &["start", ID];

/// What is killed, and where.
#[derive(Clone, Copy)]
struct Verb {
    /// What comes before, and succeeds.
    prior: &'static [&'static [&'static str]],
    /// What is killed.
    line: &'static [&'static str],
    /// The container's cgroup, below the lab's.
    cgroup: &'static str,
    /// Namespaces that it has with the host. Without one of its own for processes nothing takes these with it but its cgroup, and without one for
    /// mounts nothing takes those with it but the undoing.
    shares: &'static [&'static str],
}

/// One test for each verb that changes the machine.
pub fn tests() -> Vec<Test> {
    let shared = ID;
    // With a parent of its own, which goes with it.
    let own = "parent/web";
    let detached: &[&str] = &["exec", "-d", ID, "sh", "-c", "sleep 1000 & sleep 1000"];
    let verbs = [
        ("create", Verb { prior: &[], line: CREATE, cgroup: own, shares: &[] }),
        ("create::shared_parent", Verb { prior: &[], line: CREATE, cgroup: shared, shares: &[] }),
        ("create::host_mounts", Verb { prior: &[], line: CREATE, cgroup: own, shares: &["mount"] }),
        ("start", Verb { prior: &[CREATE], line: START, cgroup: own, shares: &[] }),
        ("exec", Verb { prior: &[CREATE, START], line: &["exec", ID, "true"], cgroup: own, shares: &[] }),
        ("exec::detached", Verb { prior: &[CREATE, START], line: detached, cgroup: own, shares: &[] }),
        ("exec::host_pids", Verb { prior: &[CREATE, START], line: detached, cgroup: shared, shares: &["pid"] }),
        ("delete", Verb { prior: &[CREATE], line: &["delete", ID], cgroup: own, shares: &[] }),
        (
            "delete::running",
            Verb { prior: &[CREATE, START], line: &["delete", "--force", ID], cgroup: shared, shares: &[] },
        ),
    ];
    let test = |(name, verb): (&str, Verb)| Test::new(format!("oci::{name}"), move |lab| verb.hold(lab));
    let needs = [Need::Root, Need::Program("busybox")];
    verbs.map(|verb| test(verb).needs(&needs).limit(Duration::from_secs(3600))).into()
}

impl Verb {
    fn hold(&self, lab: &Lab) -> TestResult {
        let empty = lab.snapshot()?;
        let bundle = Bundle::create(lab.dir().join("bundle"))?;
        bundle.runs(&["sleep", "100000"])?;
        bundle.in_cgroup(&format!("/{}/{}", lab.token(), self.cgroup))?;
        let oci = Oci { lab };
        let neighbour = oci.neighbour(&bundle)?;
        bundle.edit(|config| {
            config["hooks"] = hooks(lab);
            if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
                namespaces.retain(|namespace| !self.shares.iter().any(|kind| namespace["type"] == *kind));
            }
        })?;
        let me = std::process::id().cast_signed();
        let scope = Scope { witnesses: vec![neighbour], descriptors_of: vec![me, neighbour], ..lab.scope() };
        let rounds = Rounds { oci, verb: *self, before: Snapshot::take(&scope)?, scope };
        note(rounds.hold()?);
        Oci { lab }.must(&["exec", NEIGHBOUR, "sh", "-c", "test -e /proc/1 && echo alive > /dev/shm/file"])?;
        Oci { lab }.must(&["delete", "--force", NEIGHBOUR])?;
        // The bundles are this test's own to leave.
        let ours = lab.dir().display().to_string();
        let left = empty.returns_within(&lab.scope(), PATIENCE, |change| change.name.starts_with(&ours))?;
        if left.is_empty() { Ok(()) } else { Err(format!("the neighbour has left residue: {left}").into()) }
    }
}

/// `lifecycle-oci` in a lab.
#[derive(Clone, Copy)]
struct Oci<'a> {
    lab: &'a Lab,
}

impl Oci<'_> {
    fn command(&self, line: &[&str]) -> Command {
        // Without the program every round fails, and says so.
        let mut command = Command::new(program::lifecycle_oci().unwrap_or_else(|_| "lifecycle-oci".into()));
        command.arg("--root").arg(self.lab.state_root()).args(line).current_dir(self.lab.dir());
        command
    }

    fn must(&self, line: &[&str]) -> Result<()> {
        let mut said = tempfile::NamedTempFile::new().when(|| "making a file for the output".into())?;
        let end = || said.reopen().map(Stdio::from).when(|| "sharing the output file".into());
        let mut command = self.command(line);
        let child = command.stdin(Stdio::null()).stdout(end()?).stderr(end()?).spawn();
        if ended_well(child.when(|| line.join(" "))?)? {
            return Ok(());
        }
        let mut text = String::new();
        std::io::Read::read_to_string(said.as_file_mut(), &mut text).when(|| "reading the output".into())?;
        Err(Error::new(line.join(" "), text))
    }

    /// A container that runs all the time; its first process.
    fn neighbour(&self, other: &Bundle) -> Result<i32> {
        let dir = self.lab.dir().join(NEIGHBOUR);
        fs::create_dir(&dir).when(|| "making the neighbour's bundle".into())?;
        let config = fs::read_to_string(other.dir().join("config.json")).when(|| "reading config.json".into())?;
        let mut config: Value = serde_json::from_str(&config).when(|| "parsing config.json".into())?;
        config["root"]["path"] = json!(other.rootfs());
        config["linux"]["cgroupsPath"] = json!(format!("/{}/{NEIGHBOUR}", self.lab.token()));
        config["linux"]["resources"]["pids"] = json!({ "limit": 77 });
        fs::write(dir.join("config.json"), config.to_string()).when(|| "writing config.json".into())?;
        self.must(&["create", "--bundle", NEIGHBOUR, "--pid-file", "neighbour.pid", NEIGHBOUR])?;
        self.must(&["start", NEIGHBOUR])?;
        let pid = fs::read_to_string(self.lab.dir().join("neighbour.pid")).when(|| "reading neighbour.pid".into())?;
        pid.trim().parse().when(|| format!("parsing {pid:?}"))
    }
}

/// Waits for a child, and takes in every orphan that ends meanwhile, as callers do, which are subreapers: the first process of a PID namespace
/// is not gone before all others in it are (pid_namespaces(7)).
fn ended_well(mut child: Child) -> Result<bool> {
    let doing = || "waiting for lifecycle-oci".to_owned();
    loop {
        let ended = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).when(doing)?;
        match ended.pid() {
            Some(pid) if pid.as_raw() != child.id().cast_signed() => {
                waitpid(pid, None).when(doing)?;
            }
            _ => return Ok(child.wait().when(doing)?.success()),
        }
    }
}

/// The kills of one verb.
struct Rounds<'a> {
    oci: Oci<'a>,
    verb: Verb,
    before: Snapshot,
    scope: Scope,
}

impl Rounds<'_> {
    fn hold(&self) -> Result<Tried> {
        self.begin()?;
        let whole = count(&mut self.oci.command(self.verb.line))?;
        if whole.ending != Ending::Exited(0) {
            return Err(Error::new(self.verb.line.join(" "), said(&whole)));
        }
        self.end("without a kill")?;
        let all: Vec<Kill> = places(whole.points);
        let mut tried = Tried { places: all.len(), ..Tried::default() };
        let kills = match Sample::from_environment(SAMPLE) {
            Sample::Full => Sample::AtMost(MANY).choose(all).into_iter().cycle().take(MANY).collect(),
            sample @ Sample::AtMost(_) => sample.choose(all),
        };
        for kill in kills {
            if self.round(&kill)? {
                tried.killed += 1;
            } else {
                tried.missed += 1;
            }
        }
        Ok(tried)
    }

    fn round(&self, kill: &Kill) -> Result<bool> {
        self.begin()?;
        let outcome = run_killed_at(&mut self.oci.command(self.verb.line), &kill.point, kill.victim, kill.when)?;
        stand_in_for_a_hook(self.oci.lab, kill, &outcome)?;
        self.end(&format!("with {kill}")).map_err(|error| Error::new(error.to_string(), said(&outcome)))?;
        Ok(outcome.killed)
    }

    fn begin(&self) -> Result<()> {
        self.verb.prior.iter().try_for_each(|line| self.oci.must(line))
    }

    /// What a caller does after a crash.
    fn end(&self, when: &str) -> Result<()> {
        let delete = self.oci.must(&["delete", "--force", ID]).map_err(|error| format!("{when}: {error}"));
        let difference = self.before.returns_within(&self.scope, PATIENCE, |_| false)?;
        delete.map_err(|error| Error::new("deleting", error))?;
        if difference.is_empty() {
            Ok(())
        } else {
            Err(Error::new(format!("{when} there is residue after delete --force"), difference))
        }
    }
}

fn said(outcome: &Outcome) -> String {
    format!("{:?}\n{}{}", outcome.ending, outcome.stdout, outcome.stderr)
}
