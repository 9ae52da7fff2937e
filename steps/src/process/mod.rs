//! The container's processes: made, given their privileges, replaced by the container's program, waited for, killed.

mod identity;

pub(crate) use identity::{Fate, Watched};
