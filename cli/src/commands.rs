//! The commands, one file each.

pub mod audit;
pub mod completions;
pub mod logs;
pub mod man;
pub mod recover;
pub mod run;
pub mod runs;
pub mod show;
pub mod undo;
