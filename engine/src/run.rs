//! Running a program, and taking runs back.
//!
//! One thread and one poll loop: everything that takes its time is a [`crate::effect::Pending`] with descriptors to poll.

mod again;
mod conclude;
mod dependents;
mod execute;
mod log;
mod recover;
mod signals;
mod sites;
mod undo;
mod waiting;
mod work;

pub use execute::{Finished, RunOptions, run};
pub use log::Log;
pub use recover::{Recovered, is_alive, recover, recover_one, undo_run, undo_run_but, undo_run_by};
pub use undo::PATIENCE;

use crate::journal::JournalError;

/// A run that could not be begun or carried on at all. What a step does wrong is a [`crate::events::Failure`] instead.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The run's directory or journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A journal holds something that this program cannot undo.
    #[error("step `{step}` has an effect of the kind `{kind}`, which this program does not know: {problem}")]
    Unknown {
        /// The step's address.
        step: String,
        /// The effect's kind.
        kind: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What was done beside a run could not be taken back, so the run itself is left as it is.
    #[error("what was done beside it could not be taken back: {0}")]
    Beside(String),
    /// The run whose undo could not be finished in the time given.
    #[error("the engine of run `{id}` (pid {pid}) did not end within {seconds} s")]
    StillRunning {
        /// The run.
        id: String,
        /// Its engine.
        pid: i32,
        /// How long it was waited for.
        seconds: u64,
    },
}
