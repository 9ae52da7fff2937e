//! Where runs are: the state root, and what is below it.

use std::path::PathBuf;

use lifecycle_engine::effect::RunNames;
use lifecycle_engine::events::Stuck;
use lifecycle_engine::journal::{self, RunDir};
use lifecycle_engine::run::{RunError, is_alive};
use lifecycle_engine::types::Name;

use crate::args::Global;
use crate::print::{Failure, failed, refused};

/// The state root: what the caller names, `/run/lifecycle` for root, `$XDG_RUNTIME_DIR/lifecycle` for others.
pub fn root(global: &Global) -> Result<PathBuf, Failure> {
    let given = global.root.as_deref();
    lifecycle_cli::runs::root(given).map_err(|e| {
        let named = given.map_or_else(String::new, |root| format!(" {}", root.display()));
        failed(format!("cannot use the state root{named}"), &e)
    })
}

/// The names of a run that the caller gave by id.
pub fn run(global: &Global, id: &str) -> Result<RunNames, Failure> {
    let name = Name::parse(id)
        .map_err(|why| refused(format!("`{id}` is not a run's id: {why}"), "`lifecycle runs` lists the runs"))?;
    Ok(RunNames { root: root(global)?, id: name.as_str().to_owned() })
}

/// All runs below the state root.
pub fn runs(global: &Global) -> Result<Vec<RunNames>, Failure> {
    let root = root(global)?;
    let ids = RunDir::list(&root).map_err(RunError::from)?;
    Ok(ids.into_iter().map(|id| RunNames { root: root.clone(), id }).collect())
}

/// The pid of the engine that works on the run, if one does.
pub fn working_engine(names: &RunNames) -> Option<i32> {
    let state = journal::read(names).ok()?;
    let segment = state.segments.last()?;
    (segment.settled.is_none() && is_alive(&segment.engine)).then_some(segment.engine.pid)
}

/// What could not be taken back of a run.
pub fn stuck(id: &str, stuck: &[Stuck]) -> Failure {
    let line = |s: &Stuck| {
        let help = s.error.help.as_ref().map_or_else(String::new, |help| format!("\n    {help}"));
        format!("\n  {}: {}: {}{help}", s.step, s.effect, s.error)
    };
    let lines: String = stuck.iter().map(line).collect();
    let help = format!(
        "it stays in the journal; mend the cause, then `lifecycle undo {id}` tries it again; `lifecycle undo {id} --forget STEP` gives it up and leaves it"
    );
    let mut failure = refused(format!("{} of run `{id}` could not be taken back:{lines}", effects(stuck.len())), help);
    failure.code = 1;
    failure
}

fn effects(n: usize) -> String {
    if n == 1 { "one effect".into() } else { format!("{n} effects") }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        use journal::JournalError;
        let help = match &error {
            RunError::Journal(JournalError::Exists(other)) => exists(other),
            RunError::Journal(JournalError::Absent { .. }) => "`lifecycle runs` lists the runs; --root names another state root".into(),
            RunError::Journal(JournalError::Busy { id }) => format!("`lifecycle show -f {id}` follows it, `lifecycle undo {id}` cancels it and takes it back"),
            RunError::Journal(JournalError::Corrupt { .. }) => {
                "nothing was touched; the journal was damaged by something else than a crash: what the run made has to be removed by hand, `lifecycle audit` lists it".into()
            }
            RunError::Journal(JournalError::Foreign { path, why }) => why.help(path),
            RunError::Journal(JournalError::Io { .. }) => "name a state root that you may write to with --root".into(),
            RunError::Beside(_) => "mend the cause, then try again".into(),
            RunError::Unknown { .. } => "use the version of the program that made the run, or a later one".into(),
            RunError::StillRunning { pid, .. } => format!("look at what process {pid} waits for; SIGKILL it and use `lifecycle recover` if it hangs"),
        };
        let cause = std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
        refused(format!("{error}{cause}"), help)
    }
}

fn exists(other: &journal::RunState) -> String {
    let id = &other.id;
    let by = other.segments.last().map_or_else(
        || "an engine that is just beginning made it".to_owned(),
        |s| match (s.settled.is_some(), is_alive(&s.engine)) {
            (true, _) => format!("plan {} made it, and it was kept", s.plan),
            (false, true) => format!("plan {} made it, and its engine (pid {}) is running", s.plan, s.engine.pid),
            (false, false) => format!(
                "plan {} made it, and its engine (pid {}) has died; `lifecycle recover` takes it back",
                s.plan, s.engine.pid
            ),
        },
    );
    format!("{by}. `lifecycle show {id}` shows it, `lifecycle undo {id}` takes it back; another id makes another run")
}
