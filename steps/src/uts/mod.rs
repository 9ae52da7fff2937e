//! The names of a container.

pub mod set;
