//! Rendering: one model of what a program would do ([`DryRun`]) and its forms, and the same for what a run did.
//!
//! A new format is one file here. Everything that is shown passes through the model, where sensitive values are redacted.

mod align;
pub mod catalogue;
pub mod diff;
pub mod dot;
mod groups;
pub mod json;
pub mod mermaid;
mod model;
pub mod paint;
mod past;
pub mod saved;
pub mod show;
pub mod svg;
pub mod text;
pub mod trace;
mod view;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use model::{DryRun, Edge, Effect, How, Param, Run, Scope, Step, Summary, VERSION, Why};
pub use past::{from_events, from_journal};
