//! Mounting: the runtime-spec's options, and the two families of system calls that perform them.
//!
//! The way of choice makes a mount that hangs nowhere, sets everything about it, and only then moves it to its place: it is never seen
//! half-configured, and it can be recorded before it exists for others. mount(2) is for hosts that refuse the newer calls ([`Api`]).

pub mod api;
pub mod copy;
mod holder;
pub mod id_map;
pub mod locked;
pub mod options;
pub mod table;
mod tree;

pub use api::Api;
pub use options::{Bind, Options, Propagation};
