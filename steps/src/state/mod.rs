//! The container's state, as others read it.

mod publish;

pub use publish::Publish;
