//! The one way in which a verb does anything: a built-in plan, run by the engine.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use lifecycle_cli::{builtin, runs, signals};
use lifecycle_engine::effect::RunNames;
use lifecycle_engine::events::{Event, Watch};
use lifecycle_engine::facts::Facts;
use lifecycle_engine::journal::{Identity, TakenBack};
use lifecycle_engine::planning::{self, Given, Target};
use lifecycle_engine::run::{Finished, RunOptions, run};
use lifecycle_engine::step::Registry;
use lifecycle_engine::types::Name;
use lifecycle_steps::effects::wait::hold_signals;
use lifecycle_steps::facts::Machine;
use lifecycle_steps::spawn::identity;
use serde_json::{Map, Value};

use crate::args::Global;
use crate::fault::Fault;
use crate::log::Log;

/// What a verb works with.
pub struct Call<'a> {
    /// Options that every verb takes.
    pub global: &'a Global,
    /// Where messages go.
    pub log: &'a Log,
    /// The state root.
    pub root: PathBuf,
}

/// What is left of a run that has ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// The container that it made.
    Container,
    /// Whatever it made.
    All,
}

impl Keep {
    /// Nothing, unless that is asked for.
    pub fn if_so(keep: bool, what: Self) -> Self {
        if keep { what } else { Self::Nothing }
    }
}

/// The parameters of a plan.
pub type Params = Map<String, Value>;

impl<'a> Call<'a> {
    /// Finds the state root.
    pub fn new(global: &'a Global, log: &'a Log) -> Result<Self, Fault> {
        let root = runs::root(global.root.as_deref()).map_err(|e| Fault::failed("cannot use the state root", &e))?;
        Ok(Self { global, log, root })
    }

    /// The names of a container's run.
    pub fn container(&self, id: &str) -> Result<RunNames, Fault> {
        if id.is_empty() {
            return Err(Fault::new("container id cannot be empty"));
        }
        let name = Name::parse(id).map_err(|why| Fault::new(format!("invalid container ID format: {id:?}: {why}")))?;
        Ok(RunNames { root: self.root.clone(), id: name.as_str().to_owned() })
    }

    /// What a run's events are told to.
    pub fn watch(&self) -> Told<'_> {
        Told { log: self.log }
    }

    /// Runs a plan, and keeps what it made if it ends well. An error is whatever kept it from that; all is taken back then.
    pub fn perform(&self, plan: &str, params: Params) -> Result<Finished, Fault> {
        self.run(plan, params, Keep::All)
    }

    /// Runs a plan, and leaves of it what `keep` says when it ends well.
    pub fn run(&self, plan: &str, params: Params, keep: Keep) -> Result<Finished, Fault> {
        let registry = lifecycle_steps::registry();
        let forwards = params.get("forward_signals") == Some(&Value::Bool(true));
        // Until the plan is there a signal ends this program: it may be waiting for the end of a pipe that it reads.
        let program = self.program(&registry, plan, params)?;
        if forwards {
            hold_signals().map_err(|e| Fault::failed("cannot hold signals back for the program", &e))?;
        }
        let own = identity::identify(rustix::process::getpid())
            .map_err(|e| Fault::failed("cannot read /proc/self/stat", &e))?;
        let cancel = signals::cancel().map_err(|e| Fault::failed("cannot take signals", &e))?;
        let options = RunOptions {
            engine: Identity { pid: own.pid, start: own.start, boot: own.boot },
            keep: keep != Keep::Nothing,
            only_nested: keep == Keep::Container,
            fail_at: None,
            pause_at: None,
            cancel: Some(cancel.as_raw_fd()),
            jobs: None,
        };
        let finished = run(Rc::new(program), &registry, options, &mut self.watch())?;
        match Fault::of(&finished) {
            Some(fault) => Err(fault),
            None => Ok(finished),
        }
    }

    fn program(
        &self,
        registry: &Registry,
        plan: &str,
        params: Params,
    ) -> Result<lifecycle_engine::program::Program, Fault> {
        let graph = builtin::compiled(plan, registry).map_err(Fault::new)?;
        let values = Value::Object(params).to_string();
        let given = Given { set: &[], file: Some(("the command line", &values)), command: &[] };
        let bound = planning::bind(&graph, given).map_err(|report| Fault::refused(&report))?;
        let mut facts = Facts::live(Box::new(Machine));
        let run = planning::run_id(&graph, &bound).map_err(|report| Fault::refused(&report))?;
        let opened = match (&run.id, run.opens || run.beside) {
            (Some(id), true) => runs::outputs(&RunNames { root: self.root.clone(), id: id.clone() }, &mut facts)?,
            _ => Value::Null,
        };
        let target = Target { root: self.root.clone(), id: runs::fresh_id(plan), opened };
        planning::program(&graph, &bound, &mut facts, target).map_err(|report| Fault::refused(&report))
    }
}

/// A path as a parameter: from `/` on, since undo happens in another directory.
pub fn path(path: &Path) -> Result<Value, Fault> {
    let absolute = std::path::absolute(path).map_err(|e| Fault::failed(path.display(), &e))?;
    let text = absolute.to_str().ok_or_else(|| Fault::new(format!("{} is not UTF-8", path.display())))?;
    Ok(text.into())
}

/// Tells nothing but warnings and what `--debug` asks for: a container's output is its own.
pub struct Told<'a> {
    log: &'a Log,
}

impl Watch for Told<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Began { step, .. } => self.log.debug(&format!("{step}: begins")),
            Event::Done { step, from, at, .. } => {
                self.log.debug(&format!("{step}: done in {} µs", at.saturating_sub(*from)));
            }
            // "If any poststop hook fails, the runtime MUST log a warning" (runtime.md, "Lifecycle").
            Event::Warning { step, text } => self.log.warn(&format!("{step}: {text}")),
            Event::Output { step, line } => self.log.debug(&format!("{step} | {line}")),
            Event::Failed(failure) => {
                self.log.debug(&format!("{}: {}: {}", failure.step, failure.effect, failure.error));
            }
            Event::Undone { step, how: TakenBack::Whole, .. } => self.log.debug(&format!("{step}: taken back")),
            // What stays so is in the verb's own message.
            Event::Stuck(stuck) => self.log.debug(&format!("{}: {}: {}", stuck.step, stuck.effect, stuck.error)),
            _ => {}
        }
    }
}
