//! The container's root file system: where it comes from, what is mounted in it, and what of it is out of reach.

pub mod enter;
mod entry;
pub mod mount;
pub mod overlay;
pub mod pivot;
pub mod protect;
pub mod sources;
