//! The journal: an append-only record of a run, in JSON lines. Intent before, outcomes after, and the same for undo.
//!
//! It is kept in the run's directory and locked for as long as an engine works on the run. A crash may tear the last line; anything else that
//! does not parse is an error that names the byte.

mod entry;
mod file;
mod own;
mod state;

pub use entry::{Entry, Identity, PlannedData, Settlement, TakenBack, VERSION};
pub use file::{JOURNAL, Journal, JournalError, RunDir, outputs, parse, read};
pub use own::{Foreign, OwnDir};
pub use state::{EffectState, NodeState, Phase, RunState, Segment, Status};
