//! The law over the program: a run fails, or is killed, at any step and at any system call, and leaves nothing.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use lifecycle_tests::killer::{Ending, Outcome, Victim, count, run_killed_at};
use lifecycle_tests::lab::Lab;
use lifecycle_tests::machine::{Change, Scope, Snapshot};
use lifecycle_tests::rounds::{Kill, Sample, places};
use lifecycle_tests::{Error, PATIENCE, Result, While, older, program};
use serde_json::Value;

use crate::plans::stand_in_for_a_hook;

/// The exit code that says that the run could not begin, or was not carried on.
const ENGINE_FAILED: i32 = 125;
/// The one of a step that failed.
const STEP_FAILED: i32 = 1;

/// A run of a plan, and what belongs to it.
pub struct Scenario<'a> {
    /// The machine that it has for itself.
    pub lab: &'a Lab,
    /// What is looked at.
    pub scope: Scope,
    /// Runs that come before, kept: what follows `lifecycle run --keep`.
    pub prior: Vec<Vec<OsString>>,
    /// The run: what follows `lifecycle run`.
    pub run: Vec<OsString>,
    /// A run that was there before, and stays.
    pub neighbour: Option<String>,
    /// A difference that is left on purpose.
    pub kept: &'a dyn Fn(&Change) -> bool,
    /// How it is held against it.
    pub way: Way,
}

/// How the law is held.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// How many kills to try in the run, and how many in undo.
    pub sample: Sample,
    /// Whether every step is made to fail, too.
    pub faults: bool,
    /// Every command runs as on an older kernel, and every run with its facts masked.
    pub older: bool,
    /// Every command runs as this user, whose state root is the lab's.
    pub user: Option<u32>,
}

impl Default for Way {
    fn default() -> Self {
        Self { sample: Sample::Full, faults: true, older: false, user: None }
    }
}

/// What was tried of what there is.
#[derive(Debug, Default)]
pub struct Tried {
    faults: usize,
    steps: usize,
    not_taken: Vec<String>,
    kills: usize,
    missed: usize,
    places: usize,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, steps, not_taken, kills, missed, places } = self;
        write!(f, "{faults} faults in {steps} steps; {kills} kills of {places} possible")?;
        if *missed > 0 {
            write!(f, ", {missed} places not reached again")?;
        }
        if !not_taken.is_empty() {
            write!(f, "; not taken: {}", not_taken.join(" "))?;
        }
        Ok(())
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(Into::into).collect()
}

fn said(outcome: &Outcome) -> String {
    format!("{:?}\n{}{}", outcome.ending, outcome.stdout, outcome.stderr)
}

impl Scenario<'_> {
    /// Holds the law against it: `faults` at every step, kills at the sample of places.
    pub fn hold(&self) -> Result<Tried> {
        let before = Snapshot::take(&self.scope)?;
        self.begin()?;
        let steps = self.steps()?;
        let whole = self.run(&[])?;
        let Ending::Exited(code) = whole.ending else { return Err(Error::new("the run", said(&whole))) };
        if code >= ENGINE_FAILED {
            return Err(Error::new("the run", said(&whole)));
        }
        self.end()?;
        self.as_before(&before, "after the run")?;
        self.undone_twice(&before)?;
        let mut tried = Tried { steps: steps.len(), ..Tried::default() };
        for step in steps.iter().filter(|_| self.way.faults) {
            self.fail_at(step, code, &before, &mut tried)?;
        }
        self.killed_in_run(whole, &before, &mut tried)?;
        self.killed_in_undo(&before, &mut tried)?;
        Ok(tried)
    }

    fn undone_twice(&self, before: &Snapshot) -> Result<()> {
        self.begin()?;
        let kept = self.run(&["--keep"])?;
        let ids = self.ids()?;
        for id in &ids {
            self.must("undo", &[id])?;
        }
        for id in &ids {
            let again = self.program("undo", &words(&[id]))?;
            if !again.stderr.contains("no run with the id") {
                return Err(Error::new(format!("undoing {id} again"), said(&again)));
            }
        }
        self.as_before(before, "after a run with --keep and undo, twice")
            .map_err(|error| Error::new(error.to_string(), said(&kept)))
    }

    fn fail_at(&self, step: &str, code: i32, before: &Snapshot, tried: &mut Tried) -> Result<()> {
        for fault in ["before", "after", "crash"] {
            let at = format!("{step}:{fault}");
            self.begin()?;
            let outcome = self.run(&["--fail-at", &at])?;
            match outcome.ending {
                Ending::Exited(STEP_FAILED) if fault != "crash" && outcome.stderr.contains("failed on purpose") => {
                    tried.faults += 1;
                }
                Ending::Exited(ended) if ended == code => {
                    tried.not_taken.push(at.clone());
                }
                // An armed step of a plan that does not start the container is refused.
                Ending::Exited(ENGINE_FAILED) if outcome.stderr.contains("not in this") => {
                    tried.not_taken.push(at.clone());
                }
                Ending::Signaled(9) if fault == "crash" => tried.faults += 1,
                _ => return Err(Error::new(format!("the run with --fail-at {at}"), said(&outcome))),
            }
            // A run that failed has taken itself back; nobody has to recover it.
            if fault == "crash" {
                self.recover()?;
            }
            self.end()?;
            self.as_before(before, &format!("after --fail-at {at}"))
                .map_err(|error| Error::new(error.to_string(), said(&outcome)))?;
        }
        Ok(())
    }

    fn killed_in_run(&self, whole: Outcome, before: &Snapshot, tried: &mut Tried) -> Result<()> {
        self.each(whole, tried, |kill| {
            self.begin()?;
            // The command holds the files of its output for as long as it is there.
            let outcome = run_killed_at(&mut self.command("run", &[], &self.run), &kill.point, kill.victim, kill.when)?;
            // The engine outlives any other victim and takes the run back by itself, unless the victim was to do just that.
            if kill.victim == Victim::Engine || outcome.stderr.contains("stuck:") {
                self.recover()?;
            }
            self.end()?;
            stand_in_for_a_hook(self.lab, kill, &outcome)?;
            self.as_before(before, "after the run and recover")
                .map_err(|error| Error::new(error.to_string(), said(&outcome)))?;
            Ok(outcome.killed)
        })
    }

    fn killed_in_undo(&self, before: &Snapshot, tried: &mut Tried) -> Result<()> {
        let keep = || {
            self.begin()?;
            let outcome = self.run(&["--keep"])?;
            Ok::<_, Error>((self.ids()?, outcome))
        };
        let Some(id) = keep()?.0.pop() else { return Ok(()) };
        let undone = self.program("undo", &words(&[&id]))?;
        self.finish()?;
        self.each(undone, tried, |kill| {
            let (mut ids, outcome) = keep()?;
            let Some(id) = ids.pop() else { return Err(Error::new("keeping a run", said(&outcome))) };
            let undo = words(&[&id]);
            let outcome = run_killed_at(&mut self.command("undo", &[], &undo), &kill.point, kill.victim, kill.when)?;
            self.finish()?;
            stand_in_for_a_hook(self.lab, kill, &outcome)?;
            self.as_before(before, "after undo and recover")
                .map_err(|error| Error::new(error.to_string(), said(&outcome)))?;
            Ok(outcome.killed)
        })
    }

    fn each(&self, whole: Outcome, tried: &mut Tried, round: impl Fn(&Kill) -> Result<bool>) -> Result<()> {
        let all = places(whole.points);
        tried.places += all.len();
        for kill in self.way.sample.choose(all) {
            if round(&kill).map_err(|error| Error::new(format!("with {kill}"), error))? {
                tried.kills += 1;
            } else {
                tried.missed += 1;
            }
        }
        Ok(())
    }

    /// The runs that come before.
    fn begin(&self) -> Result<()> {
        for prior in &self.prior {
            let outcome = self.program("run", &[words(&["--keep"]), prior.clone()].concat())?;
            if outcome.ending != Ending::Exited(0) {
                return Err(Error::new(format!("the run before, {prior:?}"), said(&outcome)));
            }
        }
        Ok(())
    }

    /// Takes back what was kept, if runs came before; otherwise there must be nothing to take back.
    fn end(&self) -> Result<()> {
        if self.prior.is_empty() { Ok(()) } else { self.finish() }
    }

    /// What a person does after a crash, and then takes back what was kept.
    fn finish(&self) -> Result<()> {
        self.recover()?;
        for id in self.ids()? {
            self.must("undo", &[&id])?;
        }
        Ok(())
    }

    fn recover(&self) -> Result<()> {
        self.must("recover", &[])
    }

    fn must(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let outcome = self.program(name, &words(arguments))?;
        if outcome.ending == Ending::Exited(0) {
            Ok(())
        } else {
            Err(Error::new(format!("{name} {}", arguments.join(" ")), said(&outcome)))
        }
    }

    fn run(&self, options: &[&str]) -> Result<Outcome> {
        count(&mut self.command("run", options, &self.run))
    }

    fn program(&self, name: &str, arguments: &[OsString]) -> Result<Outcome> {
        count(&mut self.command(name, &[], arguments))
    }

    fn command(&self, name: &str, options: &[&str], arguments: &[OsString]) -> Command {
        // Without the program every round fails, and says so.
        let mut command = Command::new(program::lifecycle().unwrap_or_else(|_| "lifecycle".into()));
        command.arg(name).arg("--root").arg(self.lab.state_root());
        if self.way.older {
            if matches!(name, "run" | "plan") {
                command.args(["--mask", &older::all()]);
            }
            older::kernel(&mut command);
        }
        if let Some(user) = self.way.user {
            command.uid(user).gid(user);
        }
        command.args(options).args(arguments).current_dir(self.lab.dir());
        command
    }

    /// The runs that nobody's run contains, the last one first; not the neighbour.
    fn ids(&self) -> Result<Vec<String>> {
        let runs = self.json("runs", &words(&["--format", "json"]))?;
        let runs = runs.as_array().into_iter().flatten().filter(|run| run["parent"].is_null());
        let ids = runs.filter_map(|run| run["id"].as_str().map(str::to_owned));
        let mut ids: Vec<String> = ids.filter(|id| self.neighbour.as_ref() != Some(id)).collect();
        ids.reverse();
        Ok(ids)
    }

    /// The addresses of all steps, those of plans that are used as steps too.
    fn steps(&self) -> Result<Vec<String>> {
        let plan = self.json("plan", &[words(&["--format", "json"]), self.run.clone()].concat())?;
        let steps = plan["steps"].as_array().into_iter().flatten();
        Ok(steps.filter_map(|step| step["address"].as_str().map(str::to_owned)).collect())
    }

    fn json(&self, name: &str, arguments: &[OsString]) -> Result<Value> {
        let output = self.command(name, &[], arguments).output().when(|| format!("running {name}"))?;
        if !output.status.success() {
            return Err(Error::new(name, String::from_utf8_lossy(&output.stderr)));
        }
        serde_json::from_slice(&output.stdout).when(|| format!("reading what {name} prints"))
    }

    fn as_before(&self, before: &Snapshot, when: &str) -> Result<()> {
        // The state root itself stays, as /run/lifecycle does.
        let root = self.lab.state_root().display().to_string();
        let kept = |change: &Change| change.name == root || (self.kept)(change);
        let difference = before.returns_within(&self.scope, PATIENCE, kept)?;
        if difference.is_empty() { Ok(()) } else { Err(Error::new(format!("{when} there is residue"), difference)) }
    }
}
