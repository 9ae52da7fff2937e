//! Kernel parameters.

pub mod write;
