//! What `lifecycle` and `lifecycle-oci` share: the built-in plans, and where runs are.

pub mod builtin;
pub mod mask;
pub mod named;
pub mod runs;
pub mod signals;
