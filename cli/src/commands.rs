//! The commands, one file each.

pub mod audit;
pub mod check;
pub mod completions;
pub mod facts;
pub mod logs;
pub mod man;
pub mod plan;
pub mod recover;
pub mod run;
pub mod runs;
pub mod schema;
pub mod show;
pub mod snapshot;
pub mod steps;
pub mod undo;
