//! The workflow engine of `lifecycle`: plans in YAML become a graph of steps, whose effects are shown, journaled, performed and taken back.
//!
//! It knows nothing of containers and makes no system call but file I/O and poll. What steps and effects there are it learns from a
//! [`step::Registry`].

pub mod compile;
pub mod diag;
pub mod effect;
pub mod error;
pub mod events;
pub mod expr;
pub mod facts;
pub mod graph;
pub mod journal;
pub mod lines;
pub mod plan;
pub mod planning;
pub mod proc;
pub mod program;
pub mod render;
pub mod run;
pub mod schema;
pub mod site;
pub mod step;
mod sys;
pub mod types;
pub mod value;
pub mod yaml;

#[cfg(test)]
mod testing;
